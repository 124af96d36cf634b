"""Decode images in worker processes: a file that hangs, crashes or exhausts one harms no other.

Not `multiprocessing`: it would import the main module (and torch) again in each worker, or fork a
process that has threads, and its pools do not survive the death of a worker.
"""

import contextlib
import json
import os
import pickle
import select
import signal
import subprocess
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
from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.facts.model import PictureFacts, ReadFacts, from_json
from retrieval_pipeline.images.errors import ImageError, Limits, Reason
from retrieval_pipeline.images.frames import HEADER
from retrieval_pipeline.images.read import read_bytes, start_of_jpeg
from retrieval_pipeline.images.transform import Decoded, Fit, ImageTransform
from retrieval_pipeline.processes import child_options, python_command
from retrieval_pipeline.storage.remote import Place, Remote
from retrieval_pipeline.views import View, Views

# Jobs that are being decoded or wait for the consumer, per worker: enough that no worker idles
# while an earlier picture is slow. A decoded picture takes 150 to 350 kB.
LOOK_AHEAD = 16

# A worker takes some 50 MB; handing over an image costs this process some 0.15 ms.
MOST_WORKERS = 64

# Seconds after which a consumer that waits for a slow picture hears of it, again and again.
WAIT_SECONDS = 5.0

# Longest time to start a worker, and for a killed one to be gone: on a sound machine both take
# less than a second.
START_SECONDS = 60.0
END_SECONDS = 5.0

WORKER_MODULE = "retrieval_pipeline.images.decode_worker"


class WorkerError(RetrievalError):
    """Decode workers cannot be started."""


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
_Request = ImageTransform | Fit | ReadFacts
_Task = tuple[str | bytes, str | None, _Request, Views | tuple[View, ...], bool]
# What it answers: a JSON object, and the pixels if there are any.
_Answer = tuple[dict[str, Any], bytearray]


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
        return self._threads.submit(self._decode, job, transform or self._transform)

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
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.end()

    def _decode(self, job: Job, transform: ImageTransform | Fit) -> Outcome:
        try:
            return _outcome(*self._answer(job, transform))
        except ImageError as error:
            return error

    def _read_facts(self, job: Job, request: ReadFacts) -> PictureFacts | ImageError:
        try:
            answer, _ = self._answer(job, request)
        except ImageError as error:
            return error
        return _facts(answer["facts"])

    def _answer(self, job: Job, request: _Request) -> _Answer:
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

    def _answer_remote(self, path: Remote, job: Job, request: _Request) -> _Answer:
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

    def _ask(self, task: _Task) -> _Answer:
        """Give a task to a worker, once more if the first one was killed from outside."""
        try:
            answer = self._attempt(task)
        except _Lost as lost:
            if not lost.from_outside:
                raise lost.error from None
            try:
                answer = self._attempt(task)
            except _Lost as again:
                raise again.error from None
        if "reason" in answer[0]:
            raise ImageError(Reason(answer[0]["reason"]), answer[0]["detail"])
        return answer

    def _attempt(self, task: _Task) -> _Answer:
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
        except _Lost:
            worker = None
            raise
        finally:
            self._idle.put(worker)

    def _start(self) -> "Worker":
        with self._lock:
            if self._closed:
                raise CancelledError
            self._workers = {worker for worker in self._workers if not worker.ended}
            worker = Worker()
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


class _Lost(Exception):  # noqa: N818
    """A worker died before it answered its job."""

    def __init__(self, reason: Reason, detail: str, from_outside: bool = False) -> None:
        super().__init__(detail)
        self.error = ImageError(reason, detail)
        self.from_outside = from_outside


class Worker:
    """The parent's end of one worker process."""

    def __init__(self) -> None:
        around = child_options()
        # Numpy's threads would take memory and never run; LibRaw's would compete with the workers.
        around["env"] |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        try:
            self._process = subprocess.Popen(
                python_command(WORKER_MODULE, "main"),
                **around,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                # Ctrl-C in a terminal must reach the parent only, which then ends the workers.
                process_group=0,
            )
        except OSError as error:
            raise WorkerError(f"a decode worker cannot be started: {error}") from None
        assert self._process.stdin and self._process.stdout
        self._jobs, self._answers = self._process.stdin, self._process.stdout
        # A worker that does not read must not hold the thread that writes to it.
        os.set_blocking(self._jobs.fileno(), False)
        self._readable, self._writable = select.poll(), select.poll()
        self._readable.register(self._answers, select.POLLIN)
        self._writable.register(self._jobs, select.POLLOUT)

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    @property
    def ended(self) -> bool:
        """Whether the process is known to be over."""
        return self._process.returncode is not None

    def prepare(self, limits: Limits) -> None:
        """Send the limits that hold for all jobs, and wait until the worker is ready.

        Raises:
            WorkerError: The worker failed to start.
            _Lost: The worker was killed from outside.
        """
        try:
            self._exchange(limits, START_SECONDS)
        except _Lost as lost:
            if lost.from_outside:
                raise
            raise WorkerError(
                f"a decode worker did not start ({lost.error.detail}): see what it printed"
            ) from None

    def answer(self, task: _Task, seconds: float) -> _Answer:
        """Hand over one file; return the answer, with the processor time in seconds.

        Raises:
            _Lost: The worker crashed, or was killed because it exceeded the time limit.
        """
        return self._exchange(task, seconds)

    def kill(self) -> None:
        """End the process, whatever it does."""
        self._process.kill()

    def end(self) -> None:
        """Wait until the process has ended, and close its pipes."""
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            # Even SIGKILL waits while the process waits for a disk that is gone; init inherits it.
            self.kill()
        self._jobs.close()
        self._answers.close()

    def _exchange(self, message: object, seconds: float) -> _Answer:
        deadline = time.monotonic() + seconds
        try:
            self._write(pickle.dumps(message), deadline)
            text_length, pixels_length = HEADER.unpack(self._read(HEADER.size, deadline))
            facts = json.loads(self._read(text_length, deadline))
            return facts, self._read(pixels_length, deadline)
        except TimeoutError:
            self.kill()
            self.end()
            raise _Lost(Reason.TIMED_OUT, f"no result within {seconds:g} s") from None
        except (EOFError, BrokenPipeError):
            self.end()
            raise self._cause_of_death() from None

    def _write(self, data: bytes, deadline: float) -> None:
        rest = memoryview(data)
        while rest:
            if not self._writable.poll(max(deadline - time.monotonic(), 0) * 1000):
                raise TimeoutError
            rest = rest[os.write(self._jobs.fileno(), rest) :]

    def _read(self, count: int, deadline: float) -> bytearray:
        buffer = bytearray(count)
        rest = memoryview(buffer)
        while rest:
            # Read what has arrived even after the deadline: this process may have been suspended.
            if not self._readable.poll(max(deadline - time.monotonic(), 0) * 1000):
                raise TimeoutError
            read = os.readv(self._answers.fileno(), [rest])
            if not read:
                raise EOFError
            rest = rest[read:]
        return buffer

    def _cause_of_death(self) -> _Lost:
        code = self._process.returncode
        if code is None or code >= 0:
            return _Lost(Reason.CRASHED, f"the decoder ended (exit code {code})")
        if -code == signal.SIGALRM:
            return _Lost(Reason.TIMED_OUT, "the decoder ran out of time")
        name = signal.Signals(-code).name
        outside = -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
        return _Lost(Reason.CRASHED, f"the decoder was killed by {name}", outside)
