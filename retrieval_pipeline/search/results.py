"""What a search gives: hits and answers, and their JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from retrieval_pipeline.index.build import Build
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.index.records import CompanionFile
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.search.filters import file_test
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.ranking import Ranking
from retrieval_pipeline.search.relevance import LIKELY
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.vectors import Values
from retrieval_pipeline.views import View


@dataclass(frozen=True)
class Hit:
    """One search result.

    Attributes:
        content_id: Identity of the image's bytes.
        path: Absolute path of `location`.
        location: Its first location that passes the filters.
        score: Cosine of query and image, -1 to 1, lowered by what the query does not want.
        relevance: 0 to 1: how sure it is that the picture has to do with the query.
        locations: Every file that holds this image.
        companions: The other files of the photograph, such as its RAW file, and those about it.
        width: Pixels of the upright picture.
        height: Pixels of the upright picture.
        alike: Lower hits that look the same and were folded into this one.
        region: The part of the picture that matched; None if it is the picture as a whole.
    """

    content_id: str
    path: Place
    location: Location
    score: float
    relevance: float
    locations: tuple[Location, ...]
    width: int
    height: int
    companions: tuple[CompanionFile, ...] = ()
    alike: int = 0
    region: View | None = None

    @property
    def likely(self) -> bool:
        """Whether it is more probably right than wrong."""
        return self.relevance >= LIKELY

    @property
    def source(self) -> str:
        """Source of the location shown first."""
        return self.location.source

    @property
    def other_locations(self) -> tuple[Location, ...]:
        """The other files that hold the same image."""
        return tuple(place for place in self.locations if place != self.location)


def read_hits(
    build: Build,
    query: Query,
    ranking: Ranking,
    relevance: Values,
    groups: Sequence[Sequence[int]],
    path_of: Callable[[Location], Place],
) -> tuple[Hit, ...]:
    """Return a hit for each group of ranks; its first rank is the one shown.

    Args:
        build: What was searched.
        query: What was asked; the first file that passes its filters is the one shown.
        ranking: What was found.
        relevance: Of each rank, float64 (n,).
        groups: Ranks of hits that look the same.
        path_of: Gives the absolute path of a file.
    """
    ranks = [group[0] for group in groups]
    passes = file_test(build, query)
    hits = []
    for item, rank, group in zip(build.records(ranking.numbers[ranks]), ranks, groups, strict=True):
        location = item.first(passes)
        hits.append(
            Hit(
                content_id=item.content_id,
                path=path_of(location),
                location=location,
                score=float(ranking.scores[rank]),
                relevance=float(relevance[rank]),
                locations=item.locations,
                width=item.width,
                height=item.height,
                companions=item.companions,
                alike=len(group) - 1,
                region=build.view_of(int(ranking.rows[rank])),
            )
        )
    return tuple(hits)


@dataclass(frozen=True)
class Answer:
    """The hits of one query and where they came from.

    Attributes:
        query: What was asked.
        hits: Best first.
        model: Of the build.
        build: Name of the build.
        timings_ms: Milliseconds of each step.
        plan: How the hits were found.
        hints: Lines on words that the model does not know.
        offset: How many better hits were left out.
    """

    query: Query
    hits: tuple[Hit, ...]
    model: str
    build: str
    timings_ms: dict[str, float] = field(compare=False)
    plan: str = field(default="", compare=False)
    hints: tuple[str, ...] = ()
    offset: int = field(default=0, compare=False)

    @property
    def likely(self) -> int:
        """How many of the hits are likely; relevance descends, so these are the first ones."""
        return sum(hit.likely for hit in self.hits)

    @property
    def verdict(self) -> str:
        """How far the hits can be trusted, in a sentence without a full stop."""
        if not self.hits:
            return "nothing here looks like that"
        if not self.likely:
            none = "none of these is likely" if self.offset else "nothing here looks like that"
            return f"{none}: only the nearest are shown"
        if self.likely < len(self.hits):
            return f"{self.likely} likely; the rest are only the nearest"
        return "likely" if self.likely == 1 else f"all {self.likely} likely"


def answer_json(answer: Answer) -> dict[str, Any]:
    """Return the JSON object of one answer; its paths are text of `paths.to_text`."""
    return {
        "query": str(answer.query),
        "model": answer.model,
        "build": answer.build,
        "likely": answer.likely,
        "hits": [
            {
                "content_id": hit.content_id,
                "path": to_text(str(hit.path)),
                "source": hit.source,
                "score": round(hit.score, 6),
                "relevance": round(hit.relevance, 6),
                "likely": hit.likely,
                "width": hit.width,
                "height": hit.height,
                "alike": hit.alike,
                "region": hit.region and asdict(hit.region),
                "locations": [
                    {"source": place.source, "path": place.path} for place in hit.locations
                ],
                "companions": [
                    {
                        "kind": each.kind.value,
                        "source": each.file.location.source,
                        "path": each.file.location.path,
                    }
                    for each in hit.companions
                ],
            }
            for hit in answer.hits
        ],
        "hints": list(answer.hints),
        "timings_ms": answer.timings_ms,
    }
