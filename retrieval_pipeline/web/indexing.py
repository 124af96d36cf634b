"""Runs of `retrieval index` that people start from the page, and how far any run is."""

import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from http import HTTPStatus
from typing import IO

from pydantic import BaseModel, ConfigDict

from retrieval_pipeline.paths import printable
from retrieval_pipeline.processes import start_command
from retrieval_pipeline.storage.shared_progress import read_progress
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.web.problems import RequestError

# Exit codes of a run that did its work, or that was stopped (docs/command-line.md), also early.
ENDED_AS_ASKED = (0, 128 + signal.SIGTERM, -signal.SIGTERM)
# Bytes of the messages of a run that are read for the last error.
MESSAGE_BYTES = 4_000


class RunState(BaseModel):
    """What the run does that brings tables or index up to date; also one of another program.

    Attributes:
        running: Whether there is one.
        startable: Whether the page may start one.
        stoppable: Whether it was started from the page.
        stage: What it is doing; "" if it does not tell.
        done: Units of the stage that are done.
        total: Units of the stage; None if the number is not known.
        unit: What is counted, in the plural.
        rate: Units a second.
        seconds_left: Of the stage; None if nobody can say.
        failures: Lines about files that failed, and the like; the last ones.
        failed: Why the last run that was started from the page ended without an index, or "".
    """

    model_config = ConfigDict(frozen=True)

    running: bool = False
    startable: bool = False
    stoppable: bool = False
    stage: str = ""
    done: int = 0
    total: int | None = None
    unit: str = ""
    rate: float = 0.0
    seconds_left: float | None = None
    failures: tuple[str, ...] = ()
    failed: str = ""


class Indexing:
    """Starts runs, one at a time; safe to call from several threads."""

    def __init__(self, store: Store, command: Sequence[str] | None) -> None:
        """Start runs by `command`; None if the page may start none."""
        self._store, self._command = store, command
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._messages: IO[bytes] | None = None
        self._failed = ""

    def start(self) -> None:
        """Start a run.

        Raises:
            CommandError: The system refused.
            RequestError: There is a run already, 409; or the page may start none, 403.
        """
        if self._command is None:
            detail = "runs are not started from this page: run `retrieval index`"
            raise RequestError(HTTPStatus.FORBIDDEN, detail)
        with self._lock:
            self._look()
            if self._process is not None or read_progress(self._store) is not None:
                raise RequestError(HTTPStatus.CONFLICT, "a run is at work already")
            self._failed = ""
            # Closed when the run has ended.
            self._messages = tempfile.TemporaryFile()  # noqa: SIM115
            self._process = start_command(self._command, self._messages)

    def stop(self) -> None:
        """Have the run end after the part in hand; the next one goes on where it stopped.

        Raises:
            RequestError: There is no run that was started from the page; 409.
        """
        with self._lock:
            self._look()
            if self._process is None:
                detail = "no run was started from this page: end it where it was started"
                raise RequestError(HTTPStatus.CONFLICT, detail)
            self._process.terminate()

    def state(self) -> RunState:
        """Return what the run does that writes the home now."""
        with self._lock:
            self._look()
            own, failed = self._process is not None, self._failed
        told = read_progress(self._store)
        startable = self._command is not None
        if told is None:
            return RunState(running=own, startable=startable, stoppable=own, failed=failed)
        return RunState(
            running=True,
            startable=startable,
            stoppable=own,
            stage=told.stage,
            done=told.done,
            total=told.total,
            unit=told.unit,
            rate=round(told.done / told.seconds, 1) if told.seconds else 0.0,
            seconds_left=told.seconds_left,
            failures=told.notes,
        )

    def close(self) -> None:
        """End the run that was started from the page, if it goes on; what it has done is kept."""
        with self._lock:
            if self._process is not None:
                self._process.terminate()

    def _look(self) -> None:
        """Note whether the run that was started here has ended, and why."""
        if self._process is None or self._process.poll() is None:
            return
        code, messages = self._process.returncode, self._messages
        self._process = self._messages = None
        assert messages is not None
        with messages:
            if code in ENDED_AS_ASKED:
                return
            messages.seek(-min(MESSAGE_BYTES, messages.seek(0, 2)), 2)
            lines = messages.read().decode(errors="replace").splitlines()
        errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
        self._failed = printable(errors[-1] if errors else f"the run ended with code {code}")
