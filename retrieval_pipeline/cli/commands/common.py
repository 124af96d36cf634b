"""What several commands share: the settings option, pages, and how a run is asked to stop."""

import contextlib
import signal
import threading
import webbrowser
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
    """Give an event that Ctrl-C or SIGTERM sets; a second signal ends the process at once.

    The kernel handles the second signal: an exception would wait for threads that may hang in a
    read from a disk that is gone. Stored files are complete at every moment, and the lock is free
    when the process ends.
    """
    stop = StopRequest()

    def ask(number: int, frame: FrameType | None) -> None:
        for each in former:
            signal.signal(each, signal.SIG_DFL)
        stop.signal_number = number
        stop.set()
        click.echo("finishing the work in hand; once more to end at once", err=True)

    former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def write_page(html: str, file: Path, *, open_page: bool) -> None:
    """Write an HTML page, say where it is, and open it in the browser if asked to.

    Raises:
        StoreError: It cannot be written.
    """
    from retrieval_pipeline.storage.atomic import replacing

    page = file.absolute()
    with replacing(page) as temporary:
        temporary.write_text(html, encoding="utf-8")
    click.echo(f"gallery: {page}", err=True)
    if open_page:
        webbrowser.open(page.as_uri())
