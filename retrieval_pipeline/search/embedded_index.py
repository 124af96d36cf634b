"""All items by number, asked as `vector_index.VectorIndex` says: a build, or what was published."""

import functools
from collections.abc import Collection, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.facts.query_words import Vocabulary
from retrieval_pipeline.index.build import Build, open_current
from retrieval_pipeline.index.corpus import Corpus, IndexInfo
from retrieval_pipeline.index.item_facts import ItemFacts
from retrieval_pipeline.index.knn import top
from retrieval_pipeline.index.records import ItemRecord
from retrieval_pipeline.search.facets import FacetCounter, Facets
from retrieval_pipeline.search.fact_filters import fact_notes
from retrieval_pipeline.search.file_names import FileNames
from retrieval_pipeline.search.filters import both, passing
from retrieval_pipeline.search.query import Query, Sort
from retrieval_pipeline.search.query_vectors import QueryVectors
from retrieval_pipeline.search.ranking import rank_items
from retrieval_pipeline.search.sorting import in_order, times_of
from retrieval_pipeline.search.understanding import vocabulary_of
from retrieval_pipeline.search.vector_index import Ranking
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Flags, Numbers, Vectors
from retrieval_pipeline.views import View

# Former builds whose differences to this one are remembered: a megabyte each for a million items.
COMPARED = 8
# A selection of so many items is sorted by itself; else the order of all items is made, and kept.
SORTED_ALONE = 20_000


class EmbeddedIndex:
    """A corpus as an index: items are numbers, int64, and selections are masks, bool (items,)."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus
        self._lacking_in = functools.lru_cache(COMPARED)(self._compare)
        # All items in an order, 8 MB for a million: of the last two that were asked for.
        self._sorted = functools.lru_cache(2)(
            functools.partial(in_order, corpus, np.arange(len(corpus)))
        )

    @classmethod
    def open_current(cls, settings: Settings) -> "EmbeddedIndex":
        """Open the build that CURRENT names.

        Raises:
            BuildError: Nothing is indexed yet, or the build is damaged.
            StoreError: CURRENT is damaged.
        """
        return cls(open_current(Store(settings.home)))

    @property
    def name(self) -> str:
        """Of the build, or of the publication."""
        return self._corpus.name

    @property
    def info(self) -> IndexInfo:
        """What it was made of."""
        return self._corpus.info

    def __len__(self) -> int:
        """Return the number of items."""
        return len(self._corpus)

    def is_current(self, settings: Settings) -> bool:
        """Tell whether CURRENT names this build, or none; raises StoreError if it is damaged."""
        current = Store(settings.home).current_build()
        return current is None or current.name == self.name

    def check_unchanged(self) -> None:
        """Do nothing: nobody changes a corpus."""

    def corpus(self, settings: Settings) -> Corpus:
        """Return the items that it searches."""
        return self._corpus

    def warm_up(self) -> None:
        """Read the codes, if plans use them; raises BuildError if they cannot be read."""
        self._corpus.load_codes()

    @property
    def vocabulary(self) -> Vectors | None:
        """The vectors of the words of the vocabulary."""
        return self._corpus.vocabulary

    @property
    def sample(self) -> Vectors:
        """The vectors of items that are evenly spaced."""
        return self._corpus.sample

    def sample_passing(self, selection: Flags) -> Flags:
        """Return which items of the sample are in a selection."""
        flags: Flags = selection[self._corpus.sample_numbers]
        return flags

    def sample_items(self, selection: Flags | None) -> Numbers:
        """Return the items of the sample that are in a selection."""
        numbers = self._corpus.sample_numbers
        return numbers if selection is None else numbers[selection[numbers]]

    @property
    def knows_facts(self) -> bool:
        """Whether the build has facts."""
        return self._corpus.facts is not None

    @functools.cached_property
    def fact_words(self) -> Vocabulary:
        """The cameras, places and years of the build."""
        return vocabulary_of(self._corpus)

    @functools.cached_property
    def file_names(self) -> FileNames:
        """The names of files and folders."""
        return FileNames(self._corpus)

    @functools.cached_property
    def _facets(self) -> FacetCounter:
        return FacetCounter(self._corpus)

    def facets(self, selection: Flags | None, folder: str = "") -> Facets:
        """Count the items of a selection."""
        return self._facets.count(selection, folder)

    def added_since(self, settings: Settings, build: str) -> Flags | None:
        """Return which items another build had not; None if it is gone; raises BuildError."""
        builds = Store(settings.home).all_builds()
        path = next((path for path in builds if path.name == build), None)
        return None if path is None else self._lacking_in(path)

    def _compare(self, former: Path) -> Flags:
        known = Build.open(former).items["content_id"]
        flags: Flags = np.asarray(pc.is_in(self._corpus.items["content_id"], known))
        return ~flags

    def notes(self, query: Query) -> tuple[str, ...]:
        """Say what should be known of an answer whose query filters by facts."""
        facts = self._corpus.facts
        has_countries = facts is None or facts["country"].null_count < len(facts)
        return fact_notes(query, knows_facts=facts is not None, knows_countries=has_countries)

    def passing(self, query: Query) -> Flags | None:
        """Return which items pass the filters but albums and labels; raises QueryError."""
        return passing(self._corpus, query)

    def having(self, content_ids: Collection[str]) -> Flags:
        """Return which items have one of these content ids."""
        wanted = pa.array(content_ids, pa.string())
        flags: Flags = pc.is_in(self._corpus.items["content_id"], value_set=wanted).to_numpy()
        return flags

    def lacking(self, content_ids: Collection[str]) -> Flags:
        """Return which items have none of these content ids."""
        return ~self.having(content_ids)

    def both(self, one: Flags | None, other: Flags | None) -> Flags | None:
        """Return which items are in both selections."""
        return both(one, other)

    def count(self, selection: Flags | None) -> int:
        """Return how many items are in a selection."""
        return len(self) if selection is None else int(selection.sum())

    def find(self, content_ids: Collection[str]) -> Numbers:
        """Return the items with these content ids."""
        if len(content_ids) > 1:
            return np.flatnonzero(self.having(content_ids))
        numbers = [self._corpus.number_of(content_id) for content_id in content_ids]
        return np.array([number for number in numbers if number is not None], np.int64)

    def rank(
        self,
        queries: Sequence[Query],
        query_vectors: Sequence[QueryVectors],
        selections: Sequence[Flags | None],
        count: int,
    ) -> list[Ranking]:
        """Return the `count` best items of each query."""
        return rank_items(self._corpus, queries, query_vectors, selections, count)

    def nearest(self, vector: Vectors, count: int, selection: Flags | None) -> Numbers:
        """Return the nearest items of a selection; without one, by the plans of the build."""
        if selection is None:
            return self._corpus.best(vector, count)[0]
        rows = self._corpus.rows.of(selection)
        scores = self._corpus.vector_index.scores_of(vector[None], rows)
        return np.flatnonzero(selection)[
            top(self._corpus.rows.largest(scores, rows)[:, 0], count)[0]
        ]

    def listing(
        self, selection: Flags | None, sort: Sort, offset: int = 0, count: int | None = None
    ) -> Numbers:
        """Return items of a selection by date or name; without a count all after `offset`."""
        if selection is not None and self.count(selection) <= SORTED_ALONE:
            passed = np.flatnonzero(selection)
            listed = passed[in_order(self._corpus, passed, sort)]
        else:
            order = self._sorted(sort)
            listed = order if selection is None else order[selection[order]]
        return listed[offset:] if count is None else listed[offset : offset + count]

    def in_order(self, items: Numbers, sort: Sort) -> Numbers:
        """Return the order of these items: positions in `items`."""
        return in_order(self._corpus, items, sort)

    def times(self, items: Numbers) -> Numbers:
        """Return when items were taken, in microseconds, or UNKNOWN_TIME."""
        known: Numbers = times_of(self._corpus)[items]
        return known

    def sizes(self, items: Numbers) -> tuple[Numbers, Numbers]:
        """Return width and height of the upright pictures."""
        table = self._corpus.items
        return table["width"].to_numpy()[items], table["height"].to_numpy()[items]

    def vectors(self, rows: Numbers) -> Vectors:
        """Return the full vectors of items, or of rows."""
        return self._corpus.vectors(rows)

    def records(self, items: Sequence[int] | Numbers) -> list[ItemRecord]:
        """Return what is told of items."""
        return self._corpus.records(items)

    def item_facts(self, items: Sequence[int] | Numbers) -> list[ItemFacts]:
        """Return when, where and with what items were taken."""
        return self._corpus.item_facts(items)

    def view_of(self, row: int) -> View | None:
        """Return the view that a row is the vector of; None for an item's own vector."""
        return self._corpus.view_of(row)
