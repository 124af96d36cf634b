"""All items of an index by number: what is told of them, and their vectors.

Two makers: `build.Build` has them in the files of the embedded index, `milvus.published` in the
tables that a publication to an engine was made from.
"""

import functools
import re
from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrieval_pipeline.index.blocks import ItemTables
from retrieval_pipeline.index.item_facts import ItemFacts, read_item_facts
from retrieval_pipeline.index.knn import Plan, evenly_spaced
from retrieval_pipeline.index.records import ItemRecord, read_records
from retrieval_pipeline.index.row_keys import keys_of
from retrieval_pipeline.index.score_statistics import SAMPLE_PICTURES, Background
from retrieval_pipeline.index.segmented_index import SegmentedIndex
from retrieval_pipeline.index.views import rows_of_views
from retrieval_pipeline.storage.schemas import VIEW_COLUMNS
from retrieval_pipeline.vectors import Numbers, Vectors, VectorSpace
from retrieval_pipeline.views import View

# Nodes of Annoy's trees that are looked at for each neighbour that is to be proposed: items that
# look the same share leaves in most trees, so that few find them.
NODES_FOR_EACH = 20


class IndexInfo(Protocol):
    """What an index was made of; the fields of build.json of the same names."""

    @property
    def inputs(self) -> str:
        """Hash of the items and of every setting that the index was made with."""

    @property
    def model(self) -> str:
        """Name of the encoder."""

    @property
    def dim(self) -> int:
        """Length of its vectors."""

    @property
    def space(self) -> VectorSpace:
        """The vector space; queries must be encoded in the same one."""

    @property
    def views(self) -> int:
        """How many further views the items have."""

    @property
    def sources(self) -> Mapping[str, int]:
        """How many files each source has."""

    @property
    def background(self) -> Background:
        """How unrelated texts and pictures score."""

    @property
    def vocabulary(self) -> str | None:
        """Hash of the words whose vectors the index has; None if it has none."""


class Corpus(ABC):
    """All items of an index; nobody changes or removes them.

    Items are numbered from 0, in the order of the source and path of their first file. Each has a
    vector of its own, and may have others of further views: `rows` tells which rows of vectors are
    whose.

    Attributes:
        name: Of the build, or of the publication.
        info: What the index was made of.
        items: What is told of each item, with the columns of `items.ITEM_COLUMNS`.
        rows: Which item each row of vectors belongs to.
        views: Of which view each row after those of the items is the vector, with the columns of
            `views.VIEW_ROW_COLUMNS`.
        companions: The files that belong to items without being such, with the columns of
            `companions.COMPANION_COLUMNS`.
    """

    def __init__(self, name: str, info: IndexInfo, tables: ItemTables) -> None:
        self.name = name
        self.info = info
        self.items = tables.items
        self.views = tables.views
        self.rows = rows_of_views(len(tables.items), tables.views)
        self.companions = tables.companions
        self._facts = tables.facts

    @abstractmethod
    def _open_vectors(self) -> SegmentedIndex:
        """Return what `vector_index` is."""

    @abstractmethod
    def _read_vocabulary(self) -> Vectors | None:
        """Return what `vocabulary` is."""

    @functools.cached_property
    def vector_index(self) -> SegmentedIndex:
        """The vectors of all rows.

        Raises:
            BuildError: Vectors are missing.
            StoreError: They cannot be read.
        """
        return self._open_vectors()

    @functools.cached_property
    def vocabulary(self) -> Vectors | None:
        """The vectors of `vocabulary.words()`, float32 (n, dim); None if there are none."""
        return self._read_vocabulary()

    def load_codes(self) -> None:
        """Read the codes if plans use them; this pays off for many queries only.

        Raises:
            BuildError: The codes cannot be read.
        """
        self.vector_index.load_codes()

    @property
    def plan(self) -> Plan:
        """The plan of the largest segment; without loaded codes, a scan instead of codes."""
        return max(self.vector_index.parts, key=lambda part: len(part.index)).usable_plan

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self.items)

    @functools.cached_property
    def facts(self) -> pa.Table | None:
        """The facts of the items, a row for each, with the columns of `facts_table.FACTS_COLUMNS`.

        None if facts had not been read when the index was made.
        """
        # Blocks have dictionaries of their own; comparing their numbers needs common ones.
        return None if self._facts is None else self._facts.unify_dictionaries()

    def number_of(self, content_id: str) -> int | None:
        """Return the number of the item with this content id; None if there is none."""
        if not re.fullmatch("[0-9a-f]{32}", content_id):
            return None
        keys, order = self._sorted_keys
        key = np.uint64(int(content_id[:16], 16))
        first, last = (int(np.searchsorted(keys, key, side)) for side in ("left", "right"))
        for number in order[first:last].tolist():
            if self.items["content_id"][number].as_py() == content_id:
                return int(number)
        return None

    @functools.cached_property
    def _sorted_keys(self) -> tuple[npt.NDArray[np.uint64], Numbers]:
        """The first 8 bytes of the content ids, sorted, and the item number of each."""
        keys = np.ascontiguousarray(keys_of(self.items["content_id"])[:, :8]).view(">u8")[:, 0]
        order = np.argsort(keys)
        return keys[order].astype(np.uint64), order

    def records(self, numbers: Sequence[int] | Numbers) -> list[ItemRecord]:
        """Return what is told of these items, in this order."""
        return read_records(self.items, numbers, self.companions)

    def item_facts(self, numbers: Sequence[int] | Numbers) -> list[ItemFacts]:
        """Return when, where and with what these items were taken, in this order."""
        return read_item_facts(self.facts, numbers)

    def view_of(self, row: int) -> View | None:
        """Return the view that a row is the vector of; None for an item's own vector."""
        if row < len(self):
            return None
        values = self.views.slice(row - len(self), 1).to_pylist()[0]
        return View(*(values[name] for name in VIEW_COLUMNS))

    def vectors(self, numbers: Numbers) -> Vectors:
        """Return the full vectors of these items, or of these `rows`: float32 (n, dim)."""
        return self.vector_index.vectors(numbers)

    @functools.cached_property
    def sample_numbers(self) -> Numbers:
        """Numbers of items, evenly spaced, whose scores stand for the scores of all."""
        return evenly_spaced(len(self), SAMPLE_PICTURES)

    @functools.cached_property
    def sample(self) -> Vectors:
        """The vectors of `sample_numbers`, float32 (n, dim), n at most SAMPLE_PICTURES."""
        return self.vectors(self.sample_numbers)

    def sampled(self, most: int, also: Collection[str] = ()) -> "Corpus":
        """Return a corpus of which all vectors can be read, however many items there are.

        It is this one, or where vectors must be copied first, one of `most` evenly spaced items
        without their further views.

        Args:
            most: How many items it may have.
            also: Content ids of further items that it must have if this one has them.
        """
        return self

    def scan(self, vectors: Vectors) -> Vectors:
        """Return the exact score of every item's own vector.

        The result is (items,) for (dim,), and (items, n) for (n, dim).
        """
        return self.vector_index.scan(vectors)[: len(self)]

    def best(self, vector: Vectors, count: int) -> tuple[Numbers, Vectors]:
        """Return the `count` best items for `vector` (dim,) and their scores, by the index's plans.

        An item's score is that of its best row. Of equal scores the smaller row comes first.
        """
        wanted = count
        while True:
            rows, scores = self.vector_index.best(vector, wanted)
            if not self.info.views:
                return rows, scores
            numbers = self.rows.items_of(rows)
            first = np.sort(np.unique(numbers, return_index=True)[1])
            if len(first) >= count or len(rows) < wanted:
                return numbers[first[:count]], scores[first[:count]]
            # Several rows of one item were found: look further down.
            wanted *= 2

    def best_rows(self, numbers: Numbers, vector: Vectors) -> Numbers:
        """Return for each of these items its row that is nearest to `vector`, float32 (dim,)."""
        further, places = self.rows.further_rows(numbers)
        if not len(further):
            return numbers
        scores = self.vectors(further) @ vector
        order = np.lexsort((further, -scores, places))
        found, first = np.unique(places[order], return_index=True)
        best = order[first]
        nearer = scores[best] > self.vectors(numbers[found]) @ vector
        rows = numbers.copy()
        rows[found[nearer]] = further[best[nearer]]
        return rows

    def proposed(self, vectors: Vectors, count: int) -> list[Numbers]:
        """Return for each vector, (n, dim), about `count` items that may be nearest, ascending.

        They are found fast, and some may be missing. A part of a picture is no item.
        """
        plan = Plan(kind="trees", candidates=count, search_k=NODES_FOR_EACH * count)
        found = self.vector_index.candidates(vectors, plan)
        return [rows[rows < len(self)] for rows in found]
