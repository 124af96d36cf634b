"""Rows of a collection as Python objects: an item, or a further view of one, with its vector."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from retrieval_pipeline.facts.groups import Kind
from retrieval_pipeline.index.item_facts import ItemFacts, facts_of_row
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.index.records import CompanionFile, IndexedFile, ItemRecord
from retrieval_pipeline.search.fact_filters import microseconds
from retrieval_pipeline.search.vector_index import UNKNOWN_TIME
from retrieval_pipeline.vectors import Vectors
from retrieval_pipeline.views import View

# What is read of a row, besides its vector.
COLUMNS = ["id", "content_id", "view", "width", "height", "shown"]


@dataclass(frozen=True)
class Row:
    """A row of a collection; two are equal if they are the same row.

    Attributes:
        id: Primary key.
        record: What is told of the item.
        facts: When, where and with what it was taken.
        number: 0 for the item's own vector, n for its n-th further view.
        region: The view that `vector` is of; None for the item's own.
        vector: float32 (dim,).
    """

    id: str
    record: ItemRecord = field(compare=False)
    facts: ItemFacts = field(compare=False)
    number: int = field(compare=False)
    region: View | None = field(compare=False)
    vector: Vectors = field(compare=False, repr=False)

    @classmethod
    def of(cls, entity: Mapping[str, Any]) -> Self:
        """Return the row of an entity that was read with COLUMNS and its vector."""
        shown = entity["shown"]
        view = shown.get("view")
        return cls(
            id=entity["id"],
            record=ItemRecord(
                content_id=entity["content_id"],
                files=tuple(_file(*each) for each in shown["locations"]),
                width=entity["width"],
                height=entity["height"],
                format=shown["format"],
                companions=tuple(
                    CompanionFile(Kind(kind), _file(*rest)) for kind, *rest in shown["companions"]
                ),
            ),
            facts=facts_of_row(shown["facts"]),
            number=entity["view"],
            region=None if view is None else View(*view),
            vector=np.asarray(entity["vector"], np.float32),
        )

    @property
    def place(self) -> tuple[str, str]:
        """Source and path of the first file: the items of an index are in this order."""
        first = self.record.files[0].location
        return first.source, first.path

    def time(self, *, knows_facts: bool) -> int:
        """Return when it was taken, in microseconds since 1970; UNKNOWN_TIME if that is unknown.

        Without facts that is the time of the newest file.
        """
        if not knows_facts:
            return max(file.mtime_ns for file in self.record.files) // 1_000
        if self.facts.taken_at is None:
            return UNKNOWN_TIME
        return microseconds(self.facts.taken_at)


def matrix(rows: Iterable[Row], dim: int) -> Vectors:
    """Return the vectors of rows, float32 (n, dim)."""
    return np.array([row.vector for row in rows], np.float32).reshape(-1, dim)


def _file(source: str, path: str, size: int, mtime_ns: int) -> IndexedFile:
    return IndexedFile(Location(source, path), size, mtime_ns)
