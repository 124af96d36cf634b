"""Progress on stderr: bars if it is a terminal, plain lines otherwise."""

import contextlib
import sys
from collections.abc import Iterator
from typing import Protocol

from retrieval_pipeline.progress import LineProgress, Progress


class ConsoleProgress(Progress, Protocol):
    """Progress on the screen that results may be printed between."""

    def pause(self) -> None:
        """Leave on the screen what is drawn, and draw no more before the next stage begins."""


class _Lines(LineProgress):
    def pause(self) -> None:
        """Do nothing: lines stay as they are."""


@contextlib.contextmanager
def console_progress() -> Iterator[ConsoleProgress]:
    """Show progress on stderr while the context lasts."""
    if not sys.stderr.isatty():
        yield _Lines()
        return
    from retrieval_pipeline.cli.bars import BarProgress

    progress = BarProgress()
    try:
        yield progress
    finally:
        progress.pause()
