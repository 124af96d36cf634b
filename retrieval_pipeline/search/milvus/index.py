"""The index in Milvus, asked as `vector_index.VectorIndex` says; no file of it is needed here.

With the engine's index type FLAT, the answers are those of the embedded index on the same pictures.
Approximate types may miss items; what they find is in the same order.
"""

import functools
import threading
import weakref
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import EngineError
from retrieval_pipeline.facts.query_words import Vocabulary
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.index.item_facts import ItemFacts
from retrieval_pipeline.index.milvus.client import Client, connect, served
from retrieval_pipeline.index.milvus.published import PublishedCorpus, is_from_here
from retrieval_pipeline.index.milvus.schema import about_name, moment_of
from retrieval_pipeline.index.records import ItemRecord
from retrieval_pipeline.search.facets import Facets
from retrieval_pipeline.search.fact_filters import fact_notes
from retrieval_pipeline.search.milvus.expressions import (
    EVERYTHING,
    NOTHING,
    Check,
    Passing,
    every,
    expressions_of,
    filters_of,
    one_of,
    some,
)
from retrieval_pipeline.search.milvus.facets import FIELDS, KINDS, ValueCounter
from retrieval_pipeline.search.milvus.listing import Lists
from retrieval_pipeline.search.milvus.names import NamesByExpression
from retrieval_pipeline.search.milvus.ranking import ranking_of
from retrieval_pipeline.search.milvus.reader import MOST_LOOKED_AT, OWN, Reader
from retrieval_pipeline.search.milvus.rows import Row, matrix
from retrieval_pipeline.search.milvus.told import Told
from retrieval_pipeline.search.query import Query, Sort
from retrieval_pipeline.search.query_vectors import QueryVectors
from retrieval_pipeline.search.vector_index import (
    Items,
    Ranking,
    as_items,
    indexed_item,
    unknown_source,
)
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Flags, Numbers, Vectors
from retrieval_pipeline.views import View

# Content ids in an expression, which is parsed for each question: 4 MB of text.
MOST_LISTED = 100_000


class MilvusIndex:
    """A published collection as an index: items are `Row` objects, selections are `Passing`."""

    def __init__(self, client: Client, collection: str) -> None:
        """Answer from a collection.

        Raises:
            EngineError: The engine cannot be asked, or holds what this program cannot read.
        """
        for name in (collection, about_name(collection)):
            # Milvus Lite has nothing in memory when it is opened.
            if client.get_load_state(name)["state"] != "Loaded":
                client.load_collection(name)
        self._client = client
        self._collection = collection
        self._told = Told(client, collection)
        self.info = self._told.read_info()
        self._reader = Reader(client, collection, self.info)
        self._lock = threading.Lock()
        self._corpus: Corpus | None = None

    @classmethod
    def open(cls, settings: Settings, collection: str | None = None) -> "MilvusIndex":
        """Open a collection; by default the one that the alias of the settings names.

        Raises:
            EngineError: The engine cannot be reached, or nothing was published yet.
        """
        client = connect(settings)
        try:
            index = cls(client, collection or served(client, settings))
        except EngineError:
            client.close()
            raise
        # Its corpus may outlive the index, and asks the reader.
        weakref.finalize(index._reader, client.close)
        return index

    @property
    def name(self) -> str:
        """Of the publication."""
        return self.info.build

    def __len__(self) -> int:
        """Return the number of items."""
        return self.info.items

    def is_current(self, settings: Settings) -> bool:
        """Tell whether the alias still names this publication; raises EngineError."""
        # Each collection of the pair is filled anew in turn.
        return served(self._client, settings) == self._collection and self._told.is_still_of(
            self.info.build
        )

    def check_unchanged(self) -> None:
        """Check that the collection was not filled anew; raises EngineError."""
        if not self._told.is_still_of(self.info.build):
            raise EngineError(
                f"{self._client.where}: {self._collection} was published anew since it was opened: "
                "open the index again (Python: `searcher.latest()` before each question)"
            )

    def warm_up(self) -> None:
        """Read what relevance is judged by; raises EngineError."""
        _ = self.vocabulary, self.sample

    def corpus(self, settings: Settings) -> Corpus | None:
        """Return all items, from the tables of the home that published them; None elsewhere."""
        store, told = Store(settings.home), self._told
        # One for all threads, since its vectors are copied.
        with self._lock:
            if self._corpus is None:
                if not is_from_here(store, self._collection, self.info):
                    self.check_unchanged()
                    return None
                self._corpus = PublishedCorpus(
                    store,
                    self._collection,
                    self.info,
                    settings.index.vectors,
                    lambda: told.vocabulary,
                    self._reader.nearest_ids,
                )
            return self._corpus

    # What queries are understood and judged by

    @property
    def vocabulary(self) -> Vectors | None:
        """The vectors of the words of the vocabulary."""
        return self._told.vocabulary

    @property
    def sample(self) -> Vectors:
        """The vectors of items that are evenly spaced."""
        return self._told.sample

    def sample_passing(self, selection: Passing) -> Flags:
        """Return which items of the sample are in a selection."""
        ids = self._told.sample_ids
        passing = self._reader.passing(selection, ids)
        return np.array([each in passing for each in ids], np.bool_)

    def sample_items(self, selection: Passing | None) -> Items:
        """Return the items of the sample that are in a selection."""
        sample = frozenset([one_of("id", self._told.sample_ids)])
        rows = self._reader.own_rows(sample | (selection or frozenset()))
        return as_items(sorted(rows, key=lambda row: row.place))

    @functools.cached_property
    def file_names(self) -> NamesByExpression:
        """The names of first files, and of the folders that they lie in."""
        folders = self._told.names_of("folder")
        return NamesByExpression(self._names, folders, self._client.patterns)

    @property
    def knows_facts(self) -> bool:
        """Whether facts were read when the pictures were published."""
        return self.info.has_facts

    @property
    def fact_words(self) -> Vocabulary:
        """The cameras, places and years of the pictures."""
        return self._told.fact_words

    def notes(self, query: Query) -> tuple[str, ...]:
        """Say what should be known of an answer whose query filters by facts."""
        has_countries = not query.countries or bool(self._told.values("place"))
        return fact_notes(query, knows_facts=self.knows_facts, knows_countries=has_countries)

    # Which items

    def passing(self, query: Query) -> Passing | None:
        """Return which items pass the filters of a query but albums and labels.

        Raises:
            QueryError: As `VectorIndex.passing` says.
        """
        for source in query.sources:
            if source not in self.info.sources:
                raise unknown_source(source, self.info.sources)
        expressions, checks = filters_of(
            query,
            knows_facts=self.knows_facts,
            cameras=self._told.names_of("camera") if query.cameras else (),
            lenses=self._told.names_of("lens") if query.lenses else (),
            patterns=self._client.patterns,
        )
        selection: Passing = frozenset(expressions)
        for check in checks:
            selection |= {self._checked(check, selection)}
        return selection or None

    def _checked(self, check: Check, others: Passing) -> str | Check:
        """Return the expression of the items that pass a check, if they pass the others.

        It stays a check if too many candidates would have to be looked at for that.
        """
        if self._reader.count(others | {check.candidates}) > MOST_LOOKED_AT:
            return check
        rows = self._reader.rows(every([OWN, *expressions_of(others), check.candidates]))
        ids = [row.record.content_id for row in rows if check.test(row)]
        return some([check.exact, one_of("content_id", ids)])

    def having(self, content_ids: Collection[str]) -> Passing:
        """Return which items have one of these content ids."""
        if len(content_ids) <= MOST_LISTED:
            return frozenset([one_of("content_id", sorted(content_ids))])
        these = frozenset(content_ids)
        return frozenset([Check(NOTHING, EVERYTHING, lambda row: row.record.content_id in these)])

    def lacking(self, content_ids: Collection[str]) -> Passing:
        """Return which items have none of these content ids."""
        if not content_ids:
            return frozenset()
        if len(content_ids) <= MOST_LISTED:
            return frozenset([f"not ({one_of('content_id', sorted(content_ids))})"])
        these = frozenset(content_ids)
        return frozenset(
            [Check(NOTHING, EVERYTHING, lambda row: row.record.content_id not in these)]
        )

    def both(self, one: Passing | None, other: Passing | None) -> Passing | None:
        """Return which items are in both selections."""
        if one is None or other is None:
            return other if one is None else one
        return one | other

    def count(self, selection: Passing | None) -> int:
        """Return how many items are in a selection; if it has checks, how many may be."""
        return self._reader.count(selection or frozenset())

    def find(self, content_ids: Collection[str]) -> Items:
        """Return the items with these content ids."""
        return as_items(self._reader.find(content_ids))

    def added_since(self, settings: Settings, build: str) -> Passing | None:
        """Return which items a publication had not; None if that is no name of one."""
        moment = moment_of(build)
        return None if moment is None else frozenset([f"first_published > {moment}"])

    def facets(self, selection: Passing | None, folder: str = "") -> Facets:
        """Count the items of a selection, value by value: see `facets.ValueCounter`."""
        return self._facets.count(selection or frozenset(), folder)

    @functools.cached_property
    def _facets(self) -> ValueCounter:
        values = {kind: self._told.values(kind) for kind in KINDS}

        def read(selection: Passing) -> Iterator[dict[str, Any]]:
            return self._reader.entities(every([OWN, *expressions_of(selection)]), [*FIELDS])

        return ValueCounter(values, self._reader.count, read)

    # In which order

    def rank(
        self,
        queries: Sequence[Query],
        query_vectors: Sequence[QueryVectors],
        selections: Sequence[Passing | None],
        count: int,
    ) -> list[Ranking]:
        """Return the `count` best items of each query."""
        return [
            self._ranking(query, vectors, selection or frozenset(), count)
            for query, vectors, selection in zip(queries, query_vectors, selections, strict=True)
        ]

    def _ranking(
        self, query: Query, vectors: QueryVectors, selection: Passing, count: int
    ) -> Ranking:
        own = set(query.like)
        for content_id in own:
            indexed_item(self, content_id)
        among = selection | (self.lacking(own) if own else frozenset())
        # Milvus Lite reads the rows that it counts: few are better than many.
        items = self.count(selection) - (self.count(selection | self.having(own)) if own else 0)
        return ranking_of(self._reader, vectors, among, items, count)

    def nearest(self, vector: Vectors, count: int, selection: Passing | None) -> Items:
        """Return the nearest items of a selection, as the engine finds them."""
        among, asked = (selection or frozenset()) | {OWN}, count
        while True:
            found = self._reader.nearest(vector, among, asked)
            if len(found.rows) >= count or found.read < asked:
                return as_items(found.rows[:count])
            asked *= 2

    @functools.cached_property
    def _lists(self) -> Lists:
        years = [*map(int, self._told.names_of("year"))]
        return Lists(self._reader, years, self._told.sample_ids)

    def listing(
        self, selection: Passing | None, sort: Sort, offset: int = 0, count: int | None = None
    ) -> Items:
        """Return items of a selection by date or name; raises QueryError, see `Lists.listing`."""
        return self._lists.listing(selection or frozenset(), sort, offset, count)

    def in_order(self, items: Items, sort: Sort) -> Numbers:
        """Return the order of these items: positions in `items`."""
        return self._lists.in_order(items.tolist(), sort)

    # What is told of items

    def times(self, items: Items) -> Numbers:
        """Return when items were taken, in microseconds, or UNKNOWN_TIME."""
        times = [row.time(knows_facts=self.knows_facts) for row in items.tolist()]
        return np.array(times, np.int64)

    def sizes(self, items: Items) -> tuple[Numbers, Numbers]:
        """Return width and height of the upright pictures."""
        records = self.records(items)
        widths, heights = (
            [getattr(each, name) for each in records] for name in ("width", "height")
        )
        return np.array(widths, np.int64), np.array(heights, np.int64)

    def vectors(self, rows: Items) -> Vectors:
        """Return the vectors of items, or of rows."""
        return matrix(rows.tolist(), self.info.dim)

    def records(self, items: Items) -> list[ItemRecord]:
        """Return what is told of items."""
        return [row.record for row in items.tolist()]

    def item_facts(self, items: Items) -> list[ItemFacts]:
        """Return when, where and with what items were taken."""
        return [row.facts for row in items.tolist()]

    def view_of(self, row: Row) -> View | None:
        """Return the view that a row is the vector of; None for an item's own vector."""
        return row.region

    def _names(self, expression: str, count: int) -> list[str]:
        rows = self._reader.first(every([OWN, expression]), ["name"], count)
        return sorted({row["name"] for row in rows})
