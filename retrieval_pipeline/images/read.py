"""Reading an image file whole, local or remote, within limits."""

import stat
import time
from pathlib import Path

from retrieval_pipeline.images.errors import ImageError, Limits, Reason, out_of_memory, too_large
from retrieval_pipeline.storage.remote import Remote, RemoteError

JPEG = b"\xff\xd8"  # the first bytes of a file
# Nearly all JPEGs have their metadata within so many bytes.
START_BYTES = 512 << 10


def read_bytes(path: str | Path | Remote, limits: Limits) -> bytes:
    """Read an image file whole.

    Raises:
        ImageError: It is no regular file, cannot be read, is too large, or (on a remote file
            system) takes longer than a picture may.
    """
    try:
        if isinstance(path, Remote):
            return _download(path, limits)
        status = Path(path).stat()
        # Opening a pipe would wait for its writer, and a device may act on it.
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(Reason.UNREADABLE, "it is not a regular file")
        _check_bytes(status.st_size, limits)
        with Path(path).open("rb") as file:
            # Not to the end, which a file that grows meanwhile may not have.
            return file.read(status.st_size)
    except OSError as error:
        raise ImageError(Reason.UNREADABLE, error.strerror or str(error)) from None
    except MemoryError:
        raise out_of_memory() from None


def start_of_jpeg(file: Remote) -> bytes | None:
    """Return the first START_BYTES of a remote JPEG, with its metadata; None for another file.

    A file that cannot be read is another one, too: who reads all of it will hear why.
    """
    try:
        start = file.start(START_BYTES)
    except RemoteError:
        return None
    return start if start.startswith(JPEG) else None


def _download(file: Remote, limits: Limits) -> bytes:
    deadline = time.monotonic() + limits.seconds
    info = file.info()
    if not info.is_file:
        raise ImageError(Reason.UNREADABLE, "no such file")
    _check_bytes(info.size or 0, limits)
    data = bytearray()
    for chunk in file.chunks():
        data += chunk
        _check_bytes(len(data), limits)
        if time.monotonic() > deadline:
            raise ImageError(Reason.TIMED_OUT, f"not downloaded within {limits.seconds:g} s")
    return bytes(data)


def _check_bytes(count: int, limits: Limits) -> None:
    if count > limits.bytes:
        raise too_large(f"{count:,} bytes; {limits.bytes:,} are allowed")
