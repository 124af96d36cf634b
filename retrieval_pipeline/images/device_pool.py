"""Decode JPEGs on a GPU, in a process of its own: a file that takes it down harms no other."""

import logging
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from importlib.util import find_spec
from queue import Empty, SimpleQueue

import numpy as np

from retrieval_pipeline.images.jpegs import Jpeg, suits_device
from retrieval_pipeline.images.transform import ImageTransform, Pixels
from retrieval_pipeline.images.worker import Lost, Worker, WorkerError
from retrieval_pipeline.views import View, Views

logger = logging.getLogger(__name__)

MODULE = "retrieval_pipeline.images.device_worker"
# Which device that process may see; all its other variables are those of a decode worker.
VARIABLES = ("CUDA_VISIBLE_DEVICES", "CUDA_DEVICE_ORDER")

# Files and pixels decoded at once: 0.8 GB of the device's memory.
BATCH = 64
BATCH_PIXELS = 250_000_000
# Files that wait or are decoded: two batches, so that one is read while the other is decoded.
WAITING = 2 * BATCH
SECONDS = 60.0
# Files that come one by one are gathered, so long after each.
GATHER_SECONDS = 0.01
# A process that ends so often is not started again.
MOST_LOSSES = 3

_Waiting = tuple[Jpeg, int, "Future[Pixels | None]"]


class DevicePool:
    """Hands batches of JPEGs to one process that decodes on a GPU.

    Attributes:
        transform: What becomes of the pictures.
        threads: On which the callers of `decode` wait.
    """

    def __init__(self, transform: ImageTransform, device: int) -> None:
        self.transform, self._number = transform, device
        self.threads = ThreadPoolExecutor(WAITING, thread_name_prefix="device")
        self._waiting: SimpleQueue[_Waiting | None] = SimpleQueue()
        self._worker: Worker | None = None
        self._lock = threading.Lock()
        self._count = 0
        self._server: threading.Thread | None = None
        self._ready = False
        installed = find_spec("nvidia") is not None and find_spec("nvidia.nvimgcodec") is not None
        self._closed = not (installed and suits_device(transform))

    def takes(self, views: Views | tuple[View, ...]) -> bool:
        """Tell whether it has room for another file of which such views are wanted.

        The first call starts the process; until that is ready, which takes seconds, there is none.
        """
        if self._closed:
            return False
        if self._server is None:
            self._server = threading.Thread(target=self._serve, daemon=True)
            self._server.start()
        return self._ready and views == "centre" and self._count < WAITING

    def decode(self, jpeg: Jpeg, pixels: int) -> Pixels | None:
        """Decode a JPEG of so many pixels, and apply the transform; None if that failed."""
        future: Future[Pixels | None] = Future()
        with self._lock:
            if self._closed:
                return None
            self._count += 1
            self._waiting.put((jpeg, pixels, future))
        try:
            return future.result()
        finally:
            with self._lock:
                self._count -= 1

    def close(self) -> None:
        """End the process, busy or not; files that wait are left to the workers."""
        with self._lock:
            self._closed = True
            self._waiting.put(None)
            if self._worker is not None:
                self._worker.kill()
        if self._server is not None:
            self._server.join()
        self.threads.shutdown(cancel_futures=True)

    def _serve(self) -> None:
        """Decode batch after batch, until the pool is closed or the process was lost too often."""
        last: Exception | None = None
        for _ in range(MOST_LOSSES):
            try:
                worker = self._start()
                if worker is None:
                    break
                self._decode_with(worker)
                worker.end()
                break
            except (Lost, WorkerError) as error:
                self._ready = False
                last = error
                if isinstance(error, WorkerError):
                    break
        with self._lock:
            if last is not None and not self._closed:
                logger.warning("pictures are no longer decoded on the GPU: %s", last)
            self._closed = True
        with suppress(Empty):
            while True:
                left = self._waiting.get_nowait()
                if left is not None:
                    left[2].set_result(None)

    def _start(self) -> Worker | None:
        """Start a process; None if the pool is closed."""
        with self._lock:
            if self._closed:
                return None
            self._worker = worker = Worker(MODULE, VARIABLES)
        worker.prepare((self.transform, self._number))
        self._ready = True
        return worker

    def _decode_with(self, worker: Worker) -> None:
        """Decode until the pool is closed.

        Raises:
            Lost: The process ended. The files that it had are left to the workers.
        """
        while (batch := self._batch()) is not None:
            results: list[Pixels | None] = [None] * len(batch)
            try:
                answer, data = worker.answer([jpeg for jpeg, _, _ in batch], SECONDS)
                pixels = iter(np.frombuffer(data, np.uint8).reshape((-1, *answer["shape"])))
                results = [next(pixels) if decoded else None for decoded in answer["decoded"]]
            finally:
                for (_, _, future), result in zip(batch, results, strict=True):
                    future.set_result(result)

    def _batch(self) -> list[_Waiting] | None:
        """Take the files that wait, as many as are decoded at once; None if the pool is closed."""
        batch: list[_Waiting] = []
        pixels = 0
        while len(batch) < BATCH and pixels < BATCH_PIXELS:
            try:
                another = self._waiting.get(timeout=GATHER_SECONDS if batch else None)
            except Empty:
                break
            if another is None:
                self._waiting.put(None)  # for the next call
                return batch or None
            batch.append(another)
            pixels += another[1]
        return batch
