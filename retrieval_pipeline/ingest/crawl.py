"""Directory -> manifest: list a source, keep the rows of unchanged files, hash the others."""

import os
import stat
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import takewhile
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa

from retrieval_pipeline.concurrency import ordered_map
from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.errors import SourceError, Stopped, StoreError
from retrieval_pipeline.paths import compile_globs, glob_matches, to_path, to_text
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.atomic import explained
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.remote import Place, Remote, RemoteError
from retrieval_pipeline.storage.schemas import MANIFEST
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import REMEDY, read_manifest, write_table

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo

# Folders that operating systems and NAS devices keep for themselves: no pictures of the user's.
SYSTEM_FOLDERS = frozenset(
    {"$recycle.bin", "system volume information", "@eadir", "#recycle", "lost+found", "__macosx"}
)
# Several threads overlap reading and hashing; more only compete for the disk and the interpreter.
HASH_THREADS = min(8, os.cpu_count() or 1)
# Files that one thread takes at once: handing over a small file takes longer than reading it.
BATCH_FILES = 64
BATCH_BYTES = 1 << 20
# Requests to an object store are mostly waiting.
REMOTE_THREADS = 32
# Hashing a large disk takes hours: the manifest is saved so often, in seconds, so that a killed
# run loses little.
CHECKPOINT_SECONDS = 60.0
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


@dataclass(frozen=True)
class ManifestReport:
    """What a crawl found, in numbers of files that have one of the source's extensions.

    Attributes:
        source: Name of the source.
        files: Files whose content is known, and files that are too large.
        new: Files at paths that the former manifest did not have.
        changed: Files whose content is another one than before.
        removed: Paths of the former manifest that are gone.
        unchanged: Files whose row is as before.
        unreadable: Files and folders that could not be read.
        too_large: Files that have more bytes than the limits allow.
        bytes_hashed: Bytes of the files that were hashed.
        published: True if the manifest was written, False if nothing had changed.
    """

    source: str
    files: int
    new: int
    changed: int
    removed: int
    unchanged: int
    unreadable: int
    too_large: int
    bytes_hashed: int
    published: bool


def update_manifest(
    store: Store,
    source: Source,
    *,
    max_shrink: float = 0.5,
    allow_shrink: bool = False,
    rehash: bool = False,
    max_bytes: int | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> ManifestReport:
    """Bring the manifest of `source` up to date.

    A file whose path, size and mtime are as before is not read again, unless `rehash` is True. A
    crawl that `stop` interrupts keeps the hashes that it has computed.

    Args:
        store: Holds the manifest.
        source: The source to crawl.
        max_shrink: Share of the files that may be gone without confirmation.
        allow_shrink: True to confirm that more of them are gone.
        rehash: True to read every file again.
        max_bytes: A new or changed file with more bytes is not read, and recorded as too large;
            None for no limit.
        progress: Told of files and failures.
        stop: Ends the crawl when it is set, also within a file.

    Raises:
        SourceError: The directory is missing or cannot be listed; or more than the share
            `max_shrink` of its files is gone or unreadable, and `allow_shrink` is False. Files
            that were moved within the source do not count. The manifest keeps all its rows.
        StoreError: The manifest is damaged or cannot be written.
        Stopped: `stop` was set.
    """
    progress = progress or Quiet()
    before = _read_rows(store, source.name)
    progress.start(f"looking through {source.name}", None, "files")
    seen: list[FileRow] = []
    for row in walk(source, skip=store.home):
        seen.append(row)
        progress.advance()
        if stop is not None and stop.is_set():
            raise Stopped(f"stopped while looking through {source.name}")
    progress.finish()
    _keep_what_cannot_be_seen(seen, before)
    listed = {row.path for row in seen}
    removed = [path for path in before if path not in listed]
    most = len(before) if allow_shrink else max_shrink * len(before)
    # Even if every new path is a file that was moved, more files than permitted are gone.
    if len(before) - len(listed) > most:
        raise _shrunk(source, len(removed), len(before))

    rows = {
        row.path: _checked(row, None if rehash else before.get(row.path), max_bytes) for row in seen
    }
    for row in rows.values():
        if row.status is Status.TOO_LARGE and row != before.get(row.path):
            progress.note(f"{source.name}/{row.path}: too large: {row.error}")
    todo = [row for row in rows.values() if row.content_id is None and row.status is Status.OK]
    progress.start(f"hashing {source.name}", len(todo), "files")
    last_saved = time.monotonic()
    with closing(_all_hashed(source, todo, max_bytes, stop)) as batches:
        for batch in batches:
            for row in batch:
                rows[row.path] = row
                progress.advance()
                if note := row.error or _time_note(row):
                    progress.note(f"{source.name}/{row.path}: {note}")
            if time.monotonic() - last_saved > CHECKPOINT_SECONDS:
                _save(store, source.name, {**before, **_finished(rows)})
                last_saved = time.monotonic()
    if stop is not None and stop.is_set():
        _save(store, source.name, {**before, **_finished(rows)})
        raise Stopped(f"stopped while hashing {source.name}: finished files are kept")
    progress.finish()
    if (lost := _lost(before, rows)) > most:
        raise _shrunk(source, lost, len(before))

    published = rows != before
    if published or not store.manifest(source.name).exists():
        _save(store, source.name, rows)
    else:
        # The time of the manifest tells when the source was last crawled.
        with explained(store.manifest(source.name)):
            os.utime(store.manifest(source.name))
    hashed = [rows[row.path] for row in todo]
    large = [row for row in rows.values() if row.status is Status.TOO_LARGE]
    fresh = hashed + [row for row in large if row != before.get(row.path)]
    return ManifestReport(
        source=source.name,
        files=sum(row.content_id is not None for row in rows.values()) + len(large),
        new=sum(row.path not in before for row in fresh),
        changed=sum(
            row.path in before and row.content_id != before[row.path].content_id for row in fresh
        ),
        removed=len(removed),
        unchanged=sum(rows[path] == before.get(path) for path in rows),
        unreadable=sum(row.status in (Status.UNREADABLE, Status.CHANGING) for row in rows.values()),
        too_large=len(large),
        bytes_hashed=sum(row.size for row in hashed if row.content_id is not None),
        published=published,
    )


def walk(source: Source, skip: Path | None = None) -> Iterator[FileRow]:
    """Yield the files of a source in a stable order, without reading them.

    Left out are hidden and system folders, paths that the settings exclude, and sockets, FIFOs and
    devices. A directory that cannot be listed is yielded as an unreadable row. The directory
    `skip` (the home of the tables) is never entered.

    Raises:
        SourceError: The source's own directory is missing or cannot be listed.
    """
    if isinstance(source.path, Remote):
        yield from _walk_remote(source, source.path)
        return
    root = os.fspath(source.path)
    exclude = compile_globs(source.exclude)
    entered = {_identity(root), _identity(os.fspath(skip)) if skip else None}
    pending = [""]
    while pending:
        relative = pending.pop()
        try:
            with os.scandir(os.path.join(root, relative)) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if not relative:
                raise SourceError(_no_root(source, error)) from None
            yield FileRow(to_text(relative), 0, 0, status=Status.UNREADABLE, error=_why(error))
            continue
        folders: list[str] = []
        for entry in entries:
            if _is_private(entry.name):
                continue
            path = f"{relative}{entry.name}"
            if glob_matches(exclude, path):
                continue
            try:
                if not source.follow_symlinks and entry.is_symlink():
                    continue
                if entry.is_dir():
                    # The same directory can be reached twice through links; loops end here.
                    identity = _identity(entry.path)
                    # A directory without an identity cannot be listed either: that will say why.
                    if identity is None or identity not in entered:
                        entered.add(identity)
                        folders.append(f"{path}/")
                    continue
                if os.path.splitext(entry.name)[1].lower() not in source.extensions:
                    continue
                info = entry.stat()
            except OSError as error:
                yield FileRow(to_text(path), 0, 0, status=Status.UNREADABLE, error=_why(error))
                continue
            if stat.S_ISREG(info.st_mode):
                yield FileRow(to_text(path), info.st_size, _within_64_bits(info.st_mtime_ns))
        pending.extend(reversed(folders))


def _walk_remote(source: Source, root: Remote) -> Iterator[FileRow]:
    exclude = compile_globs(source.exclude)
    try:
        listing = root.files()
    except RemoteError as error:
        raise SourceError(_no_root(source, error)) from None
    for info in listing:
        folders = info.path.split("/")
        if any(map(_is_private, folders)) or f".{info.extension}".lower() not in source.extensions:
            continue
        upwards = ("/".join(folders[:depth]) for depth in range(1, len(folders) + 1))
        if exclude is None or not any(glob_matches(exclude, path) for path in upwards):
            yield FileRow(to_text(info.path), *_version_of(info))


def _no_root(source: Source, error: OSError) -> str:
    if isinstance(error, RemoteError):
        return f'source "{source.name}": {error}. Nothing was deleted'
    if isinstance(error, FileNotFoundError):
        what = "does not exist. Is the disk mounted?"
    elif isinstance(error, NotADirectoryError):
        what = "is not a directory."
    else:
        what = f"cannot be listed: {_why(error)}."
    return f'source "{source.name}": {source.path} {what} Nothing was deleted'


def _is_private(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def _identity(path: str) -> tuple[int, int] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino


def _why(error: OSError) -> str:
    return (error.strerror or str(error)).lower()


def _keep_what_cannot_be_seen(seen: list[FileRow], before: dict[str, FileRow]) -> None:
    """Add the former rows of files below directories that cannot be listed: they are not gone."""
    listed = {row.path for row in seen}
    # Of some unreadable entries it is not even known whether they are directories.
    unreadable = {row.path.rstrip("/") for row in seen if row.status is Status.UNREADABLE}
    if unreadable:
        for path, row in before.items():
            if path not in listed and any(folder in unreadable for folder in _folders(path)):
                seen.append(row)


def _folders(path: str) -> Iterator[str]:
    """Yield the folders that a path lies in."""
    while "/" in (path := path.rstrip("/")):
        path = path.rpartition("/")[0]
        yield path


def _lost(before: dict[str, FileRow], rows: dict[str, FileRow]) -> int:
    """Count the former files that are not readable now, and whose content is nowhere else."""
    contents = {row.content_id for row in rows.values()}
    now = {path for path, row in rows.items() if row.content_id is not None}
    return sum(
        row.content_id is not None and path not in now and row.content_id not in contents
        for path, row in before.items()
    )


def _shrunk(source: Source, lost: int, before: int) -> SourceError:
    return SourceError(
        f'source "{source.name}": {lost:,} of {before:,} files are gone from {source.path} or '
        "cannot be read. If the disk is mounted and this is right, run "
        f"`retrieval index --source {source.name} --allow-shrink`; nothing was deleted"
    )


def _checked(row: FileRow, former: FileRow | None, max_bytes: int | None) -> FileRow:
    """Return the former row of a file that is unchanged; mark a file that is too large."""
    if row.status is not Status.OK:
        return row
    if (
        former is not None
        and former.content_id is not None
        and (former.size, former.mtime_ns) == (row.size, row.mtime_ns)
    ):
        return former
    if max_bytes is not None and row.size > max_bytes:
        error = f"{row.size:,} bytes; {max_bytes:,} are allowed"
        return replace(row, status=Status.TOO_LARGE, error=error)
    return row


def _all_hashed(
    source: Source, rows: Sequence[FileRow], max_bytes: int | None, stop: threading.Event | None
) -> Generator[list[FileRow], None, None]:
    """Yield the rows in batches and in order, each as `_hashed` returns it.

    When `stop` is set, no further batch begins, and those in work end early.
    """
    remote = isinstance(source.path, Remote)
    batches: Iterable[list[FileRow]] = batches_to_hash(rows, 1 if remote else BATCH_FILES)
    if stop is not None:
        batches = takewhile(lambda _: not stop.is_set(), batches)
    yield from ordered_map(
        lambda batch: [_hashed(source, row, max_bytes, stop) for row in batch],
        batches,
        threads=REMOTE_THREADS if remote else HASH_THREADS,
    )


def batches_to_hash(rows: Sequence[FileRow], most: int) -> Iterator[list[FileRow]]:
    """Yield batches of at most `most` rows and about BATCH_BYTES of files."""
    batch: list[FileRow] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += row.size
        if len(batch) == most or size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _hashed(
    source: Source, row: FileRow, max_bytes: int | None, stop: threading.Event | None
) -> FileRow:
    """Read the file; return its row with the content id, with the error, or as it is if stopped."""
    path = source.path / to_path(row.path)
    for _ in range(2):
        try:
            before = _version(path, source.follow_symlinks)
            content = content_id_of_file(
                path, follow_symlinks=source.follow_symlinks, max_bytes=max_bytes, stop=stop
            )
            after = _version(path, source.follow_symlinks)
        except Stopped:
            return row
        except OSError as error:
            return replace(row, status=Status.UNREADABLE, error=_why(error))
        if before == after:
            return FileRow(row.path, *after, content)
    return replace(
        row, status=Status.CHANGING, error="changes while it is read: left for the next run"
    )


def _version(path: Place, follow_symlinks: bool) -> tuple[int, int]:
    """Return the size in bytes and the time of the last change in ns."""
    if isinstance(path, Remote):
        return _version_of(path.info())
    status = path.stat(follow_symlinks=follow_symlinks)
    return status.st_size, _within_64_bits(status.st_mtime_ns)


def _version_of(info: "FileInfo") -> tuple[int, int]:
    return info.size or 0, _within_64_bits(info.mtime_ns or 0)


def _within_64_bits(time_ns: int) -> int:
    return min(max(time_ns, FIRST_TIME_NS), LAST_TIME_NS)


def _time_note(row: FileRow) -> str | None:
    """Say that the time of a file cannot be stored, if that is so."""
    if FIRST_TIME_NS < row.mtime_ns < LAST_TIME_NS:
        return None
    year = 1677 if row.mtime_ns < 0 else 2262
    return f"its time of change is stored as of {year}: times beyond that cannot be stored"


def _finished(rows: dict[str, FileRow]) -> dict[str, FileRow]:
    return {path: row for path, row in rows.items() if row.content_id is not None}


def _read_rows(store: Store, source: str) -> dict[str, FileRow]:
    """Return path -> row of the manifest.

    Raises:
        StoreError: The table is damaged, or a later version wrote it.
    """
    table = read_manifest(store, source)
    columns = (table.column(name).to_pylist() for name in MANIFEST.names)
    try:
        return {
            path: FileRow(path, size, mtime_ns, content_id, Status(status), error)
            for path, size, mtime_ns, content_id, status, error in zip(*columns, strict=True)
        }
    except ValueError as error:
        raise StoreError(f"{store.manifest(source)}: {error} of a file: {REMEDY}") from None


def distrust(store: Store, source: str, paths: set[str]) -> None:
    """Have the next crawl hash these files again, whatever their sizes and times.

    Raises:
        StoreError: The manifest cannot be written.
    """
    rows = _read_rows(store, source)
    for path in paths & rows.keys():
        rows[path] = replace(rows[path], mtime_ns=NO_TIME)
    _save(store, source, rows)


def _save(store: Store, source: str, rows: dict[str, FileRow]) -> None:
    columns = [
        pa.array([getattr(row, field.name) for row in rows.values()], field.type)
        for field in MANIFEST
    ]
    table = pa.table(columns, schema=MANIFEST)
    write_table(store.manifest(source), table)
