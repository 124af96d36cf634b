"""Progress as lines of a Dagster run's log."""

import logging

from retrieval_pipeline.paths import printable
from retrieval_pipeline.progress import LineProgress


class LogProgress(LineProgress):
    """A line now and then in the run's log."""

    def __init__(self, log: logging.Logger) -> None:
        super().__init__()
        self._log = log

    def note(self, line: str) -> None:
        """Log the line."""
        self._log.info(printable(line))
