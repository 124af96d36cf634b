"""The items to index: manifests joined with embeddings, one item for each content id.

Vectors stay on disk, texts in Arrow, and content ids are 16 bytes in NumPy's arrays, so that ten
million items fit into 2 GB.
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
from retrieval_pipeline.facts.grouped_files import Companions, read_grouped_files
from retrieval_pipeline.index.arrow import as_matrix, one_chunk
from retrieval_pipeline.index.matrices import Matrix
from retrieval_pipeline.index.row_keys import RowKeys, content_ids_of, find, keys_of, no_keys
from retrieval_pipeline.storage.schemas import embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_table
from retrieval_pipeline.vectors import Flags, Numbers, VectorSpace, check_vectors

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
# What is told of a file besides its source.
_FILE_COLUMNS = pa.schema([*LOCATION][1:])

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
        keys: What identifies each row.
        rows: Row of each vector in the concatenation of `parts`, int64 (rows,).
        parts: The files with embeddings, and how many rows each has.
    """

    keys: RowKeys
    rows: npt.NDArray[np.int64]
    parts: list[tuple[Path, int]]

    def __len__(self) -> int:
        return len(self.keys)


@dataclass(frozen=True)
class LocatedFiles:
    """The files of items, one item after the other; those of one by source and path.

    Attributes:
        names: The sources.
        sources: Which of `names` each file is of, int32 (files,), ascending within each item.
        files: Their columns path, size and mtime_ns.
        items: The number of the item that each file is of, ascending, int32 (files,); None if
            each is of its own.
    """

    names: Sequence[str]
    sources: npt.NDArray[np.int32]
    files: pa.Table
    items: npt.NDArray[np.int32] | None = None

    def __len__(self) -> int:
        return len(self.files)

    def owners(self) -> npt.NDArray[np.int32]:
        """Return the number of the item that each file is of, int32 (files,)."""
        return np.arange(len(self), dtype=np.int32) if self.items is None else self.items

    def starts(self, start: int, end: int) -> Numbers:
        """Return where the files of items `start` to `end` begin, and where the last ends."""
        numbers = np.arange(start, end + 1)
        return numbers if self.items is None else np.searchsorted(self.items, numbers)

    def of(self, source: int) -> tuple[Numbers, pa.Array]:
        """Return which files one of the sources has, and their paths, ascending by these."""
        mine = np.flatnonzero(self.sources == source)
        paths = one_chunk(self.files["path"].take(pa.array(mine)))
        if self.items is None:
            return mine, paths
        order = pc.sort_indices(paths)
        return mine[order], paths.take(order)

    def only(self, kept: Flags) -> "LocatedFiles":
        """Return those of files with an item each that are to be kept, bool (files,)."""
        return LocatedFiles(self.names, self.sources[kept], self.files.filter(pa.array(kept)))

    def grouped_by(self, first: npt.NDArray[np.int32]) -> "LocatedFiles":
        """Return files with an item each, brought together by the first file of their item."""
        order = np.argsort(first, kind="stable")
        items = np.cumsum(np.diff(first[order], prepend=-1) != 0, dtype=np.int32) - 1
        return LocatedFiles(
            self.names, self.sources[order], self.files.take(pa.array(order)), items
        )

    def lists(self, start: int, end: int) -> pa.ListArray:
        """Return the locations of items `start` to `end`, one list of LOCATION for each."""
        starts = self.starts(start, end)
        first, last = int(starts[0]), int(starts[-1])
        files = self.files.slice(first, last - first)
        sources = pa.DictionaryArray.from_arrays(
            pa.array(self.sources[first:last]), pa.array(self.names, pa.string())
        )
        locations = pa.StructArray.from_arrays(
            [sources.cast(pa.string()), *map(one_chunk, files.columns)],
            fields=list(LOCATION),
        )
        offsets = pa.array(starts - first, pa.int32())
        return pa.ListArray.from_arrays(offsets, locations)


@dataclass(frozen=True)
class Pictures:
    """What the embedding tables tell of pictures, beside their vectors.

    Attributes:
        parts: The tables, and how many rows each has.
        keys: The content ids of all rows.
        sides: Width and height in pixels, int32 (rows, 2).
        format_numbers: Which of `formats` each has, int32 (rows,).
        formats: The formats, such as JPEG.
    """

    parts: list[tuple[Path, int]]
    keys: RowKeys
    sides: npt.NDArray[np.int32]
    format_numbers: npt.NDArray[np.int32]
    formats: pa.Array


@dataclass(frozen=True)
class JoinedItems(JoinedRows):
    """The join of manifests and embeddings on the content id.

    Items are sorted by the source and path of their first file.

    Attributes:
        located: Their files.
        pictures: What `rows` are rows of.
        companions: Source -> the companions of its files.
    """

    located: LocatedFiles
    pictures: Pictures
    companions: Mapping[str, Companions]

    def table(self, start: int, end: int) -> pa.Table:
        """Return the columns of ITEM_COLUMNS of items `start` to `end`."""
        rows, pictures = self.rows[start:end], self.pictures
        formats = pa.DictionaryArray.from_arrays(
            pa.array(pictures.format_numbers[rows]), pictures.formats
        )
        width, height = pictures.sides[rows].T
        columns = [
            content_ids_of(self.keys[start:end]),
            self.located.lists(start, end),
            pa.array(width),
            pa.array(height),
            formats.cast(pa.string()),
        ]
        return pa.table(columns, schema=ITEM_COLUMNS)


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
        BuildError: A table holds something else than content ids.
        StoreError: A table is damaged.
    """
    names = sorted(sources)
    companions: dict[str, Companions] = {}
    tables, keys, counts = [_FILE_COLUMNS.empty_table()], [no_keys()], []
    for name in names:
        grouped = read_grouped_files(store, space, name)
        companions[name] = grouped.companions
        files = _sorted_by_path(grouped.files)
        keys.append(keys_of(files["content_id"]))
        tables.append(files.select(_FILE_COLUMNS.names))
        counts.append(len(files))
    pictures = read_pictures(store, space)
    located = LocatedFiles(
        names, np.repeat(np.arange(len(names), dtype=np.int32), counts), pa.concat_tables(tables)
    )
    return _join(np.concatenate(keys), located, pictures, companions)


def _join(
    keys: RowKeys,
    located: LocatedFiles,
    pictures: Pictures,
    companions: Mapping[str, Companions],
) -> JoinedItems:
    """Join files, one by one and sorted by source and path, with pictures, by their contents."""
    # The first row with an id: an image that was embedded twice counts once.
    rows = find(keys, pictures.keys)
    if not (is_embedded := rows >= 0).all():
        keys, rows, located = keys[is_embedded], rows[is_embedded], located.only(is_embedded)
    # An item stands where the first file with its content does.
    first = find(keys, keys)
    is_first = first == np.arange(len(keys))
    if not is_first.all():
        located = located.grouped_by(first)
        keys, rows = keys[is_first], rows[is_first]
    return JoinedItems(keys, rows.astype(np.int64), pictures.parts, located, pictures, companions)


def _sorted_by_path(files: pa.Table) -> pa.Table:
    """Return rows sorted by path; they mostly are, and sorting would copy them."""
    paths = one_chunk(files["path"])
    ascends = pc.all(pc.less_equal(paths[:-1], paths[1:]), min_count=0).as_py()
    return files if ascends else files.sort_by("path")


def read_pictures(store: Store, space: VectorSpace) -> Pictures:
    """Return what all embedding tables of `space` tell of pictures, beside their vectors.

    Raises:
        BuildError: A table holds something else than content ids.
        StoreError: A table is damaged.
    """
    schema = embedding_schema(space.dim)
    formats: dict[str, int] = {}
    parts: list[tuple[Path, int]] = []
    keys, sides, numbers = [no_keys()], [np.empty((0, 2), np.int32)], [np.empty(0, np.int32)]
    for path in store.parts(space):
        table = read_table(path, schema, ["content_id", "width", "height", "format"])
        parts.append((path, len(table)))
        keys.append(keys_of(table["content_id"]))
        sides.append(np.stack([one_chunk(table[name]) for name in ("width", "height")], axis=1))
        encoded = one_chunk(table["format"]).dictionary_encode()
        known = [formats.setdefault(each, len(formats)) for each in encoded.dictionary.to_pylist()]
        numbers.append(np.array(known, np.int32)[encoded.indices])
    return Pictures(
        parts,
        np.concatenate(keys),
        np.concatenate(sides),
        np.concatenate(numbers),
        pa.array(formats, pa.string()),
    )


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
