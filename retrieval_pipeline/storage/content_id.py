"""The content id: a hash of a file's bytes, as the crawler and the decode workers compute it."""

import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from retrieval_pipeline.errors import Stopped
from retrieval_pipeline.storage.remote import Remote

# 128 bits: an accidental collision among a billion files has a chance below 1e-20.
DIGEST_BYTES = 16

# Bytes per read: small enough for the processor's cache, large enough for few system calls.
CHUNK_BYTES = 1 << 18


def content_id(data: bytes | memoryview) -> str:
    """Return the content id of `data`: the first 128 bits of its BLAKE3, as 32 hex digits."""
    return blake3(data).hexdigest(length=DIGEST_BYTES)


def content_id_of_file(
    path: str | Path | Remote,
    *,
    follow_symlinks: bool = True,
    max_bytes: int | None = None,
    stop: threading.Event | None = None,
) -> str:
    """Return the content id of the file at `path`, which is read in pieces.

    Args:
        path: A regular file, or an object of a remote file system.
        follow_symlinks: False to refuse a symbolic link at `path`.
        max_bytes: Refuse a file as soon as more bytes than this were read.
        stop: Ends the reading when it is set.

    Raises:
        OSError: The file cannot be opened or read, is not a regular file, or has more than
            `max_bytes`.
        Stopped: `stop` was set.
    """
    hasher = blake3()
    count = 0
    for chunk in path.chunks() if isinstance(path, Remote) else _chunks(path, follow_symlinks):
        if stop is not None and stop.is_set():
            raise Stopped(f"stopped while reading {path}")
        count += len(chunk)
        if max_bytes is not None and count > max_bytes:
            raise OSError(f"it has grown to more than {max_bytes:,} bytes while it was read")
        hasher.update(chunk)
    return hasher.hexdigest(length=DIGEST_BYTES)


def _chunks(path: str | Path, follow_symlinks: bool) -> Iterator[bytes]:
    # Without O_NONBLOCK, opening a FIFO that took the place of the file would wait for a writer.
    # Not memory-mapped: if the file shrank meanwhile, SIGBUS would kill the process.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    descriptor = os.open(path, flags if follow_symlinks else flags | os.O_NOFOLLOW)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise OSError("it is not a regular file")
        while chunk := os.read(descriptor, CHUNK_BYTES):
            yield chunk
    finally:
        os.close(descriptor)
