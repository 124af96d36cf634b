"""Decode images in worker processes, which a hostile file may hang, exhaust or crash.

Not `multiprocessing`: it would import the main module (and torch) again in each worker, or fork a
process with threads, and its pools do not survive a worker's death.
"""

import json
import os
import pickle
import select
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import numpy as np

from retrieval_pipeline.decode_worker import HEADER
from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.images import Decoded, ImageError, ImageTransform, Limits, Reason

# Jobs in flight or waiting for the consumer: two batches of an encoder, so that one is decoded
# while the other is encoded. Some 10 to 30 MB.
LOOK_AHEAD = 64

# Beyond this many workers, disks and encoders are the limit, and each takes some 50 MB.
MOST_WORKERS = 16

# A machine that needs longer to start Python, or to end a killed process, is in trouble.
START_SECONDS = 60.0
END_SECONDS = 5.0

# The workers run the code of this package, wherever their parent has it from. -P keeps the working
# directory, which may be somebody's pictures, off their path.
START = (
    "import sys; sys.path.insert(0, {!r}); import retrieval_pipeline; del sys.path[0]; "
    "from retrieval_pipeline.decode_worker import main; main()"
)


class WorkerError(RetrievalError):
    """Decode workers cannot be started."""


@dataclass(frozen=True)
class Job:
    """One file to decode.

    Attributes:
        path: In the file system's encoding, with surrogate escapes.
        content_id: What its bytes must hash to, if that is known.
    """

    path: str
    content_id: str | None = None


@dataclass(frozen=True)
class Changed:
    """The file does not hold the content that the job names: it was edited or removed since."""


Outcome = Decoded | ImageError | Changed


def default_workers() -> int:
    """Return how many workers suit this machine.

    With few cores one for each: encoder and decoders take turns, and the look-ahead evens it out.
    With many, a quarter is left to the encoder's threads, which wait for one another.
    """
    cores = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return min(cores - cores // 4 if cores > 2 else cores, MOST_WORKERS)


class DecodePool:
    """Worker processes that decode the images of many jobs; a context manager.

    Each worker has one job at a time, so that a death or a hang has one file to blame. A worker
    that was killed from outside (the out-of-memory killer, an administrator) gets a second chance
    with the same file.
    """

    def __init__(
        self,
        transform: ImageTransform,
        limits: Limits,
        workers: int | None = None,
        look_ahead: int = LOOK_AHEAD,
    ) -> None:
        self._transform, self._limits, self._look_ahead = transform, limits, look_ahead
        count = workers or default_workers()
        self._threads = ThreadPoolExecutor(count, thread_name_prefix="decode")
        self._idle: SimpleQueue[_Worker | None] = SimpleQueue()
        for _ in range(count):
            self._idle.put(None)
        self._lock = threading.Lock()
        self._workers: set[_Worker] = set()
        self._closed = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def pids(self) -> list[int]:
        """Process ids of the workers that run now: they start when they are needed."""
        with self._lock:
            return [worker.pid for worker in self._workers if not worker.ended]

    def map(self, jobs: Iterable[Job]) -> Iterator[tuple[Job, Outcome]]:
        """Yield each job with its outcome, in order, reading `jobs` only so far ahead.

        Raises:
            WorkerError: Workers cannot be started.
        """
        remaining = iter(jobs)
        pending: deque[tuple[Job, Future[Outcome]]] = deque()
        try:
            while True:
                for job in islice(remaining, self._look_ahead - len(pending)):
                    pending.append((job, self._threads.submit(self._decode, job)))
                if not pending:
                    return
                job, future = pending.popleft()
                yield job, future.result()
        finally:
            for _, future in pending:
                future.cancel()

    def close(self) -> None:
        """Kill the workers, whatever they do; they hold nothing that could be lost."""
        with self._lock:
            self._closed = True
        for worker in self._workers:
            worker.kill()
        self._threads.shutdown(cancel_futures=True)
        for worker in self._workers:
            worker.end()

    def _decode(self, job: Job) -> Outcome:
        try:
            return self._attempt(job)
        except _Lost as lost:
            if not lost.from_outside:
                return lost.error
        try:
            return self._attempt(job)
        except _Lost as lost:
            return lost.error

    def _attempt(self, job: Job) -> Outcome:
        worker = self._idle.get()
        try:
            if worker is None:
                worker = self._start()
            return worker.decode(job, self._limits.seconds)
        except _Lost:
            worker = None
            raise
        finally:
            self._idle.put(worker)

    def _start(self) -> "_Worker":
        with self._lock:
            if self._closed:
                raise CancelledError
            self._workers = {worker for worker in self._workers if not worker.ended}
            worker = _Worker()
            self._workers.add(worker)
        worker.prepare(self._transform, self._limits)
        return worker


class _Lost(Exception):  # noqa: N818
    """A worker is gone, and its job without an answer."""

    def __init__(self, reason: Reason, detail: str, from_outside: bool = False) -> None:
        super().__init__(detail)
        self.error = ImageError(reason, detail)
        self.from_outside = from_outside


class _Worker:
    """The parent's end of one worker process."""

    def __init__(self) -> None:
        root = str(Path(__file__).resolve().parents[1])
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-c", START.format(root)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                bufsize=0,
                # Numpy's threads would take memory and never run.
                env=os.environ | {"OPENBLAS_NUM_THREADS": "1"},
                # Ctrl-C in a terminal is for the parent alone.
                process_group=0,
            )
        except OSError as error:
            raise WorkerError(f"a decode worker cannot be started: {error}") from None
        assert self._process.stdin and self._process.stdout
        self._jobs, self._answers = self._process.stdin, self._process.stdout
        self._poll = select.poll()
        self._poll.register(self._answers, select.POLLIN)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    def prepare(self, transform: ImageTransform, limits: Limits) -> None:
        """Hand over what holds for all jobs, and wait until the worker is ready.

        Raises:
            WorkerError: It does not get ready by its own fault.
            _Lost: It was killed.
        """
        try:
            self._exchange((transform, limits), START_SECONDS)
        except _Lost as lost:
            if lost.from_outside:
                raise
            raise WorkerError(
                f"a decode worker did not start ({lost.error.detail}): see what it printed"
            ) from None

    def decode(self, job: Job, seconds: float) -> Outcome:
        """Have the worker do a job.

        Raises:
            _Lost: It crashed, or hung and was killed.
        """
        facts, pixels = self._exchange((job.path, job.content_id), seconds)
        if "reason" in facts:
            return ImageError(Reason(facts["reason"]), facts["detail"])
        if "changed" in facts:
            return Changed()
        array = np.frombuffer(pixels, np.uint8).reshape(facts["shape"])
        return Decoded(array, facts["width"], facts["height"], facts["format"])

    def kill(self) -> None:
        self._process.kill()

    def end(self) -> None:
        """Wait for the end of the process, and help a little."""
        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            # Deaf even to SIGKILL while it waits for a disk that is gone: init will inherit it.
            self.kill()
        self._jobs.close()
        self._answers.close()

    def _exchange(self, message: object, seconds: float) -> tuple[dict[str, Any], bytearray]:
        deadline = time.monotonic() + seconds
        try:
            self._jobs.write(pickle.dumps(message))
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

    def _read(self, count: int, deadline: float) -> bytearray:
        buffer = bytearray(count)
        rest = memoryview(buffer)
        while rest:
            # What is there is read, however late: this process may have been suspended.
            if not self._poll.poll(max(deadline - time.monotonic(), 0) * 1000):
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
