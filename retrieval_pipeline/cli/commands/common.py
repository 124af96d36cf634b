"""Shared by several commands: options, writing pages, and stopping a run."""

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import click

from retrieval_pipeline.cli.output import tell
from retrieval_pipeline.cli.parameters import FilePath, Words
from retrieval_pipeline.paths import real_path


class Sectioned(click.Command):
    """A command with many options, whose help lists them under headings.

    Args:
        headings: Name of an option's parameter -> the heading of it and those that follow.
    """

    def __init__(self, *args: Any, headings: Mapping[str, str], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._headings = headings

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        sections: dict[str, list[tuple[str, str]]] = {}
        heading = "Options"
        for param in self.get_params(ctx):
            heading = self._headings.get(param.name or "", heading)
            # The text explains arguments.
            record = param.get_help_record(ctx) if isinstance(param, click.Option) else None
            if record is not None:
                sections.setdefault(heading, []).append(record)
        for heading, rows in sections.items():
            with formatter.section(heading):
                formatter.write_dl(rows)


Command = TypeVar("Command", bound=Callable[..., Any])

config_option = click.option(
    "--config",
    type=FilePath(),
    help="Settings file. Default: $RETRIEVAL_CONFIG, then retrieval.toml here or above, then the "
    "one in your configuration directory.",
)

source_option = click.option(
    "--source", "sources", multiple=True, metavar="NAME", help="Only this source. Can be repeated."
)

path_option = click.option(
    "--path",
    "paths",
    multiple=True,
    metavar="GLOB",
    help="Only paths that match this glob. Can be repeated.",
)


_FACT_OPTIONS = (
    click.option(
        "--after", type=Words(), metavar="DATE", help="Taken then or later: 2019-08, last week, ..."
    ),
    click.option("--before", type=Words(), metavar="DATE", help="Taken before."),
    click.option(
        "--on", type=Words(), metavar="DATE", help="Taken then: 2019, summer 2019, yesterday, ..."
    ),
    click.option(
        "--year", multiple=True, type=click.IntRange(1, 9_998), help="Taken then. Can be repeated."
    ),
    click.option(
        "--file-after", type=Words(), metavar="DATE", help="Only files changed then or later."
    ),
    click.option("--file-before", type=Words(), metavar="DATE", help="Only files changed before."),
    click.option(
        "--camera", multiple=True, metavar="WORDS", help="Words in its name. Can be repeated."
    ),
    click.option(
        "--lens", multiple=True, metavar="WORDS", help="Words in its name. Can be repeated."
    ),
    click.option(
        "--near", type=Words(), metavar="PLACE", help='Taken near this town, or "38.7, -9.1".'
    ),
    click.option(
        "--within", metavar="DISTANCE", default="20km", show_default=True, help="How near."
    ),
    click.option(
        "--country", multiple=True, metavar="NAME", help="Code (PT) or name. Can be repeated."
    ),
    click.option("--keyword", multiple=True, metavar="NAME", help="Can be repeated."),
    click.option("--rating", type=click.IntRange(-1, 5), help="Least number of stars."),
)


def fact_options(command: Command) -> Command:
    """Give a command the filters by when, where and with what; named as `Query.of` takes them."""
    for option in reversed(_FACT_OPTIONS):
        command = option(command)
    return command


def album_options(command: Command) -> Command:
    """Give a command labels and albums to filter by; named as `Query.of` takes them."""
    command = click.option(
        "--like-album",
        multiple=True,
        metavar="NAME",
        help="Find more pictures of the kind of this album. Can be repeated.",
    )(command)
    command = click.option(
        "--album", multiple=True, metavar="NAME", help="Only pictures of it. Can be repeated."
    )(command)
    return click.option(
        "--label",
        multiple=True,
        metavar="WORD",
        help="Only pictures that `retrieval label` gave it to. Can be repeated.",
    )(command)


class StopRequest(threading.Event):
    """An event that a signal sets; it keeps the number of the signal."""

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
        tell("finishing the work in hand; once more to end at once")

    former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def check_page(file: Path) -> None:
    """Refuse a page that cannot be written, before the work that it is to show.

    Raises:
        StoreError: Its directory cannot be written, or it is no file itself.
    """
    import tempfile

    from retrieval_pipeline.errors import StoreError
    from retrieval_pipeline.storage.atomic import check_replaceable, explained

    page = real_path(file)
    check_replaceable(page)
    with explained(page):
        if page.is_dir():
            raise StoreError(f"{page} is a directory: name a file in it")
        # Missing directories are made with the page. Only trying tells for sure: permissions say
        # nothing of file systems that are mounted read-only.
        there = next(parent for parent in page.parents if parent.exists())
        tempfile.TemporaryFile(dir=there).close()


def write_page(html: str, file: Path, *, open_page: bool) -> None:
    """Write an HTML page, say where it is, and open it in the browser if asked to.

    A link to a page stays a link.

    Raises:
        StoreError: It cannot be written.
    """
    from retrieval_pipeline.storage.atomic import replacing

    page = real_path(file)
    with replacing(page) as temporary:
        temporary.write_text(html, encoding="utf-8")
    tell(f"gallery: {page}")
    if open_page:
        import webbrowser

        webbrowser.open(page.as_uri())
