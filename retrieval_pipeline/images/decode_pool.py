"""Decode images in worker processes: a file that hangs, crashes or exhausts one harms no other.

Not `multiprocessing`: it would import the main module (and torch) again in each worker, or fork a
process that has threads, and its pools do not survive the death of a worker.
"""

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from pathlib import Path, PurePath
from queue import LifoQueue
from typing import Any, Self, TypeVar

import numpy as np

from retrieval_pipeline.concurrency import Stage, available_cores
from retrieval_pipeline.config.extensions import RAW
from retrieval_pipeline.facts.model import PictureFacts, ReadFacts, from_json
from retrieval_pipeline.images.device_pool import DevicePool
from retrieval_pipeline.images.errors import ImageError, Limits, Reason
from retrieval_pipeline.images.jpegs import ForDevice, Jpeg
from retrieval_pipeline.images.read import read_bytes, start_of_jpeg
from retrieval_pipeline.images.transform import Decoded, Fit, ImageTransform
from retrieval_pipeline.images.worker import Answer, Lost, Worker
from retrieval_pipeline.storage.remote import Place, Remote
from retrieval_pipeline.views import View, Views

# Jobs that are being decoded or wait for the consumer, per worker: enough that no worker idles
# while an earlier picture is slow. A decoded picture takes 150 to 350 kB.
LOOK_AHEAD = 16

# A worker takes some 50 MB; handing over an image costs this process some 0.15 ms.
MOST_WORKERS = 64

# Seconds after which a consumer that waits for a slow picture hears of it, again and again.
WAIT_SECONDS = 5.0

WORKER_MODULE = "retrieval_pipeline.images.decode_worker"


@dataclass(frozen=True)
class Job:
    """One file to decode.

    Attributes:
        path: The file; bytes that are not UTF-8 are surrogate escapes.
        content_id: Expected content id of its bytes; None accepts any content.
        views: The kind of views to make beside the picture itself, or nothing but these views.
    """

    path: str | Place
    content_id: str | None = None
    views: Views | tuple[View, ...] = "centre"


@dataclass(frozen=True)
class Changed:
    """The file no longer has the content id of the job: it was edited or removed meanwhile."""


Outcome = Decoded | ImageError | Changed
_Result = TypeVar("_Result")

# What a worker is sent for each file: path or bytes, content id, what to do, the views to make, and
# whether its name has the extension of a RAW format.
_Request = ImageTransform | Fit | ReadFacts | ForDevice
_Task = tuple[str | bytes, str | None, _Request, Views | tuple[View, ...], bool]


def default_workers() -> int:
    """Return the number of workers for this machine: one a core, at most MOST_WORKERS.

    An encoder on the same processor shares the cores with them: queues between the two are
    bounded, so that the faster side waits and leaves its cores to the slower one.
    """
    return min(available_cores(), MOST_WORKERS)


class DecodePool:
    """Worker processes that decode the images of many jobs; a context manager.

    Each worker has one job at a time: if it dies or hangs, that file is the cause. If it was killed
    from outside (out-of-memory killer, administrator), the file is tried once more.
    """

    def __init__(
        self,
        transform: ImageTransform | Fit,
        limits: Limits,
        workers: int | None = None,
        look_ahead: int | None = None,
    ) -> None:
        self._transform, self._limits = transform, limits
        self._width = workers or default_workers()
        self._look_ahead = look_ahead or self._width * LOOK_AHEAD
        self._threads = ThreadPoolExecutor(self._width, thread_name_prefix="decode")
        # Workers that run are taken first: a caller with one picture at a time starts only one.
        self._idle: LifoQueue[Worker | None] = LifoQueue()
        for _ in range(self._width):
            self._idle.put(None)
        self._busy = self._computing = 0.0
        self._lock = threading.Lock()
        self._workers: set[Worker] = set()
        self._closed = False
        self._device: DevicePool | None = None
        # Whether the consumer had to wait for its last outcome.
        self._awaited = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run now; workers are started when jobs need them."""
        with self._lock:
            return [worker.pid for worker in self._workers if not worker.ended]

    @property
    def work(self) -> Stage:
        """Time that the workers have spent so far."""
        with self._lock:
            return Stage(self._width, self._busy, self._computing)

    def submit(self, job: Job, transform: ImageTransform | Fit | None = None) -> Future[Outcome]:
        """Decode one image as soon as a worker is free, with `transform` or that of the pool.

        The future raises WorkerError if no worker can be started.
        """
        device = self._device
        if device is not None and transform is None and device.takes(job.views) and self._awaited:
            return device.threads.submit(self._decode_on, device, job)
        return self._threads.submit(self._decode, job, transform or self._transform)

    def use_device(self, number: int) -> None:
        """Let a GPU decode large JPEGs as well, while the consumer waits, if it can.

        It needs the extra `gpu`. What it does not take, or fails at, goes to the workers.
        """
        transform = self._transform
        if self._device is None and isinstance(transform, ImageTransform):
            self._device = DevicePool(transform, number)

    @property
    def device_is_ready(self) -> bool:
        """Whether the process of `use_device` is ready; the first question starts it."""
        return self._device is not None and self._device.takes("centre")

    def map(
        self,
        jobs: Iterable[Job],
        transform: ImageTransform | Fit | None = None,
        waiting: Callable[[list[Job]], None] | None = None,
    ) -> Iterator[tuple[Job, Outcome]]:
        """Start decoding at once; yield each job with its outcome, in the order of the jobs.

        Args:
            jobs: Read at most `look_ahead` jobs ahead of the consumer.
            transform: Instead of that of the pool.
            waiting: Called after every WAIT_SECONDS for which the consumer waits for an outcome,
                with the jobs that are being decoded.

        Raises:
            WorkerError: Workers cannot be started.
        """
        return self._in_order(jobs, lambda job: self.submit(job, transform), waiting)

    def facts(
        self, jobs: Iterable[Job], request: ReadFacts
    ) -> Iterator[tuple[Job, PictureFacts | ImageError]]:
        """Start at once to read facts without decoding pixels; yield them in the order of the jobs.

        The content ids of the jobs are not compared: that would take reading whole files.

        Args:
            jobs: Read at most `look_ahead` jobs ahead of the consumer.
            request: What the files are.

        Raises:
            WorkerError: Workers cannot be started.
        """
        return self._in_order(
            jobs, lambda job: self._threads.submit(self._read_facts, job, request)
        )

    def _in_order(
        self,
        jobs: Iterable[Job],
        submit: Callable[[Job], Future[_Result]],
        waiting: Callable[[list[Job]], None] | None = None,
    ) -> Iterator[tuple[Job, _Result]]:
        """Submit jobs ahead of the consumer; yield each with its result, in order."""
        remaining = iter(jobs)
        pending: deque[tuple[Job, Future[_Result]]] = deque()

        def fill() -> None:
            for job in islice(remaining, self._look_ahead - len(pending)):
                pending.append((job, submit(job)))

        def results() -> Iterator[tuple[Job, _Result]]:
            try:
                while pending:
                    job, future = pending.popleft()
                    while waiting and not wait([future], WAIT_SECONDS).done:
                        waiting([job, *(each for each, other in pending if other.running())])
                    self._awaited = not future.done()
                    result = future.result()
                    fill()
                    yield job, result
            finally:
                for _, future in pending:
                    future.cancel()

        fill()
        return results()

    def close(self) -> None:
        """Kill the workers, busy or not; they hold nothing that could be lost."""
        with self._lock:
            self._closed = True
        for worker in self._workers:
            worker.kill()
        if self._device is not None:
            self._device.close()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.end()

    def _decode(self, job: Job, transform: ImageTransform | Fit) -> Outcome:
        try:
            return _outcome(*self._answer(job, transform))
        except ImageError as error:
            return error

    def _decode_on(self, device: DevicePool, job: Job) -> Outcome:
        """Let a worker look at the header of a file, and the device decode it if it suits."""
        try:
            answer, data = self._answer(job, ForDevice(device.transform))
            if "orientation" not in answer:
                return _outcome(answer, data)
        except ImageError as error:
            return error
        jpeg = Jpeg(bytes(data), answer["orientation"])
        pixels = device.decode(jpeg, answer["width"] * answer["height"])
        if pixels is None:
            return self._decode(job, device.transform)
        facts = None if answer["facts"] is None else _facts(answer["facts"])
        return Decoded(pixels, answer["width"], answer["height"], answer["format"], facts)

    def _read_facts(self, job: Job, request: ReadFacts) -> PictureFacts | ImageError:
        try:
            answer, _ = self._answer(job, request)
        except ImageError as error:
            return error
        return _facts(answer["facts"])

    def _answer(self, job: Job, request: _Request) -> Answer:
        """Return what a worker answers.

        Raises:
            ImageError: The picture cannot be used.
        """
        if isinstance(job.path, Remote):
            # Read here, not by the worker, which has neither a network nor credentials.
            return self._answer_remote(job.path, job, request)
        # The worker has another working directory.
        path = str(Path(job.path).absolute())
        return self._ask((path, job.content_id, request, job.views, _is_named_raw(path)))

    def _answer_remote(self, path: Remote, job: Job, request: _Request) -> Answer:
        named_raw = _is_named_raw(path.name)
        if isinstance(request, ReadFacts) and (start := start_of_jpeg(path)) is not None:
            # The rest is read only if the metadata are longer.
            with contextlib.suppress(ImageError):
                return self._ask((start, None, request, job.views, named_raw))
        try:
            data = read_bytes(path, self._limits)
        except ImageError:
            if job.content_id is not None and not path.exists():
                return {"changed": True}, bytearray()
            raise
        return self._ask((data, job.content_id, request, job.views, named_raw))

    def _ask(self, task: _Task) -> Answer:
        """Give a task to a worker, once more if the first one was killed from outside."""
        try:
            answer = self._attempt(task)
        except Lost as lost:
            if not lost.from_outside:
                raise lost.error from None
            try:
                answer = self._attempt(task)
            except Lost as again:
                raise again.error from None
        if "reason" in answer[0]:
            raise ImageError(Reason(answer[0]["reason"]), answer[0]["detail"])
        return answer

    def _attempt(self, task: _Task) -> Answer:
        worker = self._idle.get()
        try:
            if worker is None:
                worker = self._start()
            began = time.monotonic()
            answer = worker.answer(task, self._limits.seconds)
            with self._lock:
                self._busy += time.monotonic() - began
                self._computing += answer[0]["computing"]
            return answer
        except Lost:
            worker = None
            raise
        finally:
            self._idle.put(worker)

    def _start(self) -> "Worker":
        with self._lock:
            if self._closed:
                raise CancelledError
            self._workers = {worker for worker in self._workers if not worker.ended}
            worker = Worker(WORKER_MODULE)
            self._workers.add(worker)
        worker.prepare(self._limits)
        return worker


def _is_named_raw(path: str) -> bool:
    return PurePath(path).suffix.lower() in RAW


def _outcome(answer: Mapping[str, Any], pixels: bytearray) -> Decoded | Changed:
    if "changed" in answer:
        return Changed()
    own, *further = np.frombuffer(pixels, np.uint8).reshape((-1, *answer["shape"]))
    return Decoded(
        own,
        answer["width"],
        answer["height"],
        answer["format"],
        None if answer["facts"] is None else _facts(answer["facts"]),
        tuple(View(*view) for view in answer["views"]),
        tuple(further),
        answer["views_only"],
    )


def _facts(known: dict[str, Any]) -> PictureFacts:
    try:
        return from_json(known)
    except ValueError:
        # Only a worker that a hostile file has taken over answers so.
        return PictureFacts(problems=("header: impossible facts",))
