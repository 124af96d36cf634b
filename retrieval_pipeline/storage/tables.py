"""Parquet tables: written atomically, and checked against their schema when they are read."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.storage.atomic import replacing
from retrieval_pipeline.storage.reading import is_there, reading
from retrieval_pipeline.storage.schemas import (
    FACTS,
    MANIFEST,
    QUARANTINE,
    SCHEMA_VERSION,
    SIDECARS,
    space_metadata,
)
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace

# Columns whose values repeat.
REPEATED = {
    "status",
    "reason",
    "format",
    "taken_from",
    "camera_make",
    "camera_model",
    "camera",
    "word",
}

REMEDY = "`retrieval verify --repair` rebuilds what can be rebuilt"


def write_table(
    path: Path,
    table: pa.Table,
    space: VectorSpace | None = None,
    more: Mapping[bytes, bytes] | None = None,
) -> None:
    """Write a Parquet table atomically, with its schema version and vector space.

    Args:
        path: The file.
        table: What to write.
        space: The vector space of its vectors, if it has any.
        more: Further metadata of the schema.

    Raises:
        StoreError: The file system refused; what was there before is still there.
    """
    metadata = {**(more or {}), b"schema_version": SCHEMA_VERSION}
    if space is not None:
        metadata |= space_metadata(space)
    with replacing(path) as temporary:
        # Dictionary encoding pays only for strings that repeat.
        pq.write_table(
            table.replace_schema_metadata(metadata),
            temporary,
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=sorted(REPEATED & {*table.schema.names}),
        )


def read_table(
    path: Path,
    schema: pa.Schema,
    columns: list[str] | None = None,
    *,
    remedy: str = REMEDY,
) -> pa.Table:
    """Read a Parquet table and check that it has the columns of `schema`.

    Args:
        path: The file.
        schema: Names, types and order of all its columns.
        columns: Those to read; None reads all.
        remedy: What to do about a file that cannot be used, for the message.

    Raises:
        StoreError: The file is damaged, of another version or has other columns.
        UnreadableError: The file cannot be read, which says nothing about its content.
    """
    with _opened(path, schema, remedy) as file:
        return file.read(columns=columns)


def read_batches(
    path: Path, schema: pa.Schema, columns: list[str], rows: int
) -> Iterator[pa.RecordBatch]:
    """Yield the rows of a Parquet table, some at a time; otherwise as `read_table`.

    Args:
        path: The file.
        schema: Names, types and order of all its columns.
        columns: Those to read.
        rows: How many rows at a time.

    Raises:
        StoreError: The file is damaged, of another version or has other columns.
        UnreadableError: The file cannot be read, which says nothing about its content.
    """
    with _opened(path, schema, REMEDY) as file:
        yield from file.iter_batches(rows, columns=columns)


@contextlib.contextmanager
def _opened(path: Path, schema: pa.Schema, remedy: str) -> Iterator[pq.ParquetFile]:
    try:
        # Not mapped into memory: an I/O error would kill the process.
        with reading(path), pa.OSFile(str(path)) as source:
            file = pq.ParquetFile(source, page_checksum_verification=True)
            found = file.schema_arrow
            version = (found.metadata or {}).get(b"schema_version")
            if version != SCHEMA_VERSION or not found.equals(schema):
                raise StoreError(f"{path}: not a table of this program's version: {remedy}")
            yield file
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path}: damaged ({_first_line(error)}): {remedy}") from None


def read_metadata(path: Path) -> dict[bytes, bytes]:
    """Return the metadata of a table's schema.

    Raises:
        StoreError: The table is damaged.
    """
    try:
        with reading(path):
            return pq.read_schema(path).metadata or {}
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path}: damaged ({_first_line(error)}): {REMEDY}") from None


def read_space(path: Path) -> VectorSpace:
    """Return the vector space that the metadata of a table name.

    Raises:
        StoreError: They name none, or the table is damaged.
    """
    metadata = read_metadata(path)
    try:
        return VectorSpace(
            model=metadata[b"model"].decode(),
            revision=metadata[b"revision"].decode(),
            dim=int(metadata[b"dim"]),
            preprocessing=metadata[b"preprocessing"].decode(),
        )
    except (KeyError, ValueError):
        raise StoreError(f"{path}: does not say which model made it: {REMEDY}") from None


def read_manifest(store: Store, source: str, columns: list[str] | None = None) -> pa.Table:
    """Return the manifest of a source, or some of its columns; no rows if it has none yet.

    Raises:
        StoreError: It is damaged.
    """
    path = store.manifest(source)
    if is_there(path):
        return read_table(path, MANIFEST, columns)
    return MANIFEST.empty_table().select(columns or MANIFEST.names)


def read_sidecars(store: Store, source: str) -> pa.Table:
    """Return the table of the sidecars of a source; an empty table if it has none yet.

    Raises:
        StoreError: It is damaged.
    """
    path = store.sidecars(source)
    return read_table(path, SIDECARS) if is_there(path) else SIDECARS.empty_table()


def read_facts(store: Store, source: str) -> pa.Table:
    """Return the facts of the pictures of a source; an empty table if they were never read.

    Raises:
        StoreError: The table is damaged.
    """
    path = store.facts(source)
    return read_table(path, FACTS) if is_there(path) else FACTS.empty_table()


def read_quarantine(store: Store, space: VectorSpace, source: str) -> pa.Table:
    """Return the quarantine of a source; an empty table if it has none yet.

    Raises:
        StoreError: It is damaged.
    """
    path = store.quarantine(space, source)
    return read_table(path, QUARANTINE) if is_there(path) else QUARANTINE.empty_table()


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]
