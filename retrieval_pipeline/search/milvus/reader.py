"""What is read of one collection of the engine, and how much of it at a time."""

import functools
import re
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.index.milvus.client import Client
from retrieval_pipeline.index.milvus.schema import PublishedInfo, search_params
from retrieval_pipeline.search.milvus.expressions import (
    Passing,
    checks_of,
    every,
    expressions_of,
    one_of,
    passing,
)
from retrieval_pipeline.search.milvus.rows import COLUMNS, Row
from retrieval_pipeline.vectors import Vectors

# Milvus returns no more rows to one search (its quota `maxOutputSize` and limit of results).
MOST_ROWS = 16_384
# Rows that are read in one go: 3 MB of vectors at 768 dimensions.
BATCH = 1_000
# Vectors whose neighbours are looked for in one call: their ids are 1 MB.
SEARCHED_TOGETHER = 256
# Items that are read in one go, to be sorted or looked at here one by one: some seconds.
MOST_LOOKED_AT = 100_000
# What is said of a ranking that would have to be read down to more than that many rows.
TOO_DEEP = (
    "{count} pictures would have to be read: ask for fewer, or narrow the search by a source, a "
    "date or a camera"
)
# Expressions whose counts are remembered, some KB each: panels of filters ask for many.
COUNTED = 4_096

# True of the row of an item's own vector.
OWN = "view == 0"


@dataclass(frozen=True)
class Nearest:
    """What a search of the engine found.

    Attributes:
        rows: Those that pass, the nearest first.
        read: How many rows the engine gave, with those that did not pass the checks.
        last: The engine's cosine of the last of these.
    """

    rows: list[Row]
    read: int
    last: float


class Reader:
    """Reads the rows of a published collection, by expressions of Milvus or by what is near.

    Every method raises EngineError if the engine cannot answer.

    Attributes:
        client: The engine.
        info: What is known of the publication.
    """

    def __init__(self, client: Client, collection: str, info: PublishedInfo) -> None:
        self.client = client
        self.info = info
        self._collection = collection
        self._count = functools.lru_cache(COUNTED)(self._ask_count)

    def count(self, selection: Passing, *, own: bool = True) -> int:
        """Return how many items pass, or with `own` false how many rows; it is remembered.

        With checks in the selection, that is how many may pass.
        """
        if own and not selection:
            return self.info.items
        return self._count(every([*([OWN] if own else []), *expressions_of(selection)]))

    def _ask_count(self, expression: str) -> int:
        rows = self.client.query(self._collection, filter=expression, output_fields=["count(*)"])
        return int(rows[0]["count(*)"])

    def rows(self, expression: str) -> Iterator[Row]:
        """Yield the rows for which an expression is true."""
        return map(Row.of, self.entities(expression, [*COLUMNS, "vector"]))

    def entities(self, expression: str, fields: list[str]) -> Iterator[dict[str, Any]]:
        """Yield these fields of the rows for which an expression is true."""
        return entities(self.client, self._collection, expression, fields)

    def first(self, expression: str, fields: list[str], count: int) -> list[dict[str, Any]]:
        """Return these fields of the first rows that pass, `count` and MOST_ROWS at most."""
        found: list[dict[str, Any]] = self.client.query(
            self._collection, filter=expression, output_fields=fields, limit=count
        )
        return found

    def passing(self, selection: Passing, ids: list[str]) -> set[str]:
        """Return which of these content ids are those of items that pass, perhaps with others."""
        if checks_of(selection):
            return {row.id for row in self.own_rows(selection | {one_of("id", ids)})}
        if self.count(selection) <= MOST_ROWS:
            # Cheaper than to have each of them compared with the ids there.
            rows = self.first(every([OWN, *expressions_of(selection)]), ["id"], MOST_ROWS)
        else:
            rows = list(
                self.entities(every([*expressions_of(selection), one_of("id", ids)]), ["id"])
            )
        return {row["id"] for row in rows}

    def own_rows(self, selection: Passing) -> list[Row]:
        """Return the own rows of the items that pass: all of them, so they must be few."""
        return passing(selection, self.rows(every([OWN, *expressions_of(selection)])))

    def find(self, content_ids: Collection[str]) -> list[Row]:
        """Return the own rows of the items with these content ids, in the order of items."""
        wanted = [each for each in content_ids if re.fullmatch("[0-9a-f]{32}", each)]
        found: list[Row] = []
        for start in range(0, len(wanted), BATCH):
            # The key of an item's own row is its content id.
            found += self.rows(one_of("id", wanted[start : start + BATCH]))
        return sorted(found, key=lambda row: row.place)

    def nearest(self, wanted: Vectors, selection: Passing, count: int) -> Nearest:
        """Return the rows that pass of the `count` nearest to a vector."""
        if not count:
            return Nearest([], 0, -1.0)
        asked: dict[str, Any] = {
            "data": [wanted],
            "filter": every(expressions_of(selection)) if selection else "",
            "output_fields": [*COLUMNS, "vector"],
            "search_params": search_params(self.info.index_type, count),
        }
        if count <= MOST_ROWS:
            hits = self.client.search(self._collection, limit=count, **asked)[0]
            rows = passing(selection, [Row.of(hit["entity"]) for hit in hits])
            return Nearest(rows, len(hits), float(hits[-1]["distance"]) if hits else -1.0)
        rows, read, last = [], 0, -1.0
        with self.client.explained():
            iterator = self.client.search_iterator(
                self._collection, batch_size=BATCH, limit=count, **asked
            )
            while batch := iterator.next():
                rows += passing(selection, [Row.of(hit["entity"]) for hit in batch])
                read, last = read + len(batch), float(batch[-1]["distance"])
                refuse_many(len(rows), TOO_DEEP)
            iterator.close()
        return Nearest(rows, read, last)

    def nearest_ids(self, vectors: Vectors, count: int) -> list[list[str]]:
        """Return for each vector, (n, dim), the content ids of the items nearest to it."""
        ids: list[list[str]] = []
        for start in range(0, len(vectors), SEARCHED_TOGETHER):
            found = self.client.search(
                self._collection,
                data=list(vectors[start : start + SEARCHED_TOGETHER]),
                limit=count,
                search_params=search_params(self.info.index_type, count),
            )
            # A row of a further view has a key with its number.
            ids += [[hit["id"] for hit in hits if "#" not in hit["id"]] for hits in found]
        return ids


def refuse_many(count: int, problem: str) -> None:
    """Refuse to read more than MOST_LOOKED_AT rows.

    Raises:
        QueryError: There are more; `problem` says what for, with {count} in it.
    """
    if count > MOST_LOOKED_AT:
        raise QueryError(problem.format(count=f"{count:,}"))


def entities(
    client: Client, collection: str, expression: str, fields: list[str]
) -> Iterator[dict[str, Any]]:
    """Yield these fields of the rows for which an expression is true."""
    asked = {"filter": expression, "output_fields": fields}
    # An iterator makes several calls, however few the rows are.
    found = client.query(collection, limit=BATCH + 1, **asked)
    if len(found) <= BATCH:
        yield from found
        return
    with client.explained():
        iterator = client.query_iterator(collection, batch_size=BATCH, **asked)
        try:
            while batch := iterator.next():
                yield from batch
        finally:
            iterator.close()
