"""The index in Milvus, asked as `vector_index.VectorIndex` says; no file of it is needed here.

With the engine's index type FLAT, the answers are those of the embedded index on the same pictures.
Approximate types may miss items; what they find is in the same order.
"""

import functools
import re
import weakref
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np
from pydantic import ValidationError

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import EngineError, QueryError
from retrieval_pipeline.facts.places import are_available, country_name
from retrieval_pipeline.facts.query_words import Vocabulary
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.index.item_facts import ItemFacts
from retrieval_pipeline.index.milvus.client import Client, connect, served
from retrieval_pipeline.index.milvus.published import PublishedCorpus, is_from_here
from retrieval_pipeline.index.milvus.schema import (
    SCHEMA_VERSION,
    PublishedInfo,
    about_name,
    moment_of,
    search_params,
)
from retrieval_pipeline.index.records import ItemRecord
from retrieval_pipeline.search.facets import Facets
from retrieval_pipeline.search.fact_filters import fact_notes
from retrieval_pipeline.search.milvus.expressions import (
    Check,
    every,
    filters_of,
    one_of,
    some,
)
from retrieval_pipeline.search.milvus.facets import FIELDS, KINDS, ValueCounter
from retrieval_pipeline.search.milvus.names import NamesByExpression
from retrieval_pipeline.search.milvus.rows import COLUMNS, Row, matrix
from retrieval_pipeline.search.query import Query, Sort
from retrieval_pipeline.search.query_vectors import QueryVectors
from retrieval_pipeline.search.vector_index import (
    UNKNOWN_TIME,
    Items,
    Ranking,
    as_items,
    indexed_item,
    unknown_source,
)
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Flags, Numbers, Vectors
from retrieval_pipeline.views import View

# Milvus returns no more rows to one search (its quota `maxOutputSize` and limit of results).
MOST_ROWS = 16_384
# Rows that are read in one go: 3 MB of vectors at 768 dimensions.
BATCH = 1_000
# Vectors whose neighbours are looked for in one call: their ids are 1 MB.
SEARCHED_TOGETHER = 256
# Items that are sorted here, or whose files are looked at here, one by one: some seconds.
MOST_LOOKED_AT = 100_000
# Items that are sorted here rather than found by their dates.
SORTED_HERE = 2_000
# Items in a list that nobody asked to be of a certain length.
LISTED = 1_200
# Rows that are found beyond those asked for, so that equal scores at the end are seen.
MORE_ROWS = 32
# By how much the engine's float32 products may differ from those made here.
ROUNDING = 1e-5
# Expressions whose counts are remembered, some KB each: panels of filters ask for many.
COUNTED = 4_096

# Expressions that all have to be true of an item's rows.
Passing = frozenset[str]
# The engine's field of the row of an item's own vector.
_OWN = "view == 0"


class MilvusIndex:
    """A published collection as an index: items are `Row` objects, selections are `Passing`."""

    def __init__(self, client: Client, collection: str) -> None:
        """Answer from a collection.

        Raises:
            EngineError: The engine cannot be asked, or holds what this program cannot read.
        """
        self._client = client
        self._collection = collection
        self._about = about_name(collection)
        for name in (self._collection, self._about):
            # Milvus Lite has nothing in memory when it is opened.
            if client.get_load_state(name)["state"] != "Loaded":
                client.load_collection(name)
        self.info = self._read_info()
        self._count = functools.lru_cache(COUNTED)(self._ask_count)
        self.file_names = NamesByExpression(self._names)

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
        weakref.finalize(index, client.close)
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
        if served(self._client, settings) != self._collection:
            return False
        # Each collection of the pair is filled anew in turn.
        return self._read_info().build == self.info.build

    def warm_up(self) -> None:
        """Read what relevance is judged by; raises EngineError."""
        _ = self.vocabulary, self.sample

    def _read_info(self) -> PublishedInfo:
        rows = self._client.query(
            self._about, filter='id == "info"', output_fields=["data"], limit=1
        )
        try:
            info = PublishedInfo.model_validate(rows[0]["data"])
        except (IndexError, ValidationError):
            info = None
        if info is None or info.schema_version != SCHEMA_VERSION:
            raise EngineError(
                f"{self._client.where}: {self._collection} was published by another version of "
                "this program: run `retrieval index`"
            )
        return info

    def corpus(self, settings: Settings) -> Corpus | None:
        """Return all items, from the tables of the home that published them; None elsewhere."""
        store = Store(settings.home)
        if not is_from_here(store, self._collection, self.info):
            return None
        return PublishedCorpus(
            store,
            self._collection,
            self.info,
            settings.index.vectors,
            lambda: self.vocabulary,
            self._nearest_ids,
        )

    def _nearest_ids(self, vectors: Vectors, count: int) -> list[list[str]]:
        """Return for each vector, (n, dim), the content ids of the items nearest to it."""
        ids: list[list[str]] = []
        for start in range(0, len(vectors), SEARCHED_TOGETHER):
            found = self._client.search(
                self._collection,
                data=list(vectors[start : start + SEARCHED_TOGETHER]),
                limit=count,
                search_params=search_params(self.info.index_type, count),
            )
            # A row of a further view has a key with its number.
            ids += [[hit["id"] for hit in hits if "#" not in hit["id"]] for hits in found]
        return ids

    # What queries are understood and judged by

    @functools.cached_property
    def _told(self) -> dict[str, tuple[list[Any], Vectors]]:
        """Data and vectors of the rows about the whole, by the beginning of their ids."""
        rows = self._entities(self._about, 'id != "info"', ["id", "data", "vector"])
        found: dict[str, tuple[list[Any], list[Any]]] = {}
        for row in sorted(rows, key=lambda row: str(row["id"])):
            data, vectors = found.setdefault(row["id"].rpartition("/")[0], ([], []))
            data.append(row["data"])
            vectors.append(row["vector"])
        return {
            kind: (data, np.array(vectors, np.float32)) for kind, (data, vectors) in found.items()
        }

    @property
    def vocabulary(self) -> Vectors | None:
        """The vectors of the words of the vocabulary."""
        return self._told["word"][1] if "word" in self._told else None

    @property
    def sample(self) -> Vectors:
        """The vectors of items that are evenly spaced."""
        return self._told["sample"][1]

    def sample_passing(self, selection: Passing) -> Flags:
        """Return which items of the sample are in a selection."""
        ids = self._sample_ids
        expressions = sorted(selection)
        if self.count(selection) <= MOST_ROWS:
            # Cheaper than to have each of them compared with the sample there.
            rows = self._client.query(
                self._collection,
                filter=every([_OWN, *expressions]),
                output_fields=["id"],
                limit=MOST_ROWS,
            )
        else:
            among = every([*expressions, one_of("id", ids)])
            rows = list(self._entities(self._collection, among, ["id"]))
        passing = {row["id"] for row in rows}
        return np.array([each in passing for each in ids], np.bool_)

    @property
    def _sample_ids(self) -> list[str]:
        return [data["id"] for data in self._told["sample"][0]]

    def sample_items(self, selection: Passing | None) -> Items:
        """Return the items of the sample that are in a selection."""
        rows = self._rows(every([*sorted(selection or ()), one_of("id", self._sample_ids)]))
        return as_items(sorted(rows, key=lambda row: row.place))

    def _values(self, kind: str) -> list[list[Any]]:
        """Return the values of a kind, as `about.values_of` wrote them."""
        parts, _ = self._told.get(f"values/{kind}", ((), None))
        return [value for part in parts for value in part["values"]]

    def _names_of(self, kind: str) -> list[str]:
        return [str(name) for name, _ in self._values(kind)]

    @property
    def knows_facts(self) -> bool:
        """Whether facts were read when the pictures were published."""
        return self.info.has_facts

    @functools.cached_property
    def fact_words(self) -> Vocabulary:
        """The cameras, places and years of the pictures."""
        towns: dict[str, str] = {}
        countries: dict[str, str] = {}
        if are_available():
            # Of towns of one name, the one with the most pictures is meant: it comes last.
            places = sorted(self._values("place"), key=lambda value: int(value[2]))
            towns = {town: code for town, code, _ in places}
            countries = {country_name(code): code for code in towns.values()}
        years = frozenset(map(int, self._names_of("year")))
        return Vocabulary(tuple(self._names_of("camera")), towns, countries, years)

    def notes(self, query: Query) -> tuple[str, ...]:
        """Say what should be known of an answer whose query filters by facts."""
        has_countries = not query.countries or bool(self._values("place"))
        return fact_notes(query, knows_facts=self.knows_facts, knows_countries=has_countries)

    # Which items

    def passing(self, query: Query) -> Passing | None:
        """Return which items pass the filters of a query but albums and labels.

        Raises:
            QueryError: As `VectorIndex.passing` says, or a filter needs a look at more than
                MOST_LOOKED_AT items.
        """
        for source in query.sources:
            if source not in self.info.sources:
                raise unknown_source(source, self.info.sources)
        expressions, checks = filters_of(
            query,
            knows_facts=self.knows_facts,
            cameras=self._names_of("camera") if query.cameras else (),
            lenses=self._names_of("lens") if query.lenses else (),
            # Milvus Lite reads them, but not beside a condition on an array.
            escapes=not self._client.is_lite,
        )
        for check in checks:
            expressions.append(self._checked(check, expressions))
        return frozenset(expressions) or None

    def _checked(self, check: Check, expressions: Sequence[str]) -> str:
        """Return the expression of the items that pass a check, if they pass the others."""
        candidates = every([_OWN, *expressions, check.candidates])
        self._refuse_many(
            self._count(frozenset([*expressions, check.candidates])),
            "the path, the time of files or the distance must be looked at for each of {count} "
            "pictures: narrow the search by a source, a date or a camera",
        )
        ids = [row.record.content_id for row in self._rows(candidates) if check.test(row)]
        return some([check.exact, one_of("content_id", ids)])

    def having(self, content_ids: Collection[str]) -> Passing:
        """Return which items have one of these content ids."""
        self._refuse_many(len(content_ids), "{count} pictures are too many for a list of them")
        return frozenset([one_of("content_id", sorted(content_ids))])

    def lacking(self, content_ids: Collection[str]) -> Passing:
        """Return which items have none of these content ids."""
        if not content_ids:
            return frozenset()
        (these,) = self.having(content_ids)
        return frozenset([f"not ({these})"])

    def both(self, one: Passing | None, other: Passing | None) -> Passing | None:
        """Return which items are in both selections."""
        if one is None or other is None:
            return other if one is None else one
        return one | other

    def count(self, selection: Passing | None) -> int:
        """Return how many items are in a selection."""
        return len(self) if not selection else self._count(selection)

    def _ask_count(self, selection: Passing, own: bool = True) -> int:
        expression = every([*([_OWN] if own else []), *sorted(selection)])
        rows = self._client.query(self._collection, filter=expression, output_fields=["count(*)"])
        return int(rows[0]["count(*)"])

    def find(self, content_ids: Collection[str]) -> Items:
        """Return the items with these content ids."""
        wanted = [each for each in content_ids if re.fullmatch("[0-9a-f]{32}", each)]
        found: list[Row] = []
        for start in range(0, len(wanted), BATCH):
            # The key of an item's own row is its content id.
            found += self._rows(one_of("id", wanted[start : start + BATCH]))
        return as_items(sorted(found, key=lambda row: row.place))

    def added_since(self, settings: Settings, build: str) -> Passing | None:
        """Return which items a publication had not; None if that is no name of one."""
        moment = moment_of(build)
        return None if moment is None else frozenset([f"first_published > {moment}"])

    def facets(self, selection: Passing | None, folder: str = "") -> Facets:
        """Count the items of a selection, value by value: see `facets.ValueCounter`."""
        return self._facets.count(selection or frozenset(), folder)

    @functools.cached_property
    def _facets(self) -> ValueCounter:
        values = {kind: self._values(kind) for kind in KINDS}

        def read(selection: Passing) -> Iterator[dict[str, Any]]:
            return self._entities(self._collection, every([_OWN, *sorted(selection)]), [*FIELDS])

        return ValueCounter(values, self._count, read)

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
        """Rank by the engine's cosines with what is wanted, and score here what it found.

        No score is above the cosine, so an item that the engine has not found yet cannot come
        before one whose score is above the last cosine found (the threshold algorithm: Fagin et
        al., 2003, doi:10.1016/S0022-0000(03)00026-6).
        """
        own = set(query.like)
        for content_id in own:
            indexed_item(self, content_id)
        among = selection | (self.lacking(own) if own else frozenset())
        # Milvus Lite reads the rows that it counts: few are better than many.
        items = self.count(selection) - (self.count(selection | self.having(own)) if own else 0)
        rows_in_all = items
        if self.info.views:
            rows_in_all += self._count(among | {"view > 0"}, own=False)
        asked = count + MORE_ROWS
        while True:
            asked = min(asked, rows_in_all)
            self._refuse_many(
                asked,
                "{count} pictures would have to be read: ask for fewer, or narrow the search by a "
                "source, a date or a camera",
            )
            rows, last = self._nearest(vectors.wanted, among, asked)
            best_rows, scores, own_rows = self._scored(vectors, rows)
            order = np.array(
                sorted(range(len(scores)), key=lambda at: (-scores[at], own_rows[at].place)),
                np.int64,
            )[:count]
            is_all = len(rows) < asked or asked == rows_in_all
            if is_all or (len(order) == count and scores[order[-1]] > last + ROUNDING):
                return Ranking(
                    items=as_items([own_rows[at] for at in order]),
                    scores=scores[order],
                    plan=f"Milvus {self.info.index_type}",
                    among=items,
                    rows=as_items([best_rows[at] for at in order]),
                    among_rows=rows_in_all,
                )
            asked *= 2

    def nearest(self, vector: Vectors, count: int, selection: Passing | None) -> Items:
        """Return the nearest items of a selection, as the engine finds them."""
        rows, _ = self._nearest(vector, (selection or frozenset()) | {_OWN}, count)
        return as_items(rows)

    def _nearest(self, wanted: Vectors, selection: Passing, count: int) -> tuple[list[Row], float]:
        """Return the rows nearest to a vector, and the engine's cosine of the last one."""
        if not count:
            return [], -1.0
        asked: dict[str, Any] = {
            "data": [wanted],
            "filter": every(sorted(selection)) if selection else "",
            "output_fields": [*COLUMNS, "vector"],
            "search_params": search_params(self.info.index_type, count),
        }
        if count <= MOST_ROWS:
            found = self._client.search(self._collection, limit=count, **asked)[0]
        else:
            found = []
            with self._client.explained():
                iterator = self._client.search_iterator(
                    self._collection, batch_size=BATCH, limit=count, **asked
                )
                while batch := iterator.next():
                    found += batch
                iterator.close()
        rows = [Row.of(hit["entity"]) for hit in found]
        return rows, float(found[-1]["distance"]) if rows else -1.0

    def _scored(
        self, vectors: QueryVectors, rows: list[Row]
    ) -> tuple[list[Row], Vectors, list[Row]]:
        """Return of each item that rows belong to its nearest row, its score and its own row."""
        if not rows:
            return [], np.empty(0, np.float32), []
        if not self.info.views:
            return rows, vectors.scores(self._cosines(rows, vectors)), rows
        # An item shows what any of its views shows, also what is not wanted.
        of_item: dict[str, dict[str, Row]] = {}
        for row in rows:
            of_item.setdefault(row.record.content_id, {})[row.id] = row
        ids = list(of_item)
        for start in range(0, len(ids), BATCH):
            these = one_of("content_id", ids[start : start + BATCH])
            for row in self._rows(every(["view > 0", these])):
                of_item[row.record.content_id][row.id] = row
        # Items of which only a further view was near enough.
        for row in self.find([each for each in ids if each not in of_item[each]]).tolist():
            of_item[row.id][row.id] = row
        groups = [sorted(group.values(), key=lambda row: row.number) for group in of_item.values()]
        products = self._cosines([row for group in groups for row in group], vectors)
        ends = np.cumsum([len(group) for group in groups])
        scores = vectors.scores(np.maximum.reduceat(products, [0, *ends[:-1]]))
        nearest = [
            group[int(products[end - len(group) : end, 0].argmax())]
            for group, end in zip(groups, ends.tolist(), strict=True)
        ]
        return nearest, scores, [group[0] for group in groups]

    def _cosines(self, rows: list[Row], vectors: QueryVectors) -> Vectors:
        """Return the cosines of rows with all that scores are made of, float32 (n, m).

        In double precision, so that equal vectors have equal scores wherever they stand.
        """
        products = matrix(rows, self.info.dim).astype(np.float64) @ vectors.vectors.T
        return products.astype(np.float32)

    def listing(
        self, selection: Passing | None, sort: Sort, offset: int = 0, count: int | None = None
    ) -> Items:
        """Return items of a selection by date or name; without a count, LISTED at most.

        Raises:
            QueryError: More than MOST_LOOKED_AT items would have to be sorted here: by name, or of
                those that do not know their date.
        """
        selection = selection or frozenset()
        last = min(offset + (LISTED if count is None else count), self.count(selection))
        if self.count(selection) <= SORTED_HERE or sort == "name" or not self.knows_facts:
            return self._sorted(selection, sort, offset, last)
        dated, undated = selection | {"taken_at is not null"}, selection | {"taken_at is null"}
        with_date = self.count(dated)
        found = []
        if offset < with_date:
            window, before = self._window(dated, sort, offset, min(last, with_date))
            end = min(last, with_date) - before
            found.append(self._sorted(window, sort, offset - before, end))
        if last > with_date:
            first = max(offset - with_date, 0)
            found.append(self._sorted(undated, sort, first, last - with_date))
        return np.concatenate(found) if found else as_items([])

    def _window(self, dated: Passing, sort: Sort, first: int, last: int) -> tuple[Passing, int]:
        """Return the items that those of ranks `first` to `last` by date are among.

        Milvus counts and does not sort, so the dates where they begin and end are found by
        bisection, as far as that leaves few others.

        Args:
            dated: Items that know their date.
            sort: "newest" or "oldest".
            first: Rank from 0.
            last: One more than the last rank.

        Returns:
            Also how many of the items come before these.
        """
        sign, field = (-1, "taken_at >= {}") if sort == "newest" else (1, "taken_at <= {}")

        def up_to(time: int) -> Passing:
            return dated | {field.format(sign * time)}

        def bisected(least: int, most: int) -> int:
            """Return a time up to which there are so many, or the first with at least `least`."""
            low, high = sorted(sign * year for year in self._years)
            while low < high:
                middle = (low + high) // 2
                there = self.count(up_to(middle))
                if least <= there <= most:
                    return middle
                low, high = (middle + 1, high) if there < least else (low, middle)
            return low

        window, before = up_to(bisected(last, last + SORTED_HERE)), 0
        if first > SORTED_HERE:
            start = bisected(first - SORTED_HERE, first)
            if self.count(up_to(start)) > first:  # many have one and the same time
                start -= 1
            before = self.count(up_to(start))
            window |= {f"not ({field.format(sign * start)})"}
        return window, before

    @functools.cached_property
    def _years(self) -> tuple[int, int]:
        """The beginning of the first year with a picture and the end of the last: microseconds."""
        years = np.array([*map(int, self._names_of("year"))] or [1970]) - 1970
        first, end = np.array([years.min(), years.max() + 1], "datetime64[Y]").astype(
            "datetime64[us]"
        )
        return int(first.astype(np.int64)), int(end.astype(np.int64))

    def _sorted(self, selection: Passing, sort: Sort, first: int, last: int) -> Items:
        """Sort a selection here, and return the items of the ranks from `first` to `last`."""
        self._refuse_many(
            self.count(selection),
            "{count} pictures are too many to sort here: narrow the search by a source, a date or "
            "a camera",
        )
        fields = ["content_id", "source", "path", "name", "taken_at"]
        fields += [] if self.knows_facts else ["shown"]
        keys = []
        for row in self._entities(self._collection, every([_OWN, *sorted(selection)]), fields):
            time = UNKNOWN_TIME if row["taken_at"] is None else row["taken_at"]
            if not self.knows_facts:
                time = max(file[-1] for file in row["shown"]["locations"]) // 1_000
            place = (row["source"], row["path"])
            keys.append((*_sort_key(sort, row["name"], time), place, row["content_id"]))
        ids = [key[-1] for key in sorted(keys)[first:last]]
        rows = {row.record.content_id: row for row in self.find(ids)}
        return as_items([rows[content_id] for content_id in ids if content_id in rows])

    def in_order(self, items: Items, sort: Sort) -> Numbers:
        """Return the order of these items: positions in `items`."""
        if sort == "relevance":
            return np.arange(len(items))
        times = self.times(items).tolist()
        rows: list[Row] = items.tolist()

        def key(at: int) -> tuple[Any, ...]:
            source, path = rows[at].place
            return *_sort_key(sort, path.rpartition("/")[2], times[at]), (source, path)

        return np.array(sorted(range(len(rows)), key=key), np.int64)

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

    # Reading

    def _rows(self, expression: str) -> Iterator[Row]:
        """Yield the rows for which an expression is true."""
        return map(Row.of, self._entities(self._collection, expression, [*COLUMNS, "vector"]))

    def _entities(
        self, collection: str, expression: str, fields: list[str]
    ) -> Iterator[dict[str, Any]]:
        """Yield these fields of the rows for which an expression is true."""
        asked = {"filter": expression, "output_fields": fields}
        # An iterator makes several calls, however few the rows are.
        found = self._client.query(collection, limit=BATCH + 1, **asked)
        if len(found) <= BATCH:
            yield from found
            return
        with self._client.explained():
            iterator = self._client.query_iterator(collection, batch_size=BATCH, **asked)
            try:
                while batch := iterator.next():
                    yield from batch
            finally:
                iterator.close()

    def _names(self, expression: str, count: int) -> list[str]:
        rows = self._client.query(
            self._collection,
            filter=every([_OWN, expression]),
            output_fields=["name"],
            limit=count,
        )
        return sorted({row["name"] for row in rows})

    def _refuse_many(self, count: int, problem: str) -> None:
        if count > MOST_LOOKED_AT:
            raise QueryError(problem.format(count=f"{count:,}"))


def _sort_key(sort: Sort, name: str, time: int) -> tuple[Any, ...]:
    """Return what an item is sorted by, before its place."""
    if sort == "name":
        return (name.lower(),)
    return time == UNKNOWN_TIME, -time if sort == "newest" else time
