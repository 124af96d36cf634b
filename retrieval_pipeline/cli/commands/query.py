"""`retrieval query`: answer one query, a prompt, or each line of piped input."""

import functools
import os
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from retrieval_pipeline.cli.begin import load_arrow_without_pandas
from retrieval_pipeline.cli.commands.common import (
    Sectioned,
    album_options,
    check_page,
    config_option,
    fact_options,
    path_option,
    source_option,
    write_page,
)
from retrieval_pipeline.cli.output import echo, echo_json, echo_styled, plural, tell
from retrieval_pipeline.cli.parameters import Count, FilePath, Fraction
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.errors import QueryError

if TYPE_CHECKING:
    from retrieval_pipeline.cli.hit_files import How
    from retrieval_pipeline.search.query import Query
    from retrieval_pipeline.search.results import Answer
    from retrieval_pipeline.search.searcher import Searcher

# The prompt leaves out hits below this relevance: less than one in ten of them would be right.
CUT = 0.1

# Options that are no fields of the query.
ABOUT_THE_ANSWER = {"words", "k", "offset", "explain", "thumbnails"}


@click.command(
    cls=Sectioned,
    headings={
        "images": "What to look for",
        "sources": "Which pictures may be found",
        "k": "How many hits, and in which order",
        "explain": "What is printed",
        "copy_to": "Files and pages",
        "config": "Other options",
    },
)
@click.argument("words", metavar="[TEXT]...", nargs=-1)
@click.option(
    "--image",
    "images",
    multiple=True,
    type=FilePath(),
    help="Find pictures similar to this file; fastest if it is indexed. Can be repeated.",
)
@click.option(
    "--like",
    multiple=True,
    metavar="CONTENT_ID|PATH",
    help="Find pictures similar to this indexed picture; a path is as with --image. Can be "
    "repeated.",
)
@click.option(
    "--crop",
    metavar="X,Y,W,H",
    help="Only this rectangle of the picture, in pixels or, up to 1, in fractions of its size.",
)
@click.option(
    "--plus",
    multiple=True,
    metavar="TEXT",
    help='More words to look for; "2*snow" weighs twice. Can be repeated.',
)
@click.option(
    "--minus",
    multiple=True,
    metavar="TEXT",
    help='Words to avoid; "2*people" weighs twice. Can be repeated.',
)
@click.option("--literal", is_flag=True, help="Read no words as facts, such as: in summer 2019.")
@source_option
@path_option
@fact_options
@album_options
@click.option("--min-width", default=0, type=Count(), metavar="PIXELS", help="Least width.")
@click.option("--min-height", default=0, type=Count(), metavar="PIXELS", help="Least height.")
@click.option(
    "--format",
    "formats",
    multiple=True,
    metavar="NAME",
    help="Only files of this format, such as png. Can be repeated.",
)
@click.option(
    "-k",
    "-n",
    "k",
    default=8,
    show_default=True,
    type=Count(1),
    help="Number of hits.",
)
@click.option(
    "--offset",
    default=0,
    type=Count(),
    help="Leave out this many of the best hits.",
)
@click.option(
    "--min-relevance",
    type=Fraction(),
    help=f"Leave out hits of lower relevance. Default: 0, and {CUT} in the prompt.",
)
@click.option(
    "--sort",
    type=click.Choice(["relevance", "newest", "oldest", "name"]),
    default="relevance",
    help="Order of the hits. All but relevance order only hits that are relevant enough, and list "
    "what passes the filters if there is no TEXT.",
)
@click.option("--collapse", is_flag=True, help="Show only the best of hits that look the same.")
@click.option(
    "-v", "--explain", is_flag=True, help="Also print the search plan and the time of each step."
)
@click.option(
    "--json",
    "form",
    flag_value="json",
    help="Print JSON; for piped input, one line for each query.",
)
@click.option("--jsonl", "form", flag_value="jsonl", help="Print JSON, one line for each hit.")
@click.option("--csv", "form", flag_value="csv", help="Print a table as CSV.")
@click.option(
    "--paths",
    "form",
    flag_value="paths",
    help="Print only the paths, one on a line, as the file system has them.",
)
@click.option(
    "-0", "form", flag_value="null", help="The same with a NUL after each, for: xargs -0."
)
@click.option(
    "--thumbnails/--no-thumbnails",
    default=None,
    help="Pictures beside the hits, on a terminal that shows some. Default: on kitty, Ghostty, "
    "iTerm2, WezTerm and foot; with the option, other terminals are asked whether they know sixel.",
)
@click.option("--fail-empty", is_flag=True, help="Exit with 1 if nothing is found.")
@click.option("--copy-to", type=FilePath(), help="Copy the files there, by rank.")
@click.option("--link-to", type=FilePath(), help="Put symbolic links there.")
@click.option("--hard", is_flag=True, help="With --link-to: hard links, which share the bytes.")
@click.option("--dry-run", is_flag=True, help="Only say what --copy-to or --link-to would do.")
@click.option("--gallery", type=FilePath(), help="Write the hits as an HTML page.")
@click.option("--open", "open_page", is_flag=True, help="Open the gallery in the browser.")
@config_option
def query(
    form: str | None,
    copy_to: Path | None,
    link_to: Path | None,
    hard: bool,
    dry_run: bool,
    fail_empty: bool,
    gallery: Path | None,
    open_page: bool,
    config: Path | None,
    **asked: Any,
) -> None:
    """Find the pictures that look most like TEXT; `retrieval search` is the same.

    TEXT needs no quotes, unless the shell takes its characters for something else.

    The percentage is the relevance: how sure it is that the picture has to do with TEXT; hits from
    50% on are more probably right than wrong. The number before it is the cosine of the vectors,
    which only compares hits of one query. A day with "?" is that of the file's last change.

    Without TEXT, a prompt asks for queries until "exit" or Ctrl-D (":help" there says more). Of
    piped input, each line is answered as a query.

    \b
    retrieval query a dog on grass -k 12
    retrieval query "a street" --plus "2*night" --minus people --source holidays
    retrieval query "dogs" --on "summer 2019" --near Lisbon --sort newest
    retrieval query --image photo.jpg --after 2024 --gallery similar.html --open
    retrieval query --image photo.jpg --crop 0.5,0,0.5,1
    retrieval query --json < queries.txt
    retrieval query a dog -n 100 -0 | xargs -0 ls -l
    retrieval query a dog -n 100 --copy-to dogs
    """
    directory, how = _destination(copy_to, link_to, hard=hard, dry_run=dry_run)
    settings = load_settings(config)
    load_arrow_without_pandas()
    if directory is not None:
        from retrieval_pipeline.cli.hit_files import check_directory

        check_directory(directory, settings)
    if gallery is not None:
        check_page(gallery)
    from retrieval_pipeline.search.query import Query
    from retrieval_pipeline.search.searcher import Searcher
    from retrieval_pipeline.storage.store import Store

    searcher = Searcher.open(settings)
    base = _query_of(asked)
    if form == "csv":
        from retrieval_pipeline.cli.rows import echo_columns

        echo_columns()
    asks_for_lines = replace(base.terms, minus=()) == Query() and base.sort == "relevance"
    if sys.stdin.isatty() and asks_for_lines:
        answers = _converse(searcher, asked, form)
    elif asks_for_lines:
        answers = _answer_lines(searcher, base, asked, form)
    else:
        answers = [_answer(searcher, base, asked, form, pretty=True)]
    if directory is not None:
        for answer in answers:
            _put_files(answer, directory, how, dry_run=dry_run)
    if gallery is not None or open_page:
        from retrieval_pipeline.cli.gallery import gallery_html
        from retrieval_pipeline.images.errors import Limits

        html = gallery_html(answers, Limits.of(settings.images))
        write_page(html, gallery or Store(settings.home).last_gallery, open_page=open_page)
    if fail_empty and not any(answer.hits for answer in answers):
        raise SystemExit(1)


def _destination(
    copy_to: Path | None, link_to: Path | None, *, hard: bool, dry_run: bool
) -> "tuple[Path | None, How]":
    """Return the directory for the files of the hits, and how they get there.

    Raises:
        UsageError: The options do not fit together.
    """
    if copy_to is not None and link_to is not None:
        raise click.UsageError("give --copy-to or --link-to, not both")
    if hard and link_to is None:
        raise click.UsageError("--hard is about the links of --link-to")
    if dry_run and copy_to is None and link_to is None:
        raise click.UsageError("--dry-run is about --copy-to and --link-to")
    if copy_to is not None:
        return copy_to, "copy"
    return link_to, "hard link" if hard else "link"


def _put_files(answer: "Answer", directory: Path, how: "How", *, dry_run: bool) -> None:
    """Copy or link the files of an answer, and say so on stderr: stdout has the hits."""
    from retrieval_pipeline.cli.hit_files import put_files

    paths = [hit.path for hit in answer.hits]
    put = put_files(paths, directory, how, first=answer.offset + 1, dry_run=dry_run)
    if dry_run:
        tell(*(f"would {how} {line}" for line in put.lines))
    else:
        tell(put.told(how, directory))


def _query_of(asked: Mapping[str, Any]) -> "Query":
    """Return the query that the options and words ask; raises as `Query.of` does."""
    from retrieval_pipeline.search.query import Query

    fields = {name: value for name, value in asked.items() if name not in ABOUT_THE_ANSWER}
    named = [each for each in asked["like"] if Path(each).is_file()]
    fields["like"] = tuple(each for each in asked["like"] if each not in named)
    fields["images"] = (*asked["images"], *map(Path, named))
    fields["text"] = " ".join(asked["words"]) if asked["words"] else None
    fields["min_relevance"] = asked["min_relevance"] or 0.0
    return Query.of(fields)


def _answer(
    searcher: "Searcher",
    query: "Query",
    asked: Mapping[str, Any],
    form: str | None,
    *,
    pretty: bool = False,
    heading: bool = False,
) -> "Answer":
    """Answer a query and show the answer.

    Args:
        searcher: Of the current index.
        query: What is looked for.
        asked: The options of the command, of which those in ABOUT_THE_ANSWER are taken.
        form: As what the answer is printed; None is for people.
        pretty: JSON is printed on several lines.
        heading: The query is printed above its answer.

    Raises:
        QueryError: As `Searcher.answer` raises it.
    """
    answer = searcher.answer(query, asked["k"], asked["offset"])
    protocol = _protocol(asked["thumbnails"]) if form is None else None
    _print_answer(answer, form, searcher, protocol, pretty=pretty, heading=heading)
    if asked["explain"]:
        from retrieval_pipeline.cli.answer_text import answer_explanation

        tell(answer_explanation(answer))
    return answer


def _converse(searcher: "Searcher", asked: Mapping[str, Any], form: str | None) -> "list[Answer]":
    """Answer the lines of a prompt; a line may have options, which replace those of the command."""
    from retrieval_pipeline.cli.prompt import converse

    tell(f'{plural(len(searcher.index), "image")}. ":help" helps, "exit" or Ctrl-D leaves.')
    searcher.warm_up()
    given = {**asked, "words": ()}
    if given["min_relevance"] is None:
        given["min_relevance"] = CUT

    def answer(words: list[str]) -> "Answer":
        context = query.make_context("", words)
        here = {
            name: value
            for name, value in context.params.items()
            if context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        }
        if here.keys() - given.keys():
            raise click.UsageError("where answers go is said on the command line, not here")
        merged = {**given, **here}
        nonlocal searcher
        searcher = searcher.latest()  # another process may have indexed meanwhile
        return _answer(searcher, _query_of(merged), merged, form)

    return converse(answer)


def _answer_lines(
    searcher: "Searcher", base: "Query", asked: Mapping[str, Any], form: str | None
) -> "list[Answer]":
    """Answer the lines of the input until "exit" or its end; an error ends only its own query."""
    from retrieval_pipeline.search.query import Query

    # Everything else is loaded by the first query.
    searcher.index.warm_up()
    answers: list[Answer] = []
    failed = False
    for line in map(str.strip, sys.stdin):
        if line.lower() in ("exit", "quit"):
            break
        searcher = searcher.latest()
        try:
            answers.append(_answer(searcher, replace(base, text=line), asked, form, heading=True))
        except QueryError as error:
            failed = True
            tell(*(f"error: {line}" for line in error.args))
            if form == "json":
                # One line in, one line out.
                echo_json({"query": _escaped(line), "error": str(error)})
    if failed:
        raise SystemExit(1)
    if not answers and base.terms == Query() != base:
        tell('note: no query came; with "--sort newest" what passes the filters is listed')
    return answers


def _escaped(line: str) -> str:
    """Return a line whose bytes that are not UTF-8 are written as escapes."""
    return line.encode(errors="surrogateescape").decode(errors="backslashreplace")


@functools.cache
def _protocol(wanted: bool | None) -> str | None:
    """Return how this terminal shows pictures; None if it does not, or nobody wants them."""
    if wanted is False or not sys.stdout.isatty():
        return None
    from retrieval_pipeline.rendering.terminal_image import protocol_of, terminal_protocol

    if wanted is None:
        return protocol_of(os.environ)
    protocol = terminal_protocol()
    if protocol is None:
        tell("note: this terminal shows no pictures")
    return protocol


def _print_answer(
    answer: "Answer",
    form: str | None,
    searcher: "Searcher",
    protocol: str | None,
    *,
    pretty: bool,
    heading: bool,
) -> None:
    from retrieval_pipeline.cli.answer_text import answer_text, understood_text
    from retrieval_pipeline.search.results import answer_json

    if form == "json":
        echo_json(answer_json(answer), indent=2 if pretty else None)
    elif form is not None:
        from retrieval_pipeline.cli.rows import echo_rows

        echo_rows(answer, form)
    else:
        if protocol is not None and answer.hits:
            from retrieval_pipeline.cli.thumbnails import echo_with_thumbnails
            from retrieval_pipeline.images.errors import Limits

            limits = Limits.of(searcher.settings.images)
            echo_with_thumbnails(answer, protocol, limits, heading=heading)
        elif sys.stdout.isatty():
            from retrieval_pipeline.cli.styled import styled_answer

            echo_styled(*styled_answer(answer, heading=heading))
        else:
            echo(*answer_text(answer, heading=heading))
        if answer.hits:
            tell(answer.verdict)
        for hint in answer.hints:
            tell(f"hint: {hint}")
    tell(*understood_text(answer))
