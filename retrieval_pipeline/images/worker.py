"""The parent's end of a worker process: start it, exchange messages, kill it if it hangs."""

import json
import os
import pickle
import select
import signal
import subprocess
import time
from collections.abc import Sequence
from typing import Any

from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.images.errors import ImageError, Reason
from retrieval_pipeline.images.frames import HEADER
from retrieval_pipeline.processes import child_options, python_command

# Longest time to start a worker, and for a killed one to be gone: on a sound machine both take
# less than a second.
START_SECONDS = 60.0
END_SECONDS = 5.0

# What a worker answers: a JSON object, and pixels or other bytes if there are any.
Answer = tuple[dict[str, Any], bytearray]


class WorkerError(RetrievalError):
    """Decode workers cannot be started."""


class Lost(Exception):  # noqa: N818
    """A worker died before it answered its job."""

    def __init__(self, reason: Reason, detail: str, from_outside: bool = False) -> None:
        super().__init__(detail)
        self.error = ImageError(reason, detail)
        self.from_outside = from_outside


class Worker:
    """The parent's end of one worker process."""

    def __init__(self, module: str, variables: Sequence[str] = ()) -> None:
        """Start the process.

        Args:
            module: Whose function `main` it calls.
            variables: Further environment variables that it needs.

        Raises:
            WorkerError: It cannot be started.
        """
        around = child_options()
        around["env"] |= {name: os.environ[name] for name in variables if name in os.environ}
        # Numpy's threads would take memory and never run; LibRaw's would compete with the workers.
        around["env"] |= {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"}
        try:
            self._process = subprocess.Popen(
                python_command(module, "main"),
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

    def prepare(self, settings: object) -> None:
        """Send what holds for all jobs, and wait until the worker is ready.

        Raises:
            WorkerError: The worker failed to start.
            Lost: The worker was killed from outside.
        """
        try:
            self._exchange(settings, START_SECONDS)
        except Lost as lost:
            if lost.from_outside:
                raise
            raise WorkerError(
                f"a decode worker did not start ({lost.error.detail}): see what it printed"
            ) from None

    def answer(self, task: object, seconds: float) -> Answer:
        """Hand over a task; return the answer.

        Raises:
            Lost: The worker crashed, or was killed because it exceeded the time limit.
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

    def _exchange(self, message: object, seconds: float) -> Answer:
        deadline = time.monotonic() + seconds
        try:
            self._write(pickle.dumps(message), deadline)
            text_length, pixels_length = HEADER.unpack(self._read(HEADER.size, deadline))
            facts = json.loads(self._read(text_length, deadline))
            return facts, self._read(pixels_length, deadline)
        except TimeoutError:
            self.kill()
            self.end()
            raise Lost(Reason.TIMED_OUT, f"no result within {seconds:g} s") from None
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

    def _cause_of_death(self) -> Lost:
        code = self._process.returncode
        if code is None or code >= 0:
            return Lost(Reason.CRASHED, f"the decoder ended (exit code {code})")
        if -code == signal.SIGALRM:
            return Lost(Reason.TIMED_OUT, "the decoder ran out of time")
        name = signal.Signals(-code).name
        outside = -code in (signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
        return Lost(Reason.CRASHED, f"the decoder was killed by {name}", outside)
