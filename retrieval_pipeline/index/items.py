"""Manifests joined with embeddings: what there is to index, one item a content, in a fixed order.

Tables stay in Arrow and vectors on disk, so that a million items need little memory.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from retrieval_pipeline.storage.schemas import embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, read_table
from retrieval_pipeline.vectors import Vectors, VectorSpace, check_vectors

# Rows of one Arrow record batch: 200 MB at 768 dimensions, scanned as one matrix product.
BATCH_ROWS = 65_536

LOCATION = pa.struct(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
    ]
)


def items_schema(dim: int) -> pa.Schema:
    """Columns of items.arrow, in the order of the items."""
    return pa.schema(
        [
            pa.field("content_id", pa.string(), nullable=False),
            pa.field("locations", pa.list_(LOCATION), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("format", pa.string(), nullable=False),
            pa.field("embedding", pa.list_(pa.float32(), dim), nullable=False),
        ]
    )


@dataclass(frozen=True)
class Location:
    """One file that holds an image.

    Attributes:
        source: Name of its source.
        path: Relative to the source, as text of `paths.to_text`.
    """

    source: str
    path: str


@dataclass(frozen=True)
class Joined:
    """The join of manifests and embeddings on content id, without the vectors.

    Attributes:
        table: content_id, locations, width, height, format; a row an item, sorted by source and
            path of the first location.
        rows: Row of each item's vector in the concatenation of `parts`, int64 (n,).
        parts: The embedding parts that `rows` counts, and how many rows each has.
    """

    table: pa.Table
    rows: npt.NDArray[np.int64]
    parts: list[tuple[Path, int]]

    def __len__(self) -> int:
        return len(self.table)

    def digest(self, *constants: object) -> str:
        """Hash of the items and of whatever else decides what is made from them."""
        digest = blake3(json.dumps(constants).encode())
        with (
            pa.PythonFile(_Hashing(digest), "w") as sink,
            pa.ipc.new_stream(sink, self.table.schema) as writer,
        ):
            writer.write_table(self.table.combine_chunks(), max_chunksize=BATCH_ROWS)
        return digest.hexdigest(length=16)


class _Hashing:
    """A file to write to that keeps nothing but a hash."""

    closed = False

    def __init__(self, digest: blake3) -> None:
        self._digest = digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Nothing waits."""

    def close(self) -> None:
        self.closed = True


def join(store: Store, space: VectorSpace, sources: Sequence[str]) -> Joined:
    """Join the manifests of `sources` with all embeddings of `space`; copies become one item.

    Raises:
        StoreError: A table is damaged.
    """
    located = _locations(store, sources)
    schema = embedding_schema(space.dim)
    columns = ["content_id", "width", "height", "format"]
    paths = store.parts(space)
    tables = [read_table(path, schema, columns) for path in paths]
    empty = pa.schema([schema.field(name) for name in columns]).empty_table()
    facts = pa.concat_tables([empty, *tables])
    # index_in gives the first row of an id, so that an id embedded twice counts once.
    rows = pc.index_in(located["content_id"], facts["content_id"].combine_chunks())
    known = pc.is_valid(rows)
    table, rows = located.filter(known), rows.filter(known)
    for name in columns[1:]:
        table = table.append_column(name, facts[name].take(rows))
    return Joined(
        table,
        rows.to_numpy().astype(np.int64),
        [(path, len(part)) for path, part in zip(paths, tables, strict=True)],
    )


def _locations(store: Store, sources: Sequence[str]) -> pa.Table:
    """Return content_id and locations, a row a content id, in the order of first locations."""
    manifests = []
    for source in sorted(sources):
        rows = read_manifest(store, source)
        rows = rows.filter(pc.is_valid(rows["content_id"])).select(
            ["content_id", "path", "size", "mtime_ns"]
        )
        manifests.append(
            rows.append_column("source", pa.repeat(pa.scalar(source, pa.string()), len(rows)))
        )
    if not manifests:
        return pa.table(
            {"content_id": pa.array([], pa.string()), "locations": pa.array([], pa.list_(LOCATION))}
        )
    files = pa.concat_tables(manifests).sort_by([("source", "ascending"), ("path", "ascending")])
    encoded = one_chunk(files["content_id"]).dictionary_encode()
    # Codes count the ids in the order of their first file.
    codes = encoded.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    offsets = np.concatenate(
        [[0], np.cumsum(np.bincount(codes, minlength=len(encoded.dictionary)))]
    )
    files = files.take(pa.array(order)).combine_chunks()
    places = pa.StructArray.from_arrays(
        [one_chunk(files[field.name]) for field in LOCATION], fields=list(LOCATION)
    )
    locations = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), places)
    return pa.table({"content_id": encoded.dictionary, "locations": locations})


def write_items(joined: Joined, space: VectorSpace, file: Path, scratch: Path) -> Iterator[int]:
    """Write items.arrow to `file`, and yield after each batch how many items it had.

    Parts hold the vectors in the order of the embedding runs, Parquet has no random access, and
    together they may exceed the memory: `scratch` is a passing copy of the vectors that has both.

    Raises:
        StoreError: A part is damaged.
        VectorError: A stored vector is not of unit length.
    """
    order = np.argsort(joined.rows)
    _copy_vectors(joined, space, joined.rows[order], scratch)
    place = np.empty_like(order)
    place[order] = np.arange(len(order))
    vectors = np.memmap(scratch, np.float32, "r", shape=(len(joined), space.dim))
    schema = items_schema(space.dim)
    with pa.ipc.new_file(str(file), schema) as writer:
        for start in range(0, len(joined), BATCH_ROWS):
            batch = vectors[place[start : start + BATCH_ROWS]]
            embedding = pa.FixedSizeListArray.from_arrays(pa.array(batch.reshape(-1)), space.dim)
            rows = joined.table.slice(start, len(batch)).combine_chunks()
            writer.write_table(rows.append_column("embedding", embedding).cast(schema))
            yield len(batch)
    del vectors
    scratch.unlink()


def _copy_vectors(
    joined: Joined, space: VectorSpace, rows: npt.NDArray[np.int64], file: Path
) -> None:
    """Write the vectors of these rows, ascending, one after the other as float32."""
    schema = embedding_schema(space.dim)
    start = 0
    # Written, not mapped: a full disk is an error here and would be a crash there.
    with file.open("wb") as handle:
        for part, count in joined.parts:
            first, last = np.searchsorted(rows, [start, start + count])
            if first < last:
                stored = as_matrix(read_table(part, schema, ["embedding"])["embedding"], space.dim)
                wanted = stored[rows[first:last] - start]
                handle.write(check_vectors(wanted, space.dim, f"{part}: vector").tobytes())
            start += count


def one_chunk(column: pa.ChunkedArray) -> pa.Array:
    """Return a column as one array."""
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else combined.chunk(0)


def as_matrix(column: pa.Array | pa.ChunkedArray, dim: int) -> Vectors:
    """View a fixed-size-list column as float32 (n, dim), without a copy of a single chunk."""
    array = one_chunk(column) if isinstance(column, pa.ChunkedArray) else column
    flat = array.flatten()
    # `to_numpy` would import pandas where it is installed, which takes as long as all the rest.
    values = np.frombuffer(flat.buffers()[1], np.float32, len(flat), flat.offset * 4)
    return values.reshape(-1, dim)
