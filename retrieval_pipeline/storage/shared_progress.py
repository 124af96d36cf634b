"""How far the run that writes a home is, for other programs: kept in the lock file of the home.

The first line of that file is the process id of the run. The second one is what is told here, and
means something only as long as the lock is held. It is written in place, without a rename or a
sync: it is worth nothing once the run is over.
"""

import os
import time
from collections import deque

from pydantic import BaseModel, ConfigDict, ValidationError

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.paths import printable
from retrieval_pipeline.progress import Progress
from retrieval_pipeline.storage.locks import is_held
from retrieval_pipeline.storage.store import Store

# Seconds between two writes while a stage goes on.
WRITE_SECONDS = 0.5
# The last notes of a run that are told, and characters of each.
NOTES, NOTE_LENGTH = 20, 300


class RunProgress(BaseModel):
    """How far a run is.

    Attributes:
        stage: What it is doing now; "" before the first stage.
        done: Units of this stage that are done.
        total: Units of this stage; None if the number is not known.
        unit: What is counted, in the plural.
        seconds: How long this stage has taken so far.
        notes: Lines that people should read, such as that a file failed; the last NOTES.
        noted: Number of all such lines.
    """

    model_config = ConfigDict(frozen=True)

    stage: str = ""
    done: int = 0
    total: int | None = None
    unit: str = ""
    seconds: float = 0.0
    notes: tuple[str, ...] = ()
    noted: int = 0

    @property
    def seconds_left(self) -> float | None:
        """How long the stage will take from now on at its mean speed; None if nobody can say."""
        if self.total is None or not self.done or self.done > self.total:
            return None
        return self.seconds / self.done * (self.total - self.done)


class SharedProgress:
    """Passes progress on, and tells it to other programs; a `Progress`.

    The caller holds the lock of the home.
    """

    def __init__(self, store: Store, progress: Progress) -> None:
        self._file = store.lock_file
        self._progress = progress
        self._stage, self._unit = "", ""
        self._total: int | None = None
        self._done = self._noted = 0
        self._notes: deque[str] = deque(maxlen=NOTES)
        self._started = self._written = time.monotonic()

    def start(self, stage: str, total: int | None, unit: str) -> None:
        """Begin a stage."""
        self._progress.start(stage, total, unit)
        self._stage, self._total, self._unit, self._done = stage, total, unit, 0
        self._started = time.monotonic()
        self._write()

    def advance(self, count: int = 1) -> None:
        """Count `count` more units."""
        self._progress.advance(count)
        self._done += count
        if time.monotonic() - self._written >= WRITE_SECONDS:
            self._write()

    def finish(self) -> None:
        """End the current stage."""
        self._progress.finish()

    def note(self, line: str) -> None:
        """Show a line; others read it with the next count."""
        self._progress.note(line)
        self._notes.append(printable(line)[:NOTE_LENGTH])
        self._noted += 1

    def _write(self) -> None:
        self._written = time.monotonic()
        told = RunProgress(
            stage=self._stage,
            done=self._done,
            total=self._total,
            unit=self._unit,
            seconds=self._written - self._started,
            notes=tuple(self._notes),
            noted=self._noted,
        )
        text = f"{os.getpid()}\n{told.model_dump_json()}\n".encode()
        try:
            with self._file.open("r+b", buffering=0) as handle:
                handle.write(text)
                handle.truncate(len(text))
        except OSError:
            # A full disk ends a run where it matters, and not here.
            return


def read_progress(store: Store) -> RunProgress | None:
    """Return how far the run is that writes this home now; None if there is none.

    A run of an earlier version, or one that has just begun, tells no stage.
    """
    lock = store.lock_file
    try:
        if not lock.exists() or not is_held(lock):
            return None
        lines = lock.read_text(encoding="utf-8").splitlines()
        return RunProgress.model_validate_json(lines[1])
    except StoreError:
        return None
    except (OSError, UnicodeDecodeError, ValidationError, IndexError):
        # It is being written, or gone by now.
        return RunProgress()
