"""Progress on stderr: bars if it is a terminal, plain lines otherwise."""

import contextlib
import sys
from collections.abc import Iterator

from retrieval_pipeline.progress import LineProgress, Progress


@contextlib.contextmanager
def console_progress() -> Iterator[Progress]:
    """Show progress on stderr while the context lasts."""
    if not sys.stderr.isatty():
        yield LineProgress()
        return
    from retrieval_pipeline.cli.bars import BarProgress, bars_on_stderr

    with bars_on_stderr() as bars:
        yield BarProgress(bars)
