"""Pictures that people search by: received under limits, decoded in a worker, kept small as WebP.

What is kept is not the upload but the pixels that came out of the worker, written anew: it is safe
to open, and so small that the search for it can be repeated from a link, also after a restart.
"""

import asyncio
from collections.abc import AsyncIterator
from http import HTTPStatus
from pathlib import Path

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.images.decode_pool import Changed, DecodePool, Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.pictures import encoded
from retrieval_pipeline.images.transform import Decoded, Fit
from retrieval_pipeline.storage.atomic import replacing, scratch
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.home import check_home
from retrieval_pipeline.storage.names import PICTURE_NAME
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.web.problems import RequestError
from retrieval_pipeline.web.thumbnails import Run, remove_abandoned

MEGABYTES = 50
MEGAPIXELS = 100
SECONDS = 15.0
# Seconds that a client may take to send a picture.
RECEIVE_SECONDS = 60.0
# More pixels than any encoder looks at.
PIXELS = 768
QUALITY = 90
# Uploads that are received at a time: they share some 200 MB of disk and one decode worker.
AT_ONCE = 4
# Uploads that are kept, of some 100 KB each; the oldest goes first.
KEPT = 200


class Uploads:
    """The pictures that were uploaded last."""

    def __init__(self, settings: Settings, run: Run) -> None:
        self._store = Store(settings.home)
        self._run = run
        limits = Limits.of(settings.images)
        self._limits = Limits(
            pixels=min(limits.pixels, MEGAPIXELS * 1_000_000),
            bytes=min(limits.bytes, MEGABYTES * 1_000_000),
            seconds=min(limits.seconds, SECONDS),
        )
        self._receiving = 0
        self._pool = DecodePool(Fit(PIXELS), self._limits, workers=1)

    async def receive(self, chunks: AsyncIterator[bytes]) -> str:
        """Keep the picture that a client sends; return the content id of the bytes sent.

        Raises:
            RequestError: It is too large, takes too long, or too many come at once; 413, 408, 503.
            ImageError: It is no picture that can be used.
            StoreError: It cannot be written, or `home` is no home.
        """
        if self._receiving >= AT_ONCE:
            raise RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                f"{AT_ONCE} pictures are being received: try again in a moment",
                headers={"retry-after": "5"},
            )
        self._receiving += 1
        try:
            return await self._receive_and_keep(chunks)
        finally:
            self._receiving -= 1

    async def _receive_and_keep(self, chunks: AsyncIterator[bytes]) -> str:
        await self._run(check_home, self._store.home)
        with scratch(self._store.uploads) as received:
            try:
                async with asyncio.timeout(RECEIVE_SECONDS):
                    await self._receive(chunks, received)
            except TimeoutError:
                raise RequestError(
                    HTTPStatus.REQUEST_TIMEOUT, f"not received within {RECEIVE_SECONDS:g} s"
                ) from None
            content_id = await self._run(content_id_of_file, received)
            path = self._store.upload(content_id)
            if await self._run(path.exists):
                await self._run(path.touch)
                return content_id
            outcome = await asyncio.wrap_future(self._pool.submit(Job(received)))
        if isinstance(outcome, ImageError):
            raise outcome
        # Only jobs with a content id can have changed.
        assert not isinstance(outcome, Changed)
        await self._run(self._keep, path, outcome)
        return content_id

    async def _receive(self, chunks: AsyncIterator[bytes], path: Path) -> None:
        size = 0
        with path.open("wb") as file:
            async for chunk in chunks:
                size += len(chunk)
                if size > self._limits.bytes:
                    raise RequestError(
                        HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                        f"a picture may have {self._limits.bytes / 1e6:g} MB at most",
                    )
                file.write(chunk)

    def _keep(self, path: Path, decoded: Decoded) -> None:
        with replacing(path) as temporary:
            temporary.write_bytes(encoded(decoded.pixels, quality=QUALITY))
        kept = [
            file for file in self._store.uploads.glob("*.webp") if PICTURE_NAME.fullmatch(file.name)
        ]
        for file in sorted(kept, key=lambda file: file.stat().st_mtime_ns)[:-KEPT]:
            file.unlink(missing_ok=True)

    def sweep(self) -> None:
        """Remove what killed servers left half-received."""
        remove_abandoned(self._store.uploads)

    def close(self) -> None:
        """End the worker."""
        self._pool.close()
