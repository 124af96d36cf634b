"""What a search gives: hits and answers, and their JSON."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from retrieval_pipeline.facts.query_words import Understood
from retrieval_pipeline.index.item_facts import UNKNOWN, ItemFacts
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.index.records import CompanionFile
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.rendering.html_page import Card
from retrieval_pipeline.rendering.notebook import cards_html
from retrieval_pipeline.search.filters import file_test
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.relevance import LIKELY
from retrieval_pipeline.search.vector_index import VectorIndex, as_items
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.views import View


@dataclass(frozen=True)
class Hit:
    """One search result.

    Attributes:
        content_id: Identity of the image's bytes.
        path: Absolute path of `location`.
        location: Its first location that passes the filters.
        score: Cosine of query and image, -1 to 1, lowered by what the query does not want; None if
            the query only filters.
        relevance: 0 to 1: how sure it is that the picture has to do with the query; None if the
            query only filters.
        locations: Every file that holds this image.
        companions: The other files of the photograph, such as its RAW file, and those about it.
        width: Pixels of the upright picture.
        height: Pixels of the upright picture.
        alike: Lower hits that look the same and were folded into this one.
        region: The part of the picture that matched; None if it is the picture as a whole.
        facts: When, where and with what it was taken.
    """

    content_id: str
    path: Place
    location: Location
    score: float | None
    relevance: float | None
    locations: tuple[Location, ...]
    width: int
    height: int
    companions: tuple[CompanionFile, ...] = ()
    alike: int = 0
    region: View | None = None
    facts: ItemFacts = UNKNOWN

    @property
    def likely(self) -> bool:
        """Whether it is more probably right than wrong; False if the query only filters."""
        return self.relevance is not None and self.relevance >= LIKELY

    @property
    def source(self) -> str:
        """Source of the location shown first."""
        return self.location.source

    @property
    def other_locations(self) -> tuple[Location, ...]:
        """The other files that hold the same image."""
        return tuple(place for place in self.locations if place != self.location)


class Hits(list[Hit]):
    """Hits in their order; a notebook shows them as pictures."""

    def _repr_html_(self) -> str:
        return cards_html(hit_cards(self))


def hit_cards(hits: Sequence[Hit]) -> tuple[Card, ...]:
    """Return the cards of hits, ranked from 1, for pages and notebooks."""
    return tuple(
        Card(
            path=hit.path,
            content_id=hit.content_id,
            source=hit.source,
            width=hit.width,
            height=hit.height,
            others=hit.other_locations,
            rank=rank,
            score=hit.score,
            relevance=hit.relevance,
            taken=hit.facts.day,
            about=hit.facts.about,
        )
        for rank, hit in enumerate(hits, 1)
    )


@dataclass(frozen=True)
class FoundItem:
    """An item that becomes a hit.

    Attributes:
        item: As its index tells it apart.
        score: As of `Hit`.
        relevance: As of `Hit`.
        alike: How many lower items are folded into it.
        region: As of `Hit`.
    """

    item: Any
    score: float | None = None
    relevance: float | None = None
    alike: int = 0
    region: View | None = None


def read_hits(
    index: VectorIndex,
    query: Query,
    found: Sequence[FoundItem],
    path_of: Callable[[Location], Place],
) -> tuple[Hit, ...]:
    """Return a hit for each item.

    Args:
        index: What was searched.
        query: What was asked; the first file that passes its filters is the one shown.
        found: The items.
        path_of: Gives the absolute path of a file.
    """
    items = as_items([each.item for each in found])
    passes = file_test(query, knows_facts=index.knows_facts)
    hits = []
    for each, item, facts in zip(found, index.records(items), index.item_facts(items), strict=True):
        location = item.first(passes)
        hits.append(
            Hit(
                content_id=item.content_id,
                path=path_of(location),
                location=location,
                score=each.score,
                relevance=each.relevance,
                locations=item.locations,
                width=item.width,
                height=item.height,
                companions=item.companions,
                alike=each.alike,
                region=each.region,
                facts=facts,
            )
        )
    return tuple(hits)


@dataclass(frozen=True)
class Answer:
    """The hits of one query and where they came from.

    Attributes:
        query: What was asked.
        hits: Best first, or in the order that the query asks for.
        model: Of the build.
        build: Name of the build.
        timings_ms: Milliseconds of each step.
        plan: How the hits were found.
        hints: Lines on words that the model does not know.
        offset: How many better hits were left out.
        understood: Words of the query that were read as facts, and not looked for.
        notes: What should be known of the answer, such as which of several places was meant.
        filtered_out: Whether no picture at all passes the filters.
    """

    query: Query
    hits: tuple[Hit, ...]
    model: str
    build: str
    timings_ms: dict[str, float] = field(compare=False)
    plan: str = field(default="", compare=False)
    hints: tuple[str, ...] = ()
    offset: int = field(default=0, compare=False)
    understood: tuple[Understood, ...] = ()
    notes: tuple[str, ...] = ()

    filtered_out: bool = False

    def _repr_html_(self) -> str:
        """Return what a notebook shows: the question, the verdict, and the pictures."""
        return cards_html(hit_cards(self.hits), f"{self.query}: {self.verdict}")

    @property
    def likely(self) -> int:
        """How many of the hits are likely; in the order of relevance these are the first ones."""
        return sum(hit.likely for hit in self.hits)

    @property
    def verdict(self) -> str:
        """How far the hits can be trusted, in a sentence without a full stop."""
        if self.filtered_out:
            return "no picture passes the filters"
        if not self.hits:
            return "there are no more hits" if self.offset else "nothing here looks like that"
        if all(hit.relevance is None for hit in self.hits):
            return "a list of what passes the filters"
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
        "understood": [asdict(each) for each in answer.understood],
        "notes": [*answer.notes],
        "model": answer.model,
        "build": answer.build,
        "likely": answer.likely,
        "hits": [hit_json(hit) for hit in answer.hits],
        "hints": list(answer.hints),
        "timings_ms": answer.timings_ms,
    }


def hit_json(hit: Hit) -> dict[str, Any]:
    """Return the JSON object of one hit; its path is text of `paths.to_text`."""
    return {
        "content_id": hit.content_id,
        "path": to_text(str(hit.path)),
        "source": hit.source,
        "score": rounded(hit.score),
        "relevance": rounded(hit.relevance),
        "likely": hit.likely,
        "width": hit.width,
        "height": hit.height,
        "alike": hit.alike,
        "region": hit.region and asdict(hit.region),
        "facts": hit.facts.as_json(),
        "locations": [{"source": place.source, "path": place.path} for place in hit.locations],
        "companions": [
            {
                "kind": each.kind.value,
                "source": each.file.location.source,
                "path": each.file.location.path,
            }
            for each in hit.companions
        ],
    }


def rounded(value: float | None) -> float | None:
    """Return a score or relevance as it is written: with six decimals."""
    return None if value is None else round(value, 6)
