"""Progress for people: bars on a terminal, plain lines elsewhere; always on stderr."""

import contextlib
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
from retrieval_pipeline.progress import LineProgress, Progress


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
