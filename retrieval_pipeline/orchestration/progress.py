"""Progress as lines of a Dagster run's log."""

import logging
import math
import time

from retrieval_pipeline.paths import printable
from retrieval_pipeline.progress import LineProgress, Progress
from retrieval_pipeline.storage.shared_progress import SharedProgress
from retrieval_pipeline.storage.store import Store

# Seconds between the ends of two stages that are told: a run over hundreds of small sources would
# spend more time on telling than on them, and their assets tell the same.
END_SECONDS = 1.0


def run_progress(store: Store, log: logging.Logger) -> Progress:
    """Return progress that writes lines into a run's log, and that others read in the home."""
    return SharedProgress(store, LogProgress(log))


class LogProgress(LineProgress):
    """A line now and then in the run's log."""

    def __init__(self, log: logging.Logger) -> None:
        super().__init__()
        self._log = log
        self._ended = -math.inf

    def finish(self) -> None:
        """Log a last line, unless another stage ended a moment ago."""
        if time.monotonic() - self._ended >= END_SECONDS:
            super().finish()
            self._ended = time.monotonic()

    def note(self, line: str) -> None:
        """Log the line."""
        self._log.info(printable(line))
