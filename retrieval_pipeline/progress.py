"""How long work tells the outside how far it is; the core never prints."""

from typing import Protocol


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
