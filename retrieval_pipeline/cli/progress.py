"""Progress for people: bars on a terminal, plain lines elsewhere; always on stderr."""

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from retrieval_pipeline.paths import printable
from retrieval_pipeline.progress import Progress

# Seconds between two lines of a log that nobody watches.
LINE_SECONDS = 10.0


@contextlib.contextmanager
def console_progress() -> Iterator[Progress]:
    """Give the progress that fits stderr."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield LineProgress()
        return
    bars = Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
        console=console,
    )
    with bars:
        yield BarProgress(bars)


class _Rate(ProgressColumn):
    """Units a second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {task.fields['unit']}/s" if speed else "", style="dim")


class BarProgress:
    """One bar a stage; a finished stage's bar stays."""

    def __init__(self, bars: Bars) -> None:
        self._bars = bars
        self._task: TaskID | None = None

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Add a bar, unless there is nothing to do."""
        self._task = None
        if total != 0:
            self._task = self._bars.add_task(stage, total=total, unit=unit)

    def advance(self, count: int = 1) -> None:
        """Move the bar."""
        if self._task is not None:
            self._bars.advance(self._task, count)

    def finish(self) -> None:
        """Stop the bar's clock; a stage of unknown length is now full."""
        if self._task is not None:
            task = self._bars.tasks[self._bars.task_ids.index(self._task)]
            self._bars.update(self._task, total=task.completed)
            self._bars.stop_task(self._task)

    def note(self, line: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(Text(printable(line)), highlight=False)


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
