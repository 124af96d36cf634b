"""Thumbnails by content id: made once, in the workers that decode for the index, kept as WebP."""

import asyncio
import contextlib
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Literal, Protocol, TypeVar

from cachetools import TTLCache

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.images.decode_pool import Changed, DecodePool, Job, Outcome
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.pictures import encoded
from retrieval_pipeline.images.transform import Decoded, Fit
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.search.vector_index import VectorIndex
from retrieval_pipeline.storage.atomic import replacing
from retrieval_pipeline.storage.names import PICTURE_NAME, TEMPORARY_NAME
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.web.files import GoneError, file_of, source_of

Size = Literal["small", "large", "huge"]
# Longest edges in pixels: sharp on a card, on most of a screen, and enlarged there.
PIXELS: dict[Size, int] = {"small": 480, "large": 1600, "huge": 4096}
QUALITY = 80
# One worker decodes for whoever looks at a single picture, so that he does not wait for a grid.
WORKERS: dict[Size, int | None] = {"small": None, "large": 1, "huge": 1}

# Seconds for which a picture that could not be shown is not tried again, and how many of them.
PAUSE = 30.0
MOST_FAILURES = 10_000
# Seconds after which a temporary file has lost its writer.
ABANDONED = 3_600.0
# Pictures of which an index is asked at a time whether it has them.
SWEPT_TOGETHER = 1_000

T = TypeVar("T")

logger = logging.getLogger(__name__)


class Run(Protocol):
    """Calls a function on a worker thread."""

    def __call__(self, function: Callable[..., T], /, *args: object) -> Awaitable[T]:
        """Call it."""


class Thumbnails:
    """The cache of thumbnails, and the pools of workers that fill it."""

    def __init__(self, settings: Settings, run: Run) -> None:
        self.settings = settings
        self._store = Store(settings.home)
        self._run = run
        limits = Limits.of(settings.images)
        self._pools = {
            size: DecodePool(Fit(PIXELS[size]), limits, workers=WORKERS[size]) for size in PIXELS
        }
        self._making: dict[Path, asyncio.Task[Path | bytes]] = {}
        self._failures: TTLCache[Path, GoneError] = TTLCache(MOST_FAILURES, PAUSE)

    async def get(self, content_id: str, size: Size, locations: Sequence[Location]) -> Path | bytes:
        """Return the thumbnail of a picture; whoever asks meanwhile waits for the same making.

        Returns:
            The WebP file, or its bytes where it cannot be kept: home is full, or read-only.

        Raises:
            GoneError: No file holds the picture any more, or it cannot be decoded.
            WorkerError: There are no workers.
        """
        for location in locations:
            with contextlib.suppress(GoneError):
                source_of(self.settings, location)
                break
        else:
            raise GoneError("its source is not in the settings any more")
        path = self._store.thumbnail(content_id, size)
        if await self._run(path.exists):
            return path
        if (failure := self._failures.get(path)) is not None:
            raise failure
        task = self._making.get(path)
        if task is None:
            task = asyncio.create_task(self._make(path, content_id, size, locations))
            self._making[path] = task
            task.add_done_callback(lambda _: self._making.pop(path, None))
        # One of those who wait may go away; the others still want it.
        return await asyncio.shield(task)

    async def _make(
        self, path: Path, content_id: str, size: Size, locations: Sequence[Location]
    ) -> Path | bytes:
        problem = GoneError("the file is not there any more")
        for location in locations:
            try:
                file = await self._run(file_of, self.settings, location)
            except GoneError as error:
                problem = error
                continue
            outcome = await self._decode(Job(file, content_id), size)
            if isinstance(outcome, Decoded):
                return await self._run(_kept, path, outcome)
            if isinstance(outcome, Changed):
                problem = GoneError("the file holds another picture by now")
            else:
                problem = GoneError(str(outcome))
        self._failures[path] = problem
        raise problem

    async def _decode(self, job: Job, size: Size) -> Decoded | ImageError | Changed:
        outcome: Outcome = await asyncio.wrap_future(self._pools[size].submit(job))
        return outcome

    def sweep(self, index: VectorIndex) -> None:
        """Remove the thumbnails of pictures that are not in the index any more.

        Raises:
            EngineError: The engine did not say which pictures it has.
        """
        remove_abandoned(self._store.thumbnails)
        kept: dict[str, list[Path]] = {}
        for path in self._store.thumbnails.glob("*/*/*.webp"):
            # Temporary files have writers, and files of other names are not the server's.
            if PICTURE_NAME.fullmatch(path.name):
                kept.setdefault(path.stem, []).append(path)
        ids = list(kept)
        for start in range(0, len(ids), SWEPT_TOGETHER):
            asked = ids[start : start + SWEPT_TOGETHER]
            there = {record.content_id for record in index.records(index.find(asked))}
            for path in (path for each in asked if each not in there for path in kept[each]):
                with contextlib.suppress(OSError):
                    path.unlink()

    def close(self) -> None:
        """End the workers."""
        for pool in self._pools.values():
            pool.close()


def _kept(path: Path, decoded: Decoded) -> Path | bytes:
    """Write a thumbnail and return its path, or its bytes if it cannot be written."""
    thumbnail = encoded(decoded.pixels, quality=QUALITY)
    try:
        with replacing(path) as temporary:
            temporary.write_bytes(thumbnail)
    except StoreError as error:
        logger.warning("thumbnails are not kept: %s", error)
        return thumbnail
    return path


def remove_abandoned(directory: Path) -> None:
    """Remove temporary files that lost their writer."""
    found = (path for path in directory.glob("**/*") if TEMPORARY_NAME.fullmatch(path.name))
    for path in found:
        # Another server may be quicker.
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                path.unlink()
