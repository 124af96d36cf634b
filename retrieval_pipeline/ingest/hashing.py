"""From a file to its content id: files are hashed on several threads, in batches."""

import os
import threading
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import takewhile

from retrieval_pipeline.concurrency import ordered_map
from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.errors import Stopped
from retrieval_pipeline.ingest.manifest import FileRow, Status, version_of, why, within_64_bits
from retrieval_pipeline.paths import to_path
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.remote import Place, Remote

# Several threads overlap reading and hashing; more only compete for the disk and the interpreter.
HASH_THREADS = min(8, os.cpu_count() or 1)
# Files that one thread takes at once: handing over a small file takes longer than reading it.
BATCH_FILES = 64
BATCH_BYTES = 1 << 20
# Requests to an object store are mostly waiting.
REMOTE_THREADS = 32


def hash_files(
    source: Source, rows: Sequence[FileRow], max_bytes: int | None, stop: threading.Event | None
) -> Generator[list[FileRow], None, None]:
    """Yield the rows in batches and in order, each with its content id or the error of its file.

    When `stop` is set, no further batch begins, and those in work end early: rows whose file was
    not read to its end are yielded as they were.
    """
    remote = isinstance(source.path, Remote)
    batches: Iterable[list[FileRow]] = batches_to_hash(rows, 1 if remote else BATCH_FILES)
    if stop is not None:
        batches = takewhile(lambda _: not stop.is_set(), batches)
    yield from ordered_map(
        lambda batch: [_hashed_row(source, row, max_bytes, stop) for row in batch],
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


def _hashed_row(
    source: Source, row: FileRow, max_bytes: int | None, stop: threading.Event | None
) -> FileRow:
    """Read the file; return its row with the content id, with the error, or as it is if stopped."""
    path = source.path / to_path(row.path)
    for _ in range(2):
        try:
            before = file_version(path, follow_symlinks=source.follow_symlinks)
            content = content_id_of_file(
                path, follow_symlinks=source.follow_symlinks, max_bytes=max_bytes, stop=stop
            )
            after = file_version(path, follow_symlinks=source.follow_symlinks)
        except Stopped:
            return row
        except OSError as error:
            return replace(row, status=Status.UNREADABLE, error=why(error))
        if before == after:
            return FileRow(row.path, *after, content)
    return replace(
        row, status=Status.CHANGING, error="changes while it is read: left for the next run"
    )


def file_version(path: Place, *, follow_symlinks: bool = True) -> tuple[int, int]:
    """Return the size in bytes and the time of the last change in ns.

    Raises:
        OSError: The file cannot be asked.
    """
    if isinstance(path, Remote):
        return version_of(path.info())
    status = path.stat(follow_symlinks=follow_symlinks)
    return status.st_size, within_64_bits(status.st_mtime_ns)
