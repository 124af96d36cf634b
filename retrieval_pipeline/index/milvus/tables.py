"""What the tables of a home say that the engine should hold.

What is told of pictures is in blocks, files that are mapped into memory; keys and numbers of rows
take some fifty bytes each. Vectors are read from their Parquet files when they are sent.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from retrieval_pipeline.index.arrow import one_chunk
from retrieval_pipeline.index.blocks import Block, ItemTables, open_blocks
from retrieval_pipeline.index.inputs import Inputs, read_inputs
from retrieval_pipeline.index.items import read_vectors
from retrieval_pipeline.index.milvus.schema import KEY, SCHEMA_VERSION, VECTOR, fields_of
from retrieval_pipeline.index.row_keys import content_ids_of
from retrieval_pipeline.index.segment import Precision
from retrieval_pipeline.index.views import rows_of_views
from retrieval_pipeline.storage.content_id import DIGEST_BYTES
from retrieval_pipeline.storage.schemas import VIEW_COLUMNS, embedding_schema, views_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Numbers, Vectors, VectorSpace
from retrieval_pipeline.views import Views

# Items whose fields are Python objects at a time: some 10 MB.
ITEMS_AT_A_TIME = 2_048


@dataclass(frozen=True)
class Stretch:
    """Neighbouring items: those of one block.

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
        inputs: Where the vectors are.
        tables: What is told of the items.
    """

    space: VectorSpace
    precision: Precision
    inputs: Inputs
    tables: ItemTables

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.inputs.keys)

    @property
    def items(self) -> int:
        """The number of items."""
        return len(self.inputs.items)

    @property
    def views(self) -> int:
        """The number of their further views."""
        return len(self.inputs.views)

    @cached_property
    def keys(self) -> pa.Array:
        """The primary keys of all rows."""
        own = content_ids_of(self.inputs.items.keys)
        if not self.views:
            return own
        numbers = pa.array(self._number_of_view).cast(pa.string())
        further = pc.binary_join_element_wise(own.take(pa.array(self._owners)), numbers, "#")
        return pa.concat_arrays([own, further])

    @property
    def owners(self) -> Numbers:
        """The item of each row, int64 (rows,)."""
        return np.concatenate([np.arange(self.items), self._owners])

    @cached_property
    def _owners(self) -> Numbers:
        """The item of each further view."""
        return rows_of_views(self.items, self.tables.views).further

    @cached_property
    def _number_of_view(self) -> Numbers:
        """For each further view its number among those of its item, from 1."""
        return 1 + np.arange(len(self._owners)) - np.searchsorted(self._owners, self._owners)

    @cached_property
    def stretches(self) -> list[Stretch]:
        """All items: of a block in which nothing has changed, the hash is the same as before."""
        found, start = [], 0
        for block in self.inputs.blocks:
            names = [file.name for file in block.tables.values()]
            digest = blake3(json.dumps([SCHEMA_VERSION, names]).encode())
            found.append(Stretch(start, start + block.items, digest.digest(length=DIGEST_BYTES)))
            start += block.items
        return found

    def digest(self, *constants: object) -> str:
        """Return a hash of all rows but their vectors, and of constants that JSON knows."""
        digest = blake3(json.dumps(constants).encode())
        for stretch in self.stretches:
            digest.update(stretch.digest)
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
        read_vectors(self.inputs.items, embedding_schema(dim), rows[own], found, own)
        views = rows[further] - self.items
        read_vectors(self.inputs.views, views_schema(dim), views, found, further)
        return found.astype(np.float32)

    def as_stored(self, rows: Numbers) -> Numbers:
        """Return rows in the order in which their vectors are stored."""
        stored = np.concatenate([self.inputs.items.rows, self.inputs.views.rows])
        return rows[np.lexsort((stored[rows], rows >= self.items))]

    def _fields(self, rows: Numbers) -> Iterator[dict[str, Any]]:
        """Yield the fields of rows, without their keys and vectors."""
        owners = rows.copy()
        further = rows >= self.items
        owners[further] = self._owners[rows[further] - self.items]
        numbers, places = np.unique(owners, return_inverse=True)
        items = _rows(self.tables.items, numbers)
        facts: Sequence[dict[str, Any] | None] = [None] * len(items)
        if self.tables.facts is not None:
            facts = _rows(self.tables.facts, numbers)
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


def _rows(table: pa.Table, numbers: Numbers) -> list[dict[str, Any]]:
    """Return rows, ascending, of a table of many chunks, which `Table.take` would join first."""
    runs = np.split(numbers, 1 + np.flatnonzero(np.diff(numbers) != 1))
    return [
        row for run in runs if len(run) for row in table.slice(int(run[0]), len(run)).to_pylist()
    ]


def read_rows(
    store: Store,
    space: VectorSpace,
    sources: Sequence[str],
    views: Mapping[str, Views],
    precision: Precision,
    known: Iterable[Block] = (),
    *,
    write: bool = True,
) -> TableRows:
    """Join the tables of sources to the rows that the engine should hold.

    Args:
        store: Where the tables are.
        space: The vector space.
        sources: The names of the sources.
        views: Which of the stored views of its pictures each source has; default "whole".
        precision: What vectors are rounded to.
        known: Blocks of earlier rows, whose hashes are known.
        write: False writes no blocks, for those who do not hold the store's lock.

    Raises:
        BuildError: There is nothing to index.
        NewBlockError: `write` is False, and a block is not there or not known.
        StoreError: A table is damaged, or blocks cannot be written.
    """
    inputs = read_inputs(store, space, sources, views, known, write=write)
    tables = open_blocks(store.blocks(space), inputs.blocks, set())
    return TableRows(space, precision, inputs, tables)
