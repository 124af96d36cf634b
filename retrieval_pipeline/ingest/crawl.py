"""Directory -> manifest: list a source, keep the rows of unchanged files, hash the others."""

import os
import threading
import time
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace

from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.errors import SourceError, Stopped
from retrieval_pipeline.facts.groups import beside_pictures
from retrieval_pipeline.ingest.hashing import hash_files
from retrieval_pipeline.ingest.manifest import (
    FileRow,
    Status,
    manifest_metadata,
    read_manifest_metadata,
    read_rows,
    save_rows,
    time_note,
)
from retrieval_pipeline.ingest.sidecars import read_sidecar_rows, save_sidecar_rows
from retrieval_pipeline.ingest.walk import Beside, counted_as, folders_of, walk, walk_paths
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.atomic import explained
from retrieval_pipeline.storage.remote import Remote
from retrieval_pipeline.storage.store import Store

# Hashing a large disk takes hours: the manifest is saved so often, in seconds, so that a killed
# run loses little.
CHECKPOINT_SECONDS = 60.0


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
        published: True if the manifest or the table of sidecars was written, False if nothing had
            changed.
        not_looked_at: Number of other files by extension, in lower case; "" for names without one.
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
    not_looked_at: Mapping[str, int] = field(default_factory=dict)


def update_manifest(
    store: Store,
    source: Source,
    *,
    only: Collection[str] | None = None,
    max_shrink: float = 0.5,
    allow_shrink: bool = False,
    rehash: bool = False,
    max_bytes: int | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> ManifestReport:
    """Bring the manifest of `source` up to date, or only what it says of some paths.

    A file whose path, size and mtime are as before is not read again, unless `rehash` is True. A
    crawl that `stop` interrupts keeps the hashes that it has computed.

    Args:
        store: Holds the manifest.
        source: The source to crawl.
        only: Files and folders that have changed, relative to the source, as a watcher of the file
            system reports them; the rows of all others stay. A name of a folder stands for all that
            is below it. None means everything, as does "", and anything for a remote source.
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
    before = read_rows(store, source.name)
    progress.start(f"looking through {source.name}", None, "files")
    seen: list[FileRow] = []
    beside = Beside()
    partly = only is not None and "" not in only and not isinstance(source.path, Remote)
    walked = walk_paths(source, only or (), store.home, beside) if partly else None
    for row in walked or walk(source, store.home, beside):
        seen.append(row)
        progress.advance()
        if stop is not None and stop.is_set():
            raise Stopped(f"stopped while looking through {source.name}")
    progress.finish()
    if partly:
        scope = _Scope(only or ())
        seen += [row for row in before.values() if row.path not in scope]
    # Of some unreadable entries it is not even known whether they are directories.
    unreadable = {row.path.rstrip("/") for row in seen if row.status is Status.UNREADABLE}
    _keep_what_cannot_be_seen(seen, before.values(), unreadable)
    sidecars = beside.companions
    former = read_sidecar_rows(store, source.name)
    if partly:
        # All companions beside a path were listed.
        sidecars += [
            row for row in former if row.path not in scope and not scope.is_beside(row.path)
        ]
    _keep_what_cannot_be_seen(sidecars, former, unreadable)
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
    with closing(hash_files(source, todo, max_bytes, stop)) as batches:
        for batch in batches:
            for row in batch:
                rows[row.path] = row
                progress.advance()
                if note := row.error or time_note(row):
                    progress.note(f"{source.name}/{row.path}: {note}")
            if time.monotonic() - last_saved > CHECKPOINT_SECONDS:
                save_rows(store, source.name, {**before, **_finished(rows)})
                last_saved = time.monotonic()
    if stop is not None and stop.is_set():
        save_rows(store, source.name, {**before, **_finished(rows)})
        raise Stopped(f"stopped while hashing {source.name}: finished files are kept")
    progress.finish()
    if (lost := _lost(before, rows)) > most:
        raise _shrunk(source, lost, len(before))

    sidecars, others = _divided(sidecars, listed)
    other_sidecars = save_sidecar_rows(store, source.name, sidecars)
    not_looked_at = beside.not_looked_at + others
    metadata = None
    if not partly:
        metadata = manifest_metadata(not_looked_at, source.group)
    published = (
        rows != before
        or not store.manifest(source.name).exists()
        or metadata not in (None, read_manifest_metadata(store, source.name))
    )
    if published:
        save_rows(store, source.name, rows, metadata)
    elif not partly:
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
        unchanged=sum(
            row is before.get(path) or row == before.get(path) for path, row in rows.items()
        ),
        unreadable=sum(row.status in (Status.UNREADABLE, Status.CHANGING) for row in rows.values()),
        too_large=len(large),
        bytes_hashed=sum(row.size for row in hashed if row.content_id is not None),
        published=published or other_sidecars,
        not_looked_at=not_looked_at,
    )


def _keep_what_cannot_be_seen(
    seen: list[FileRow], before: Iterable[FileRow], unreadable: set[str]
) -> None:
    """Add the former rows of files below directories that cannot be listed: they are not gone."""
    if unreadable:
        listed = {row.path for row in seen}
        seen.extend(
            row
            for row in before
            if row.path not in listed and not unreadable.isdisjoint(folders_of(row.path))
        )


def _divided(
    candidates: Sequence[FileRow], pictures: Iterable[str]
) -> tuple[list[FileRow], Counter[str]]:
    """Return the files that belong to a picture, and the number of the others by extension."""
    paths = [row.path for row in candidates]
    belonging = {each.path for many in beside_pictures(pictures, paths).values() for each in many}
    others = (row.path for row in candidates if row.path not in belonging)
    return [row for row in candidates if row.path in belonging], Counter(map(counted_as, others))


class _Scope:
    """Some files and folders of a source, and all that is below them; holds paths as text."""

    def __init__(self, paths: Collection[str]) -> None:
        self._paths = {to_text(path) for path in paths}
        self._folders = {path.rpartition("/")[0] for path in self._paths}
        self._known: dict[str, bool] = {"": "" in self._paths}

    def __contains__(self, path: str) -> bool:
        path = path.rstrip("/")
        return path in self._paths or self._holds(path.rpartition("/")[0])

    def is_beside(self, path: str) -> bool:
        """Return whether one of the paths lies in the same folder."""
        return path.rpartition("/")[0] in self._folders

    def _holds(self, folder: str) -> bool:
        if folder not in self._known:
            self._known[folder] = folder in self
        return self._known[folder]


def _lost(before: dict[str, FileRow], rows: dict[str, FileRow]) -> int:
    """Count the former files that are not readable now, and whose content is nowhere else."""
    gone = [
        row.content_id
        for path, row in before.items()
        if row.content_id is not None and (path not in rows or rows[path].content_id is None)
    ]
    contents = {row.content_id for row in rows.values()} if gone else ()
    return sum(content not in contents for content in gone)


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


def _finished(rows: dict[str, FileRow]) -> dict[str, FileRow]:
    return {path: row for path, row in rows.items() if row.content_id is not None}
