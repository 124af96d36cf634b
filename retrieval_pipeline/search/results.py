"""What a search gives: hits and answers, and their JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from retrieval_pipeline.index.build import Build
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.search.filters import file_test
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.ranking import Ranking
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
    alike: int = 0
    region: View | None = None

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
        location = next(file.location for file in item.files if passes(file))
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
    """

    query: Query
    hits: tuple[Hit, ...]
    model: str
    build: str
    timings_ms: dict[str, float] = field(compare=False)
    plan: str = field(default="", compare=False)
    hints: tuple[str, ...] = ()


def answer_json(answer: Answer) -> dict[str, Any]:
    """Return the JSON object of one answer; its paths are text of `paths.to_text`."""
    return {
        "query": str(answer.query),
        "model": answer.model,
        "build": answer.build,
        "hits": [
            {
                "content_id": hit.content_id,
                "path": to_text(str(hit.path)),
                "source": hit.source,
                "score": round(hit.score, 6),
                "relevance": round(hit.relevance, 6),
                "width": hit.width,
                "height": hit.height,
                "alike": hit.alike,
                "region": hit.region and asdict(hit.region),
                "locations": [
                    {"source": place.source, "path": place.path} for place in hit.locations
                ],
            }
            for hit in answer.hits
        ],
        "hints": list(answer.hints),
        "timings_ms": answer.timings_ms,
    }
