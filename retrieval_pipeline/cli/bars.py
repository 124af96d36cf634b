"""Progress bars of a terminal, drawn by rich."""

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


def _bars() -> Bars:
    """Return bars on stderr with name, count, speed and the time that remains."""
    return Bars(
        TextColumn("{task.description}"),
        BarColumn(),
        _Count(),
        _Rate(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )


class _Count(MofNCompleteColumn):
    """The column that shows how much is done; empty for a stage that counts nothing."""

    def render(self, task: Task) -> Text:
        return super().render(task) if task.fields["unit"] else Text()


class _Rate(ProgressColumn):
    """The column that shows units per second."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:,.0f} {task.fields['unit']}/s" if speed else "", style="dim")


class BarProgress:
    """One bar for each stage; the bar of a finished stage stays on the screen."""

    def __init__(self) -> None:
        self._bars = _bars()
        self._task: TaskID | None = None

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Add a bar for the stage, unless it has nothing to do."""
        self._task = None
        self._bars.start()
        if total != 0:
            self._task = self._bars.add_task(stage, total=total, unit=unit)

    def advance(self, count: int = 1) -> None:
        """Move the bar of the current stage by `count` units."""
        if self._task is not None:
            self._bars.advance(self._task, count)

    def finish(self) -> None:
        """Stop the clock of the bar, and fill the bar of a stage whose length was unknown."""
        if self._task is not None:
            task = self._bars.tasks[self._bars.task_ids.index(self._task)]
            self._bars.update(self._task, total=task.completed)
            self._bars.stop_task(self._task)

    def pause(self) -> None:
        """Leave the bars as they are; the next stage begins a new block of them.

        rich would draw bars that are started again where they stood before, over what has been
        printed since: so the new block is another object.
        """
        self._bars.stop()
        self._bars = _bars()

    def note(self, line: str) -> None:
        """Print a line above the bars."""
        self._bars.console.print(Text(printable(line)), highlight=False)
