"""How long work tells the outside how far it is; the core never prints."""

import sys
import time
from typing import Protocol

from retrieval_pipeline.paths import printable


class Progress(Protocol):
    """Receives stages and counts: a progress bar, log lines, or nothing."""

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """A stage begins; `total` units of work are ahead (None: unknown)."""

    def advance(self, count: int = 1) -> None:
        """That many more units of the current stage are done."""

    def finish(self) -> None:
        """The current stage is over."""

    def note(self, line: str) -> None:
        """Something people should read, such as a file that failed."""


class Quiet:
    """Progress for those who do not watch."""

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Ignored."""

    def advance(self, count: int = 1) -> None:
        """Ignored."""

    def finish(self) -> None:
        """Ignored."""

    def note(self, line: str) -> None:
        """Ignored."""


# Seconds between two lines of a log that nobody watches.
LINE_SECONDS = 10.0


class LineProgress:
    """A line now and then, and one at the end of each stage that had work."""

    def __init__(self) -> None:
        self._stage, self._unit = "", ""
        self._total: int | None = None
        self._done = self._told = 0
        self._started = self._last = time.monotonic()

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Remember the stage."""
        self._stage, self._total, self._unit = stage, total, unit
        self._done = self._told = 0
        self._started = self._last = time.monotonic()

    def advance(self, count: int = 1) -> None:
        """Print a line if the last one is old."""
        self._done += count
        if time.monotonic() - self._last >= LINE_SECONDS:
            self._print()

    def finish(self) -> None:
        """Print how the stage ended, if it did anything that was not told yet."""
        if self._done != self._told:
            self._print()

    def note(self, line: str) -> None:
        """Print the line."""
        print(printable(line), file=sys.stderr, flush=True)  # noqa: T201

    def _print(self) -> None:
        self._last, self._told = time.monotonic(), self._done
        of = f" of {self._total:,}" if self._total else ""
        rate = self._done / max(self._last - self._started, 1e-3)
        self.note(f"{self._stage}: {self._done:,}{of} {self._unit} ({rate:,.0f}/s)")
