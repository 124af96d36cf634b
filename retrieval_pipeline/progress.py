"""How long-running work reports its progress; the core itself never prints."""

import sys
import threading
import time
from collections.abc import Callable
from typing import Protocol

from retrieval_pipeline.errors import Stopped
from retrieval_pipeline.paths import printable


class Progress(Protocol):
    """Receives progress: to draw a bar, write log lines, or ignore it."""

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Begin a stage of `total` units of work (None if the number is not known)."""

    def advance(self, count: int = 1) -> None:
        """Count `count` more units of the current stage as done."""

    def finish(self) -> None:
        """End the current stage."""

    def note(self, line: str) -> None:
        """Show a line that people should read, such as that a file failed."""


class Quiet:
    """Ignores all progress."""

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Ignored."""

    def advance(self, count: int = 1) -> None:
        """Ignored."""

    def finish(self) -> None:
        """Ignored."""

    def note(self, line: str) -> None:
        """Ignored."""


class NotesOnly(Quiet):
    """Passes on only the lines that people should read."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note

    def note(self, line: str) -> None:
        """Show the line."""
        self._note(line)


class Stoppable:
    """Passes progress on, and ends the work at its next step once `stop` is set.

    It is for work that keeps nothing when it ends early.
    """

    def __init__(self, progress: Progress, stop: threading.Event, what: str) -> None:
        self._progress, self._stop, self._what = progress, stop, what

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Begin a stage.

        Raises:
            Stopped: `stop` was set.
        """
        self._check()
        self._progress.start(stage, total, unit)

    def advance(self, count: int = 1) -> None:
        """Count `count` more units.

        Raises:
            Stopped: `stop` was set.
        """
        self._check()
        self._progress.advance(count)

    def finish(self) -> None:
        """End the current stage."""
        self._progress.finish()

    def note(self, line: str) -> None:
        """Show a line."""
        self._progress.note(line)

    def _check(self) -> None:
        if self._stop.is_set():
            raise Stopped(self._what)


# Seconds between two lines of a log.
LINE_SECONDS = 10.0


class LineProgress:
    """Prints a line to stderr every LINE_SECONDS and at the end of each stage that had work."""

    def __init__(self) -> None:
        self._stage, self._unit = "", ""
        self._total: int | None = None
        self._done = self._told = 0
        self._started = self._last = time.monotonic()

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Begin a stage, without printing."""
        self._stage, self._total, self._unit = stage, total, unit
        self._done = self._told = 0
        self._started = self._last = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Count the units; print a line if the last one is LINE_SECONDS old."""
        self._done += count
        if time.monotonic() - self._last >= LINE_SECONDS:
            self._print()

    def finish(self) -> None:
        """Print a last line, unless the stage had no work since the line before."""
        if self._done != self._told:
            self._print()

    def note(self, line: str) -> None:
        """Print the line."""
        print(printable(line), file=sys.stderr, flush=True)  # noqa: T201

    def _print(self) -> None:
        self._last, self._told = time.monotonic(), self._done
        if not self._unit:
            self.note(f"{self._stage} ...")
            return
        of = f" of {self._total:,}" if self._total else ""
        rate = self._done / max(self._last - self._started, 1e-3)
        self.note(f"{self._stage}: {self._done:,}{of} {self._unit} ({rate:,.0f}/s)")
