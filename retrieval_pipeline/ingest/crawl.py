"""Directory -> manifest: walk a source, keep what is unchanged, hash what is new."""

import os
import stat
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path

import pyarrow as pa

from retrieval_pipeline.concurrency import ordered_map
from retrieval_pipeline.config import Source
from retrieval_pipeline.errors import SourceError, Stopped
from retrieval_pipeline.paths import compile_globs, glob_matches, to_path, to_text
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.remote import Place, Remote, RemoteError
from retrieval_pipeline.storage.schemas import MANIFEST
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, write_table

# What systems and devices keep for themselves; nobody's pictures.
SYSTEM_FOLDERS = frozenset(
    {"$recycle.bin", "system volume information", "@eadir", "#recycle", "lost+found", "__macosx"}
)
# Reading overlaps with hashing; more threads only fight for the disk and the interpreter.
HASH_THREADS = min(8, os.cpu_count() or 1)
# Files that one thread takes at once: handing over a small one takes longer than reading it.
BATCH_FILES = 64
BATCH_BYTES = 1 << 20
# A request to an object store is mostly waiting.
REMOTE_THREADS = 32
# Hashing a large disk takes hours: this much of it, in seconds, is lost at the most.
CHECKPOINT_SECONDS = 60.0
# Time of a file in the manifest that no file has: the next crawl hashes it again.
NO_TIME = -1


class Status(StrEnum):
    """What became of one path of a source."""

    OK = "ok"
    UNREADABLE = "unreadable"
    CHANGING = "changing"


@dataclass(frozen=True, slots=True)
class FileRow:
    """One row of a manifest; `path` is relative to the source, as text of `paths.to_text`."""

    path: str
    size: int
    mtime_ns: int
    content_id: str | None = None
    status: Status = Status.OK
    error: str | None = None


@dataclass(frozen=True)
class ManifestReport:
    """What a crawl found; the counts are files of the wanted extensions."""

    source: str
    files: int
    new: int
    changed: int
    removed: int
    unchanged: int
    unreadable: int
    bytes_hashed: int
    published: bool


def update_manifest(
    store: Store,
    source: Source,
    *,
    max_shrink: float = 0.5,
    allow_shrink: bool = False,
    rehash: bool = False,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> ManifestReport:
    """Bring the manifest of `source` up to date.

    A file whose path, size and mtime are as before is not read again, unless `rehash`. A crawl
    that `stop` interrupts keeps what it has hashed.

    Raises:
        SourceError: The directory is missing, unreadable, or lost more than the share
            `max_shrink` of its files, which `allow_shrink` confirms; moved ones are not lost, and
            unreadable ones are. The manifest keeps every row that it had.
        StoreError: The manifest is damaged or cannot be written.
        Stopped: `stop` was set.
    """
    progress = progress or Quiet()
    before = {row.path: row for row in _rows(read_manifest(store, source.name))}
    progress.start(f"looking through {source.name}", None, "files")
    seen: list[FileRow] = []
    for row in walk(source, skip=store.home):
        seen.append(row)
        progress.advance()
    progress.finish()
    _keep_what_cannot_be_seen(seen, before)
    listed = {row.path for row in seen}
    removed = [path for path in before if path not in listed]
    most = len(before) if allow_shrink else max_shrink * len(before)
    # Even if all new files are old ones that were moved, more than that are gone.
    if len(before) - len(listed) > most:
        raise _shrunk(source, len(removed), len(before))

    rows = {row.path: _known(row, None if rehash else before.get(row.path)) for row in seen}
    todo = [row for row in rows.values() if row.content_id is None and row.status is Status.OK]
    progress.start(f"hashing {source.name}", len(todo), "files")
    last_saved = time.monotonic()
    for batch in _all_hashed(source.path, todo):
        for row in batch:
            rows[row.path] = row
            progress.advance()
            if row.error:
                progress.note(f"{source.name}/{row.path}: {row.error}")
        stopping = stop is not None and stop.is_set()
        if stopping or time.monotonic() - last_saved > CHECKPOINT_SECONDS:
            _save(store, source.name, {**before, **_finished(rows)})
            last_saved = time.monotonic()
        if stopping:
            raise Stopped(f"stopped while hashing {source.name}: what was hashed is kept")
    progress.finish()
    if (lost := _lost(before, rows)) > most:
        raise _shrunk(source, lost, len(before))

    published = rows != before
    if published or not store.manifest(source.name).exists():
        _save(store, source.name, rows)
    else:
        # Its time is that of the last crawl.
        os.utime(store.manifest(source.name))
    fresh = [rows[row.path] for row in todo]
    return ManifestReport(
        source=source.name,
        files=sum(row.content_id is not None for row in rows.values()),
        new=sum(row.path not in before for row in fresh),
        changed=sum(
            row.path in before and row.content_id != before[row.path].content_id for row in fresh
        ),
        removed=len(removed),
        unchanged=sum(rows[path] == before.get(path) for path in rows),
        unreadable=sum(row.status is not Status.OK for row in rows.values()),
        bytes_hashed=sum(row.size for row in fresh),
        published=published,
    )


def walk(source: Source, skip: Path | None = None) -> Iterator[FileRow]:
    """Yield the files of a source in a stable order, without reading them.

    Hidden and system folders, what the settings exclude, sockets, fifos and devices are left out;
    a directory that cannot be listed is yielded as an unreadable row. `skip` is a directory that
    is never entered (the home of the tables).

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
                    # Where that is not known, listing it will tell why.
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
                yield FileRow(to_text(path), info.st_size, info.st_mtime_ns)
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
            yield FileRow(to_text(info.path), info.size, info.mtime_ns or 0)


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
    """Add the former rows below directories that cannot be listed now: they are not gone."""
    listed = {row.path for row in seen}
    for folder in [row.path for row in seen if row.path.endswith("/")]:
        hidden = (path for path in before if path.startswith(folder) and path not in listed)
        seen.extend(before[path] for path in hidden)


def _lost(before: dict[str, FileRow], rows: dict[str, FileRow]) -> int:
    """Count the former files whose path holds no content now, and whose content is nowhere else."""
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


def _known(row: FileRow, former: FileRow | None) -> FileRow:
    same = (
        former is not None
        and former.content_id is not None
        and (former.size, former.mtime_ns) == (row.size, row.mtime_ns)
        and row.status is Status.OK
    )
    return former if same and former is not None else row


def _all_hashed(root: Place, rows: Sequence[FileRow]) -> Iterator[list[FileRow]]:
    """Yield all rows, as `_hashed` returns them, in their order."""
    remote = isinstance(root, Remote)
    yield from ordered_map(
        lambda batch: [_hashed(root, row) for row in batch],
        _batches(rows, 1 if remote else BATCH_FILES),
        threads=REMOTE_THREADS if remote else HASH_THREADS,
    )


def _batches(rows: Sequence[FileRow], most: int) -> Iterator[list[FileRow]]:
    """Cut rows into batches of at most so many; one ends where it gets large."""
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


def _hashed(root: Place, row: FileRow) -> FileRow:
    """Return the row with its content id, or with what went wrong."""
    path = root / to_path(row.path)
    for _ in range(2):
        try:
            before = _version(path)
            content = content_id_of_file(path)
            after = _version(path)
        except OSError as error:
            return replace(row, status=Status.UNREADABLE, error=_why(error))
        if before == after:
            return FileRow(row.path, *after, content)
    return replace(
        row, status=Status.CHANGING, error="changes while it is read: left for the next run"
    )


def _version(path: Place) -> tuple[int, int]:
    """Return size and time of change, ns."""
    if isinstance(path, Remote):
        info = path.info()
        return info.size or 0, info.mtime_ns or 0
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):
        # It was replaced since it was listed; opening a pipe would wait for its writer.
        raise OSError("it is not a regular file")
    return status.st_size, status.st_mtime_ns


def _finished(rows: dict[str, FileRow]) -> dict[str, FileRow]:
    return {path: row for path, row in rows.items() if row.content_id is not None}


def _rows(table: pa.Table) -> Iterator[FileRow]:
    columns = (table.column(name).to_pylist() for name in MANIFEST.names)
    for path, size, mtime_ns, content_id, status, error in zip(*columns, strict=True):
        yield FileRow(path, size, mtime_ns, content_id, Status(status), error)


def distrust(store: Store, source: str, paths: set[str]) -> None:
    """Have the next crawl hash these files again, whatever their sizes and times.

    Raises:
        StoreError: The manifest cannot be written.
    """
    rows = {row.path: row for row in _rows(read_manifest(store, source))}
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
