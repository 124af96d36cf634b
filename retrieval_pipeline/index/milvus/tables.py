"""What the tables of a home say that the engine should hold.

What is told of pictures is in memory, as Arrow columns of some hundred bytes a picture. Vectors,
which are ten times as large, are read from their Parquet files when they are sent.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from retrieval_pipeline.index.arrow import no_rows, one_chunk
from retrieval_pipeline.index.blocks import ItemTables, cut, rows_of_items
from retrieval_pipeline.index.companions import companions_of_items
from retrieval_pipeline.index.facts_table import (
    facts_of_items,
    has_facts,
    places_version,
    with_places,
)
from retrieval_pipeline.index.items import (
    ITEM_COLUMNS,
    JoinedItems,
    join_some,
    read_vectors,
    table_digest,
)
from retrieval_pipeline.index.milvus.schema import KEY, SCHEMA_VERSION, VECTOR, fields_of
from retrieval_pipeline.index.row_keys import keys_of
from retrieval_pipeline.index.segment import Precision
from retrieval_pipeline.index.views import JoinedViews, join_views, rows_of_views
from retrieval_pipeline.storage.content_id import DIGEST_BYTES
from retrieval_pipeline.storage.schemas import VIEW_COLUMNS, embedding_schema, views_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Numbers, Vectors, VectorSpace
from retrieval_pipeline.views import Views

# Items whose fields are Python objects at a time: some 10 MB.
ITEMS_AT_A_TIME = 2_048


@dataclass(frozen=True)
class Block:
    """Neighbouring items.

    Attributes:
        start, end: Their numbers.
        digest: Hash of all that is told of them.
    """

    start: int
    end: int
    digest: bytes


@dataclass(frozen=True)
class TableRows:
    """The rows that the engine should hold.

    Row n is the own vector of item n; the rows of the further views follow after those of all
    items. Items are in the order of the source and path of their first file.

    Attributes:
        space: The vector space.
        precision: What vectors are rounded to, as those of the embedded index are.
        tables: What is told of the items.
        joined: Where the vectors of the items are.
        views: Where those of their further views are.
    """

    space: VectorSpace
    precision: Precision
    tables: ItemTables
    joined: JoinedItems
    views: JoinedViews

    def __len__(self) -> int:
        """Return the number of rows."""
        return self.items + len(self.views)

    @property
    def items(self) -> int:
        """The number of items."""
        return len(self.joined)

    @cached_property
    def keys(self) -> pa.Array:
        """The primary keys of all rows."""
        own = one_chunk(self.tables.items["content_id"])
        if not len(self.views):
            return own
        numbers = pa.array(self._number_of_view).cast(pa.string())
        further = pc.binary_join_element_wise(own.take(pa.array(self._owners)), numbers, "#")
        return pa.concat_arrays([own, further])

    @cached_property
    def _owners(self) -> Numbers:
        """The item of each further view."""
        return rows_of_views(self.items, self.tables.views).further

    @cached_property
    def _number_of_view(self) -> Numbers:
        """For each further view its number among those of its item, from 1."""
        return 1 + np.arange(len(self._owners)) - np.searchsorted(self._owners, self._owners)

    @cached_property
    def blocks(self) -> list[Block]:
        """Blocks of all items: one in which nothing has changed has the same hash as before."""
        found = []
        for start, end in cut(keys_of(self.tables.items["content_id"])):
            parts = [self.tables.items.slice(start, end - start)]
            version = None
            if self.tables.facts is not None:
                facts = self.tables.facts.slice(start, end - start)
                version = places_version(facts)
                parts.append(facts.cast(_without_dictionaries(facts.schema)))
            parts += [
                rows_of_items(table, start, end)
                for table in (self.tables.companions, self.tables.views)
            ]
            digests = [table_digest(part, SCHEMA_VERSION, version) for part in parts]
            digest = blake3("".join(digests).encode()).digest(length=DIGEST_BYTES)
            found.append(Block(start, end, digest))
        return found

    def digest(self, *constants: object) -> str:
        """Return a hash of all rows but their vectors, and of constants that JSON knows."""
        digest = blake3(json.dumps(constants).encode())
        for block in self.blocks:
            digest.update(block.digest)
        return digest.hexdigest(length=16)

    def rows_of(self, start: int, end: int) -> Numbers:
        """Return the rows of some neighbouring items: their own, then those of their views."""
        first, last = np.searchsorted(self._owners, [start, end])
        return np.concatenate([np.arange(start, end), self.items + np.arange(first, last)])

    def digests(self, start: int, end: int) -> tuple[Numbers, list[bytes]]:
        """Return the rows of some neighbouring items, and a hash of the fields of each row.

        The vectors are no part of it: what a content id and a view look like in a vector space
        does not change.
        """
        rows, found = self.rows_of(start, end), []
        for some in _pieces(rows):
            for fields in self._fields(some):
                text = json.dumps(fields, ensure_ascii=False)
                data = text.encode(errors="surrogatepass")
                found.append(blake3(data).digest(length=DIGEST_BYTES))
        return rows, found

    def read(self, rows: Numbers) -> Iterator[dict[str, Any]]:
        """Yield rows as the engine takes them; memory holds all of their vectors.

        Raises:
            StoreError: A table of vectors is damaged.
            VectorError: A stored vector is not of unit length.
        """
        vectors = self.vectors(rows)
        start = 0
        for some in _pieces(rows):
            keys = self.keys.take(pa.array(some)).to_pylist()
            for place, (key, fields) in enumerate(zip(keys, self._fields(some), strict=True)):
                yield {KEY: key, VECTOR: vectors[start + place], **fields}
            start += len(some)

    def vectors(self, rows: Numbers) -> Vectors:
        """Return the vectors of rows, float32 (n, dim), rounded to the precision.

        Raises:
            StoreError: A table is damaged.
            VectorError: A stored vector is not of unit length.
        """
        dim = self.space.dim
        found = np.empty((len(rows), dim), self.precision)
        own, further = np.flatnonzero(rows < self.items), np.flatnonzero(rows >= self.items)
        read_vectors(self.joined, embedding_schema(dim), rows[own], found, own)
        views = rows[further] - self.items
        read_vectors(self.views, views_schema(dim), views, found, further)
        return found.astype(np.float32)

    def as_stored(self, rows: Numbers) -> Numbers:
        """Return rows in the order in which their vectors are stored."""
        stored = np.concatenate([self.joined.rows, self.views.rows])
        return rows[np.lexsort((stored[rows], rows >= self.items))]

    def _fields(self, rows: Numbers) -> Iterator[dict[str, Any]]:
        """Yield the fields of rows, without their keys and vectors."""
        owners = rows.copy()
        further = rows >= self.items
        owners[further] = self._owners[rows[further] - self.items]
        numbers, places = np.unique(owners, return_inverse=True)
        at = pa.array(numbers)
        items = self.tables.items.take(at).to_pylist()
        facts: list[dict[str, Any] | None] = [None] * len(items)
        if self.tables.facts is not None:
            facts = with_places(self.tables.facts.take(at)).to_pylist()
        companions = self._companions(numbers)
        found = [fields_of(*each) for each in zip(items, facts, companions, strict=True)]
        for row, place in zip(rows.tolist(), places.tolist(), strict=True):
            fields = found[place]
            if row < self.items:
                yield {**fields, "view": 0}
                continue
            number = row - self.items
            (edges,) = self.tables.views.slice(number, 1).select(VIEW_COLUMNS).to_pylist()
            shown = {**fields["shown"], "view": [edges[name] for name in VIEW_COLUMNS]}
            yield {**fields, "shown": shown, "view": int(self._number_of_view[number])}

    def _companions(self, numbers: Numbers) -> list[list[dict[str, Any]]]:
        """Return the companions of each of these items."""
        table = self.tables.companions
        if not len(table):
            return [[]] * len(numbers)
        owners = one_chunk(table["item"]).to_numpy()
        first = np.searchsorted(owners, numbers).tolist()
        last = np.searchsorted(owners, numbers, side="right").tolist()
        return [
            table.slice(start, end - start).to_pylist() if end > start else []
            for start, end in zip(first, last, strict=True)
        ]


def _pieces(rows: Numbers) -> Iterator[Numbers]:
    for start in range(0, len(rows), ITEMS_AT_A_TIME):
        yield rows[start : start + ITEMS_AT_A_TIME]


def _without_dictionaries(schema: pa.Schema) -> pa.Schema:
    """Return a schema whose columns hold their values: what they are does not depend on others."""
    return pa.schema(
        [
            field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field
            for field in schema
        ]
    )


def read_rows(
    store: Store,
    space: VectorSpace,
    sources: Sequence[str],
    views: Mapping[str, Views],
    precision: Precision,
) -> TableRows:
    """Join the tables of sources to the rows that the engine should hold.

    Args:
        store: Where the tables are.
        space: The vector space.
        sources: The names of the sources.
        views: Which of the stored views of its pictures each source has; default "whole".
        precision: What vectors are rounded to.

    Raises:
        BuildError: There is nothing to index.
        StoreError: A table is damaged.
    """
    joined = join_some(store, space, sources)
    further = join_views(store, space, joined, views)
    tables = ItemTables(
        joined.table.cast(ITEM_COLUMNS),
        facts_of_items(store, joined.table) if has_facts(store, joined.table) else None,
        companions_of_items(joined.table, joined.grouped),
        further.table if len(further) else no_rows(further.table.schema),
    )
    return TableRows(space, precision, tables, joined, further)
