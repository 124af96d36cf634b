"""The items to index: manifests joined with embeddings, one item for each content id.

Tables stay in Arrow and vectors stay on disk, so that a million items need little memory.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.facts.grouped_files import GroupedFiles, read_grouped_files
from retrieval_pipeline.index.arrow import as_matrix, one_chunk
from retrieval_pipeline.index.matrices import Matrix
from retrieval_pipeline.storage.schemas import embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_table
from retrieval_pipeline.vectors import Numbers, VectorSpace, check_vectors

# Items that are hashed at a time.
BATCH_ROWS = 65_536

LOCATION = pa.struct(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
    ]
)


# What is told of each item, in their order.
ITEM_COLUMNS = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("locations", pa.list_(LOCATION), nullable=False),
        pa.field("width", pa.int32(), nullable=False),
        pa.field("height", pa.int32(), nullable=False),
        pa.field("format", pa.string(), nullable=False),
    ]
)


@dataclass(frozen=True)
class Location:
    """One file that holds an image.

    Attributes:
        source: Name of the source that the file belongs to.
        path: Relative to the source, as text made by `paths.to_text`.
    """

    source: str
    path: str


@dataclass(frozen=True)
class JoinedRows:
    """Rows to write into a build, without their vectors, which stay in Parquet files.

    Attributes:
        table: What is told of each row.
        rows: Row of each vector in the concatenation of `parts`, int64 (rows,).
        parts: The files with embeddings, and how many rows each has.
    """

    table: pa.Table
    rows: npt.NDArray[np.int64]
    parts: list[tuple[Path, int]]

    def __len__(self) -> int:
        return len(self.table)


@dataclass(frozen=True)
class JoinedItems(JoinedRows):
    """The join of manifests and embeddings on the content id.

    `table` has the columns content_id, locations, width, height and format, and is sorted by the
    source and path of the first location.

    Attributes:
        grouped: Source -> its files, and their companions.
    """

    grouped: Mapping[str, GroupedFiles]


def table_digest(table: pa.Table, *constants: object) -> str:
    """Return a hash of a table and of `constants`, which must be values that JSON knows."""
    digest = blake3(json.dumps(constants).encode())
    with (
        pa.PythonFile(_HashingSink(digest), "w") as sink,
        pa.ipc.new_stream(sink, table.schema) as writer,
    ):
        writer.write_table(table.combine_chunks(), max_chunksize=BATCH_ROWS)
    return digest.hexdigest(length=16)


class _HashingSink:
    """A file object for writing that hashes the data instead of storing it."""

    closed = False

    def __init__(self, digest: blake3) -> None:
        self._digest = digest

    def write(self, data: bytes) -> int:
        self._digest.update(data)
        return len(data)

    def flush(self) -> None:
        """Do nothing: nothing is buffered."""

    def close(self) -> None:
        self.closed = True


def join(store: Store, space: VectorSpace, sources: Sequence[str]) -> JoinedItems:
    """Join the manifests of `sources` with all embeddings of `space`.

    Files with the same content become one item. Left out are files whose content is not embedded,
    and companions: the other files of a photograph.

    Raises:
        StoreError: A table is damaged.
    """
    grouped = {name: read_grouped_files(store, space, name) for name in sorted(sources)}
    located = _locations({source: each.files for source, each in grouped.items()})
    schema = embedding_schema(space.dim)
    columns = ["content_id", "width", "height", "format"]
    paths = store.parts(space)
    tables = [read_table(path, schema, columns) for path in paths]
    empty = pa.schema([schema.field(name) for name in columns]).empty_table()
    facts = pa.concat_tables([empty, *tables])
    # index_in returns the first row with an id: an image that was embedded twice counts once.
    rows = pc.index_in(located["content_id"], facts["content_id"].combine_chunks())
    known = pc.is_valid(rows)
    table, rows = located.filter(known), rows.filter(known)
    for name in columns[1:]:
        table = table.append_column(name, facts[name].take(rows))
    return JoinedItems(
        table,
        rows.to_numpy().astype(np.int64),
        [(path, len(part)) for path, part in zip(paths, tables, strict=True)],
        grouped,
    )


def join_some(store: Store, space: VectorSpace, sources: Sequence[str]) -> JoinedItems:
    """Return what `join` does, if that is anything.

    Raises:
        BuildError: There is nothing to index.
        StoreError: A table is damaged.
    """
    joined = join(store, space, sources)
    if not len(joined):
        raise BuildError(
            "there is nothing to index: no source has an image that could be embedded. "
            "`retrieval status` shows what was found"
        )
    return joined


def _locations(files_of: Mapping[str, pa.Table]) -> pa.Table:
    """Return the columns content_id and locations, with a row for each content id.

    Rows, and the locations within a row, are sorted by source and path.

    Args:
        files_of: Source -> rows of its manifest whose content is known.
    """
    manifests = []
    for source, rows in files_of.items():
        rows = rows.select(["content_id", "path", "size", "mtime_ns"])
        manifests.append(
            rows.append_column("source", pa.repeat(pa.scalar(source, pa.string()), len(rows)))
        )
    if not manifests:
        return pa.table(
            {"content_id": pa.array([], pa.string()), "locations": pa.array([], pa.list_(LOCATION))}
        )
    files = pa.concat_tables(manifests).sort_by([("source", "ascending"), ("path", "ascending")])
    encoded = one_chunk(files["content_id"]).dictionary_encode()
    # The dictionary holds each content id once, in the order of its first file.
    rows_of_files = encoded.indices.to_numpy()
    order = np.argsort(rows_of_files, kind="stable")
    offsets = np.concatenate(
        [[0], np.cumsum(np.bincount(rows_of_files, minlength=len(encoded.dictionary)))]
    )
    files = files.take(pa.array(order)).combine_chunks()
    locations = pa.StructArray.from_arrays(
        [one_chunk(files[field.name]) for field in LOCATION], fields=list(LOCATION)
    )
    lists = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), locations)
    return pa.table({"content_id": encoded.dictionary, "locations": lists})


def read_vectors(
    joined: JoinedRows, schema: pa.Schema, rows: Numbers, into: Matrix, at: Numbers
) -> None:
    """Read the vectors of some rows.

    The parts are Parquet files, which have no random access: each that holds one of the rows is
    read once.

    Args:
        joined: All rows.
        schema: The columns of the parts.
        rows: Which rows, in any order.
        into: Where to put their vectors, float16 or float32 (m, dim).
        at: For each of the rows the row of `into`.

    Raises:
        StoreError: A part is damaged.
        VectorError: A stored vector is not of unit length.
    """
    dim = into.shape[1]
    order = np.argsort(joined.rows[rows], kind="stable")
    stored_rows = joined.rows[rows][order]
    start = 0
    for part, count in joined.parts:
        first, last = np.searchsorted(stored_rows, [start, start + count])
        if first < last:
            stored = as_matrix(read_table(part, schema, ["embedding"])["embedding"], dim)
            wanted = stored[stored_rows[first:last] - start]
            into[at[order[first:last]]] = check_vectors(wanted, dim, f"{part}: vector")
        start += count


def check_items(items: pa.Table, file: Path) -> None:
    """Check the values of a table whose columns are those of ITEM_COLUMNS.

    Its bytes may be those that were written, and yet not make sense: whoever can write a build can
    write its hashes.

    Args:
        items: The table, mapped into memory.
        file: Where it is, for the error.

    Raises:
        BuildError: A value cannot be, such as a text that is not UTF-8 or a picture without files.
    """
    try:
        items.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise BuildError(f"{file}: {error}: run `retrieval index`") from None
    for batch in items.to_batches():
        locations = batch["locations"]
        columns = [*batch.columns, *locations.flatten().flatten()]
        least = [pc.list_value_length(locations), batch["width"], batch["height"]]
        if any(column.null_count for column in columns) or any(
            pc.min(column).as_py() < 1 for column in least
        ):
            raise BuildError(f"{file}: an item has an impossible value: run `retrieval index`")
