"""`retrieval query`: find pictures, once, in a conversation or for each line of a pipe."""

import json
import sys
import webbrowser
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_pipeline.commands.common import config_option
from retrieval_pipeline.config import Settings, load_settings
from retrieval_pipeline.errors import QueryError

if TYPE_CHECKING:
    from retrieval_pipeline.search import Answer, Query, Searcher


@click.command()
@click.argument("text", required=False)
@click.option("--image", type=click.Path(path_type=Path), help="Find pictures like this one.")
@click.option(
    "--plus", multiple=True, metavar="TEXT", help="Move the meaning towards this (repeat)."
)
@click.option("--minus", multiple=True, metavar="TEXT", help="Move it away from this (repeat).")
@click.option(
    "-k", default=8, show_default=True, type=click.IntRange(min=1), help="Number of hits."
)
@click.option(
    "--source", "sources", multiple=True, metavar="NAME", help="Only this source (repeat)."
)
@click.option(
    "--path", "paths", multiple=True, metavar="GLOB", help="Only paths like this (repeat)."
)
@click.option(
    "--min-relevance", default=0.0, type=click.FloatRange(0, 1), help="Leave out hits below it."
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON; one line a query when piped.")
@click.option("--gallery", type=click.Path(path_type=Path), help="Write the hits as an HTML page.")
@click.option("--open", "open_page", is_flag=True, help="Open the gallery in the browser.")
@config_option
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
    settings = load_settings(config)
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
    if text is not None or image is not None or plus or minus:
        answers = [searcher.answer(base, k)]
        _print_answer(answers[0], as_json=as_json, pretty=True)
    else:
        answers = _converse(searcher, base, k, as_json=as_json)
    if gallery is not None or open_page:
        _write_gallery(answers, gallery, settings, open_page)


def _converse(searcher: "Searcher", base: "Query", k: int, *, as_json: bool) -> "list[Answer]":
    """Answer one line after the other until "exit"; one that cannot be answered ends nothing."""
    interactive = sys.stdin.isatty()
    if interactive:
        # Line editing and history for input().
        import readline  # noqa: F401

        click.echo(f'{len(searcher.build):,} images. "exit" or Ctrl-D leaves.', err=True)
        searcher.encoder.encode_texts(["a photo"])
    answers: list[Answer] = []
    failed = False
    for line in _lines(interactive):
        try:
            answer = searcher.answer(replace(base, text=line), k)
        except QueryError as error:
            failed = True
            click.echo(f"error: {error}", err=True)
            if as_json:
                # One line in, one line out.
                click.echo(json.dumps({"query": line, "error": str(error)}))
            continue
        answers.append(answer)
        _print_answer(answer, as_json=as_json, pretty=False)
    if failed and not interactive:
        raise SystemExit(1)
    return answers


def _lines(interactive: bool) -> Iterator[str]:
    while True:
        try:
            line = input("> " if interactive else "").strip()
        except EOFError:
            if interactive:
                click.echo(err=True)
            return
        if line.lower() in ("exit", "quit"):
            return
        yield line


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
