"""The `retrieval` command: results on stdout, talk on stderr, one clear line for each error."""

import contextlib
import json
import os
import signal
import sys
import threading
import webbrowser
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from retrieval_pipeline import __version__
from retrieval_pipeline.errors import QueryError, RetrievalError, Stopped

if TYPE_CHECKING:
    from types import FrameType

    from retrieval_pipeline.config import Settings
    from retrieval_pipeline.search import Answer, Query, Searcher

# The heavy modules are imported by the commands that need them, so that --help is immediate.

ConfigOption = click.option(
    "--config",
    type=click.Path(path_type=Path),
    help="Settings file. Default: $RETRIEVAL_CONFIG, then ./retrieval.toml.",
)


def main() -> None:
    """Run the command line; the entry point of `retrieval`."""
    try:
        cli.main(standalone_mode=False)
    except click.exceptions.Exit as ending:
        sys.exit(ending.exit_code)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except Stopped as stopped:
        click.echo(f"{stopped}. Run the same command again to go on.", err=True)
        sys.exit(128 + (_received or signal.SIGINT))
    except RetrievalError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (`retrieval query ... | head`): nothing to report.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(__version__, prog_name="retrieval")
def cli() -> None:
    """Find pictures by what is in them, in directories without tags or captions.

    \b
    First time:     retrieval demo
    Your pictures:  retrieval init ~/Pictures
                    retrieval index
                    retrieval query "a red car in the snow" --gallery hits.html --open
    """


_received: int | None = None


@contextlib.contextmanager
def _stoppable() -> Iterator[threading.Event]:
    """Give an event that Ctrl-C or SIGTERM sets; a second signal ends the process at once."""
    stop = threading.Event()

    def ask(number: int, frame: "FrameType | None") -> None:
        global _received
        _received = number
        if stop.is_set():
            raise KeyboardInterrupt
        stop.set()
        click.echo("finishing the work in hand; once more to end at once", err=True)

    former = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)


def _settings(config: Path | None) -> "Settings":
    from retrieval_pipeline.config import load_settings

    return load_settings(config)


@cli.command()
@click.argument("directories", nargs=-1, type=click.Path(path_type=Path))
@click.option("--model", help="Encoder to write into the file.  [default: CLIP ViT-L/14@336px]")
@click.option("--home", default="retrieval-home", show_default=True, help="Where tables will live.")
@click.option("--force", is_flag=True, help="Replace a settings file that exists.")
@ConfigOption
def init(
    directories: tuple[Path, ...], model: str | None, home: str, force: bool, config: Path | None
) -> None:
    """Write a settings file for these directories (default: the current one)."""
    from retrieval_pipeline.config import (
        DEFAULT_MODEL,
        find_settings_file,
        load_settings,
        names_for,
        settings_text,
    )

    file = find_settings_file(config)
    if file.exists() and not force:
        raise RetrievalError(f"{file} exists already: edit it, or replace it with --force")
    roots = [Path(os.path.abspath(directory.expanduser())) for directory in directories or [Path()]]
    for root in roots:
        if not root.is_dir():
            raise RetrievalError(f"{root} is not a directory")
    pairs = list(zip(names_for(roots), roots, strict=True))
    from retrieval_pipeline.store import replacing

    with replacing(file.absolute()) as temporary:
        text = settings_text(pairs, model=model or DEFAULT_MODEL, home=home)
        temporary.write_text(text, encoding="utf-8")
        load_settings(temporary)
    click.echo(f"wrote {file} with {len(pairs)} source{'s' * (len(pairs) != 1)}:")
    for name, root in pairs:
        click.echo(f"  {name:<20} {root}")
    click.echo("Look it over, then run: retrieval index")


@cli.command()
@click.option("--source", "only", multiple=True, metavar="NAME", help="Only this source (repeat).")
@click.option("--allow-shrink", is_flag=True, help="Confirm that most files of a source are gone.")
@click.option("--rehash", is_flag=True, help="Read every file again, also those that look unchanged.")
@click.option("--retry-quarantined", is_flag=True, help="Try images again that could not be used.")
@ConfigOption
def index(
    only: tuple[str, ...],
    allow_shrink: bool,
    rehash: bool,
    retry_quarantined: bool,
    config: Path | None,
) -> None:
    """Bring the tables and the index up to date with the directories.

    Only new and changed files are read, only unknown images are embedded. It can be stopped at
    any moment and goes on where it was; run it from cron as it is.
    """
    settings = _settings(config)
    from retrieval_pipeline.console import console_progress
    from retrieval_pipeline.pipeline import index_sources

    with _stoppable() as stop, console_progress() as progress:
        report = index_sources(
            settings,
            only=only,
            allow_shrink=allow_shrink,
            rehash=rehash,
            retry_quarantined=retry_quarantined,
            progress=progress,
            stop=stop,
        )
    from retrieval_pipeline.views.text import index_report

    click.echo(index_report(report))
    if report.failures:
        raise RetrievalError("\n".join(map(str, report.failures)))


@cli.command()
@click.argument("text", required=False)
@click.option("--image", type=click.Path(path_type=Path), help="Find pictures like this one.")
@click.option("--plus", multiple=True, metavar="TEXT", help="Move the meaning towards this (repeat).")
@click.option("--minus", multiple=True, metavar="TEXT", help="Move it away from this (repeat).")
@click.option("-k", default=8, show_default=True, type=click.IntRange(min=1), help="Number of hits.")
@click.option("--source", "sources", multiple=True, metavar="NAME", help="Only this source (repeat).")
@click.option("--path", "paths", multiple=True, metavar="GLOB", help="Only paths like this (repeat).")
@click.option(
    "--min-relevance", default=0.0, type=click.FloatRange(0, 1), help="Leave out hits below it."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; one line a query when piped.")
@click.option("--gallery", type=click.Path(path_type=Path), help="Write the hits as an HTML page.")
@click.option("--open", "open_page", is_flag=True, help="Open the gallery in the browser.")
@ConfigOption
def query(
    text: str | None,
    image: Path | None,
    plus: tuple[str, ...],
    minus: tuple[str, ...],
    k: int,
    sources: tuple[str, ...],
    paths: tuple[str, ...],
    min_relevance: float,
    as_json: bool,
    gallery: Path | None,
    open_page: bool,
    config: Path | None,
) -> None:
    """Find the pictures that look most like TEXT.

    Without TEXT it asks for one after the other ("exit" or Ctrl-D leaves); with text piped in, it
    answers each line.

    \b
    retrieval query "a dog on grass" -k 12
    retrieval query "a street at night" --minus people --source holidays
    retrieval query --image photo.jpg --gallery similar.html --open
    retrieval query --json < queries.txt
    """
    settings = _settings(config)
    from retrieval_pipeline.search import Query, Searcher

    searcher = Searcher.open(settings)
    base = Query(
        text=text,
        image=image,
        plus=plus,
        minus=minus,
        sources=sources,
        paths=paths,
        min_relevance=min_relevance,
    )
    answers: list[Answer] = []
    if text is not None or image is not None or plus or minus:
        answer = searcher.answer(base, k)
        _print_answer(answer, as_json=as_json, pretty=True)
        answers.append(answer)
    else:
        for answer in _conversation(searcher, base, k):
            _print_answer(answer, as_json=as_json, pretty=False)
            answers.append(answer)
    if gallery is not None or open_page:
        _write_gallery(answers, gallery, settings, open_page)


def _conversation(searcher: "Searcher", base: "Query", k: int) -> "Iterator[Answer]":
    """Answer one line after the other; a line that cannot be answered does not end it."""
    interactive = sys.stdin.isatty()
    if interactive:
        # Line editing and history for input().
        import readline  # noqa: F401

        click.echo(f'{len(searcher.build):,} images. "exit" or Ctrl-D leaves.', err=True)
        searcher.encoder.encode_texts(["a photo"])
    while True:
        try:
            line = input("> " if interactive else "").strip()
        except EOFError:
            if interactive:
                click.echo(err=True)
            return
        if interactive and line.lower() in ("exit", "quit"):
            return
        try:
            yield searcher.answer(replace(base, text=line), k)
        except QueryError as error:
            click.echo(f"error: {error}", err=True)


def _print_answer(answer: "Answer", *, as_json: bool, pretty: bool) -> None:
    from retrieval_pipeline.views.text import answer_json, answer_text

    if as_json:
        click.echo(json.dumps(answer_json(answer), indent=2 if pretty else None))
    else:
        click.echo(answer_text(answer, heading=not pretty))


def _write_gallery(
    answers: "list[Answer]", gallery: Path | None, settings: "Settings", open_page: bool
) -> None:
    from retrieval_pipeline.images import Limits
    from retrieval_pipeline.store import Store, replacing
    from retrieval_pipeline.views.gallery import gallery_html

    page = (gallery or Store(settings.home).last_gallery).absolute()
    with replacing(page) as temporary:
        html = gallery_html(answers, Limits.of(settings.images))
        temporary.write_text(html, encoding="utf-8")
    click.echo(f"gallery: {page}", err=True)
    if open_page:
        webbrowser.open(page.as_uri())


@cli.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@ConfigOption
def status(as_json: bool, config: Path | None) -> None:
    """Show what is indexed, by which model, how fresh, and what failed."""
    settings = _settings(config)
    from retrieval_pipeline.pipeline import describe_encoder
    from retrieval_pipeline.status import read_status
    from retrieval_pipeline.views.text import status_json, status_text

    state = read_status(settings, describe_encoder(settings).space)
    click.echo(json.dumps(status_json(state), indent=2) if as_json else status_text(state))


@cli.command()
@ConfigOption
def verify(config: Path | None) -> None:
    """Check every stored file against its contract; exit 1 if anything is off."""
    settings = _settings(config)
    from retrieval_pipeline.store import Store
    from retrieval_pipeline.verify import verify as verify_store

    files, problems = 0, 0
    for finding in verify_store(Store(settings.home)):
        files += 1
        if finding.problem:
            problems += 1
            click.echo(f"BAD  {finding.problem}")
    if not files:
        raise RetrievalError(f"nothing is stored in {settings.home} yet: run `retrieval index`")
    if problems:
        raise RetrievalError(f"{problems} of {files} stored files are not as they must be")
    click.echo(f"{files} stored files are as they must be")


@cli.command()
@click.option(
    "--directory",
    type=click.Path(path_type=Path),
    default=Path("retrieval-demo"),
    show_default=True,
    help="Where the demo keeps its settings, tables and pages.",
)
@click.option("--open", "open_page", is_flag=True, help="Open the gallery in the browser.")
def demo(directory: Path, open_page: bool) -> None:
    """Index a few bundled photographs and answer some queries: no network, about a minute."""
    from retrieval_pipeline.demo import run_demo

    page = run_demo(directory.absolute(), say=click.echo)
    if open_page:
        webbrowser.open(page.as_uri())
