"""What several commands share: the settings option and how a run is asked to stop."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

import click

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Settings file. Default: $RETRIEVAL_CONFIG, then ./retrieval.toml.",
)


class StopRequest(threading.Event):
    """Set by a signal; remembers which."""

    signal_number: int = signal.SIGINT


@contextlib.contextmanager
def stoppable() -> Iterator[StopRequest]:
    """Give an event that Ctrl-C or SIGTERM sets; a second signal ends the process at once."""
    stop = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        if stop.is_set():
            raise KeyboardInterrupt
        stop.signal_number = number
        stop.set()
        click.echo("finishing the work in hand; once more to end at once", err=True)

    former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
