"""The manifest of a source: a row for each of its files, and how the rows are read and written."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from operator import attrgetter
from typing import TYPE_CHECKING

import pyarrow as pa

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.storage.reading import is_there
from retrieval_pipeline.storage.schemas import GROUPED, MANIFEST, NOT_LOOKED_AT
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import REMEDY, read_manifest, read_metadata, write_table

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

# File systems store times that do not fit into the 64 bits of the manifest, which end in 1677 and
# 2262: those are stored as the nearest of these two. The range is symmetric, so that a time can be
# negated.
LAST_TIME_NS = 2**63 - 1
FIRST_TIME_NS = -LAST_TIME_NS
# Time of a file in the manifest that no file has: the next crawl hashes it again.
NO_TIME = -1


class Status(StrEnum):
    """What became of one path of a source; only an `ok` file has a content id.

    ok: the content is known.
    unreadable: the file system does not hand out the file or the folder.
    changing: the file changed while it was read.
    too_large: the file has more bytes than the limits allow, and was not read.
    """

    OK = "ok"
    UNREADABLE = "unreadable"
    CHANGING = "changing"
    TOO_LARGE = "too_large"


# Looking one up is faster than making it, which counts for a million rows.
_STATUSES = {each.value: each for each in Status}


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row of a manifest.

    Attributes:
        path: Relative to the source, as `paths.to_text` writes it; a folder that cannot be listed
            ends with "/".
        size: Bytes.
        mtime_ns: Time of the last change, nanoseconds since 1970, from FIRST_TIME_NS to
            LAST_TIME_NS.
        content_id: Hash of the content; None if it is not known (yet).
        status: Whether the content could be read.
        error: Why not; None for a file that was read.
    """

    path: str
    size: int
    mtime_ns: int
    content_id: str | None = None
    status: Status = Status.OK
    error: str | None = None


def version_of(info: "FileInfo") -> tuple[int, int]:
    """Return the size in bytes and the time of the last change in ns."""
    return info.size or 0, within_64_bits(info.mtime_ns or 0)


def within_64_bits(time_ns: int) -> int:
    """Return a time in ns as the manifest can hold it: from FIRST_TIME_NS to LAST_TIME_NS."""
    return min(max(time_ns, FIRST_TIME_NS), LAST_TIME_NS)


def time_note(row: FileRow) -> str | None:
    """Say that the time of a file cannot be stored, if that is so."""
    if FIRST_TIME_NS < row.mtime_ns < LAST_TIME_NS:
        return None
    year = 1677 if row.mtime_ns < 0 else 2262
    return f"its time of change is stored as of {year}: times beyond that cannot be stored"


def why(error: OSError) -> str:
    """Return what the file system says against a file, to be read in a sentence."""
    return (error.strerror or str(error)).lower()


def read_rows(store: Store, source: str) -> dict[str, FileRow]:
    """Return path -> row of the manifest.

    Raises:
        StoreError: The table is damaged, or a later version wrote it.
    """
    table = read_manifest(store, source)
    columns = (table.column(name).to_pylist() for name in MANIFEST.names)
    try:
        return {
            path: FileRow(path, size, mtime_ns, content_id, _STATUSES[status], error)
            for path, size, mtime_ns, content_id, status, error in zip(*columns, strict=True)
        }
    except KeyError as error:
        raise StoreError(
            f"{store.manifest(source)}: {error} is not a valid Status of a file: {REMEDY}"
        ) from None


def distrust(store: Store, source: str, paths: set[str]) -> None:
    """Have the next crawl hash these files again, whatever their sizes and times.

    Raises:
        StoreError: The manifest cannot be written.
    """
    rows = read_rows(store, source)
    for path in paths & rows.keys():
        rows[path] = replace(rows[path], mtime_ns=NO_TIME)
    save_rows(store, source, rows)


def save_rows(
    store: Store,
    source: str,
    rows: dict[str, FileRow],
    metadata: Mapping[bytes, bytes] | None = None,
) -> None:
    """Write the manifest of a source.

    Args:
        store: Where to.
        source: Name of the source.
        rows: The rows, by path.
        metadata: What `manifest_metadata` returns; None keeps those of the former manifest.

    Raises:
        StoreError: It cannot be written.
    """
    if metadata is None:
        metadata = read_manifest_metadata(store, source)
    values = [*zip(*map(attrgetter(*MANIFEST.names), rows.values()), strict=True)]
    columns = [
        pa.array(values[number] if values else (), field.type)
        for number, field in enumerate(MANIFEST)
    ]
    table = pa.table(columns, schema=MANIFEST)
    write_table(store.manifest(source), table, more=metadata)


def manifest_metadata(not_looked_at: Mapping[str, int], grouped: bool) -> dict[bytes, bytes]:
    """Return what a manifest says beside its rows.

    Args:
        not_looked_at: Number of other files by extension; "" for names without one.
        grouped: Whether files of one photograph are one item.
    """
    counts = json.dumps(dict(sorted(not_looked_at.items())))
    return {NOT_LOOKED_AT: counts.encode(), GROUPED: json.dumps(grouped).encode()}


def read_manifest_metadata(store: Store, source: str) -> dict[bytes, bytes]:
    """Return what a manifest says beside its rows; nothing if there is none.

    Raises:
        StoreError: The table is damaged.
    """
    path = store.manifest(source)
    found = read_metadata(path) if is_there(path) else {}
    return {key: found[key] for key in (NOT_LOOKED_AT, GROUPED) if key in found}


def read_not_looked_at(store: Store, source: str) -> dict[str, int]:
    """Return how many files of a source are not looked at, by extension; "" for names without one.

    Empty for a manifest that an earlier version wrote, or that is not there yet.

    Raises:
        StoreError: The table is damaged.
    """
    try:
        found = json.loads(read_manifest_metadata(store, source).get(NOT_LOOKED_AT, b"{}"))
        return {str(extension): int(count) for extension, count in found.items()}
    except (AttributeError, TypeError, ValueError):
        raise StoreError(
            f"{store.manifest(source)}: does not say how many files were not looked at: {REMEDY}"
        ) from None
