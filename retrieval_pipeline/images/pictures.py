"""Pictures for those who show or compare them: decoded by workers that this process shares.

Files of pictures are opened here or by a `DecodePool` of one's own, nowhere else: decoding a
hostile file may hang, crash or exhaust the process that does it.
"""

import atexit
import os
import threading
from collections.abc import Iterable, Iterator
from io import BytesIO
from typing import Literal

from retrieval_pipeline.images.decode_pool import Changed, DecodePool, Job, Outcome, default_workers
from retrieval_pipeline.images.errors import ImageError, Limits, Reason
from retrieval_pipeline.images.transform import Decoded, Fit, ImageTransform, Pixels

# Workers that show and compare pictures beside everything else that a process does. Each is started
# when the others are busy, which takes some 0.2 s.
MOST_SHARED_WORKERS = 4

WEBP_QUALITY = 80

_pools: dict[Limits, DecodePool] = {}
_lock = threading.Lock()


def picture(job: Job, transform: ImageTransform | Fit, limits: Limits) -> Decoded:
    """Decode one picture.

    Raises:
        ImageError: It cannot be used, or its file no longer holds the content of the job.
        WorkerError: No worker can be started.
    """
    found = next(pictures([job], transform, limits))
    if isinstance(found, ImageError):
        raise found
    return found


def pictures(
    jobs: Iterable[Job], transform: ImageTransform | Fit, limits: Limits
) -> Iterator[Decoded | ImageError]:
    """Yield the pictures of `jobs`, in order, or the reason why one cannot be used.

    Raises:
        WorkerError: No worker can be started.
    """
    pool = _shared_pool(limits)
    try:
        for _, outcome in pool.map(jobs, transform):
            yield _known(outcome)
    except KeyboardInterrupt:
        # The threads of the pool would wait for their workers, which may hang.
        pool.close()
        _pools.pop(limits, None)
        raise


def _known(outcome: Outcome) -> Decoded | ImageError:
    if isinstance(outcome, Changed):
        return ImageError(Reason.UNREADABLE, "the file is gone or holds another picture by now")
    return outcome


def encoded(
    pixels: Pixels,
    format: Literal["WEBP", "PNG", "JPEG"] = "WEBP",
    quality: int = WEBP_QUALITY,
) -> bytes:
    """Return an image file of RGB pixels, uint8 (height, width, 3); `quality` is not for PNG."""
    from PIL import Image

    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, format, quality=quality)
    return buffer.getvalue()


def _shared_pool(limits: Limits) -> DecodePool:
    with _lock:
        if limits not in _pools:
            workers = min(default_workers(), MOST_SHARED_WORKERS)
            _pools[limits] = DecodePool(Fit(1), limits, workers)
        return _pools[limits]


@atexit.register
def _close_all() -> None:
    for pool in _pools.values():
        pool.close()


def _forget_all() -> None:
    """Leave the workers to the parent of a forked process, which started them."""
    global _lock
    _lock = threading.Lock()
    _pools.clear()


os.register_at_fork(after_in_child=_forget_all)
