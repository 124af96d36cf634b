"""The pictures that a recommender chooses from, by number: all of an index, or some of an engine's.

An engine may keep a billion, and not every machine has the tables that they were published from.
There a recommender looks at a sample, and at what is near the pictures that were judged: a model
scores as likes what is near likes.
"""

from collections.abc import Collection
from typing import Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.errors import NotOnEngineError
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.index.knn import top
from retrieval_pipeline.index.records import ItemRecord
from retrieval_pipeline.search.filters import passing
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.search.vector_index import Items, Selection, VectorIndex, as_items
from retrieval_pipeline.vectors import Flags, Numbers, Vectors

# Neighbours of a judged image among which the next one is looked for: more than people judge near
# one image before they go on.
NEIGHBOURS = 300
# Of an engine's pictures, so many are taken from the tables: 1.5 GB of vectors at 768 dimensions,
# in a temporary file.
PICTURES = 1_000_000
# Without the tables, so many neighbours of a judged picture are taken in, for so many of the last
# votes: 15 MB of vectors at 768 dimensions with the sample.
TAKEN_IN, JUDGED = 100, 50


class Pictures(Protocol):
    """Pictures by number, from 0."""

    @property
    def allowed(self) -> Flags:
        """Which of them may be shown, bool (n,); do not change it."""

    def vectors(self, numbers: Numbers) -> Vectors:
        """Return the vectors of these pictures, float32 (n, dim)."""

    def neighbours(self, vector: Vectors) -> Numbers:
        """Return the NEIGHBOURS pictures nearest to a unit vector, nearest first."""

    def find(self, content_ids: Collection[str]) -> dict[str, int]:
        """Return the numbers of those of these pictures that are in the index."""

    def look_near(self, numbers: Numbers) -> None:
        """Take in what is near these judged pictures; others keep their numbers."""

    def records(self, numbers: Numbers) -> list[ItemRecord]:
        """Return what is told of these pictures."""


class AllPictures:
    """All pictures of a corpus."""

    def __init__(self, corpus: Corpus, allowed: Flags | None) -> None:
        self._corpus = corpus
        self.allowed: Flags = np.ones(len(corpus), np.bool_) if allowed is None else allowed

    def vectors(self, numbers: Numbers) -> Vectors:
        """Return their vectors."""
        return self._corpus.vectors(numbers)

    def neighbours(self, vector: Vectors) -> Numbers:
        """Return the nearest ones, as the index finds them."""
        return self._corpus.best(vector, NEIGHBOURS)[0]

    def find(self, content_ids: Collection[str]) -> dict[str, int]:
        """Return the numbers of those that are in the corpus."""
        if not content_ids:
            return {}
        known = self._corpus.items["content_id"]
        numbers = np.flatnonzero(pc.is_in(known, pa.array(content_ids, pa.string())))
        found = known.take(pa.array(numbers)).to_pylist()
        return dict(zip(found, numbers.tolist(), strict=True))

    def look_near(self, numbers: Numbers) -> None:
        """Do nothing: all are there."""

    def records(self, numbers: Numbers) -> list[ItemRecord]:
        """Return what is told of them."""
        return self._corpus.records(numbers)


class SomePictures:
    """Pictures of an index that does not give all: its sample, and what is near judged ones."""

    def __init__(self, index: VectorIndex, selection: Selection | None) -> None:
        """Choose from a selection; None for all."""
        self._index = index
        self._selection = selection
        self._items: Items = as_items([])
        self._vectors: Vectors = np.empty((0, index.info.dim), np.float32)
        self._numbers: dict[str, int] = {}
        self._near: set[int] = set()
        self.allowed: Flags = np.empty(0, np.bool_)
        self._take_in(index.sample_items(selection), allowed=True)

    def vectors(self, numbers: Numbers) -> Vectors:
        """Return their vectors."""
        rows: Vectors = self._vectors[numbers]
        return rows

    def neighbours(self, vector: Vectors) -> Numbers:
        """Return the nearest ones of those that were taken in."""
        return top(self._vectors @ vector, NEIGHBOURS)[0]

    def find(self, content_ids: Collection[str]) -> dict[str, int]:
        """Return the numbers of those that are in the index, and take them in."""
        new = [each for each in content_ids if each not in self._numbers]
        if new:
            # Whoever judged a picture has seen it; it may lie outside of the selection.
            self._take_in(self._index.find(new), allowed=self._selection is None)
        return {each: self._numbers[each] for each in content_ids if each in self._numbers}

    def look_near(self, numbers: Numbers) -> None:
        """Take in the neighbours of the last ones of these."""
        for number in numbers[-JUDGED:].tolist():
            if number not in self._near:
                self._near.add(number)
                near = self._index.nearest(self._vectors[number], TAKEN_IN, self._selection)
                self._take_in(near, allowed=True)

    def records(self, numbers: Numbers) -> list[ItemRecord]:
        """Return what is told of them."""
        return self._index.records(self._items[numbers])

    def _take_in(self, items: Items, *, allowed: bool) -> None:
        ids = [record.content_id for record in self._index.records(items)]
        new = [place for place, each in enumerate(ids) if each not in self._numbers]
        if not new:
            return
        first = len(self._vectors)
        self._numbers.update({ids[place]: first + n for n, place in enumerate(new)})
        added = items[new]
        self._items = np.concatenate([self._items, added]) if first else added
        self._vectors = np.concatenate([self._vectors, self._index.vectors(added)])
        self.allowed = np.concatenate([self.allowed, np.full(len(new), allowed)])


def pictures_of(searcher: Searcher, query: Query, judged: Collection[str]) -> tuple[Pictures, str]:
    """Return the pictures of an index that a recommender chooses from, and what is to be known.

    They are all pictures of the embedded index, and of an engine's as many as PICTURES, from the
    tables. A machine without the tables looks at a sample that the engine gives.

    Args:
        searcher: Has the index.
        query: Its filters by source say which of them may be shown.
        judged: Content ids of pictures that must be among them.

    Returns:
        The pictures, and a line that says so if they are not all; "" if they are.

    Raises:
        BuildError: What is told of the items is damaged.
        QueryError: A source is not in the index.
        StoreError: The vectors cannot be read.
    """
    try:
        every = searcher.corpus
    except NotOnEngineError:
        some = SomePictures(searcher.index, searcher.allowed(query))
        return some, (
            f"the tables are not here: of {len(searcher.index):,} pictures, a sample and the "
            "neighbours of judged ones are looked at"
        )
    corpus = every.sampled(PICTURES, judged)
    note = f"a sample of {len(corpus):,} of {len(every):,} pictures is looked at"
    return AllPictures(corpus, passing(corpus, query)), note if len(corpus) < len(every) else ""
