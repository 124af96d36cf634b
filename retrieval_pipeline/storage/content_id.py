"""The identity of a file's content; the crawler and the decode workers compute it alike."""

from collections.abc import Iterator
from pathlib import Path

from blake3 import blake3

from retrieval_pipeline.storage.remote import Remote

# 128 bits: an accidental collision among a billion files has a chance below 1e-20.
DIGEST_BYTES = 16

# Bytes read at once: stays in the processor's cache, and costs few system calls.
CHUNK_BYTES = 1 << 18


def content_id(data: bytes | memoryview) -> str:
    """Return the content id of `data`: the first 128 bits of its BLAKE3, as 32 hex digits."""
    return blake3(data).hexdigest(length=DIGEST_BYTES)


def content_id_of_file(path: str | Path | Remote) -> str:
    """Return the content id of the file at `path`, read as a stream.

    Raises:
        OSError: The file cannot be opened or read.
    """
    hasher = blake3()
    for chunk in path.chunks() if isinstance(path, Remote) else _chunks(path):
        hasher.update(chunk)
    return hasher.hexdigest(length=DIGEST_BYTES)


def _chunks(path: str | Path) -> Iterator[bytes]:
    # Not memory-mapped: a file that shrinks meanwhile would kill the process with SIGBUS.
    with Path(path).open("rb", buffering=0) as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk
