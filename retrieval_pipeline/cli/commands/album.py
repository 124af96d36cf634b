"""`retrieval album`: named sets of pictures."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_pipeline.cli.commands.common import config_option
from retrieval_pipeline.cli.output import echo, echo_styled, plural, tell
from retrieval_pipeline.cli.parameters import FilePath
from retrieval_pipeline.config.loading import load_settings

if TYPE_CHECKING:
    from retrieval_pipeline.search.results import Answer
    from retrieval_pipeline.search.searcher import Searcher
    from retrieval_pipeline.storage.albums import AlbumPicture

ACTIONS = ("show", "add", "remove", "export", "rename", "delete")


@click.command()
@click.argument("name", required=False)
@click.argument("action", type=click.Choice(ACTIONS), default="show")
@click.argument("pictures", nargs=-1)
@click.option("--json", "form", flag_value="jsonl", help="Print JSON, one line for each picture.")
@click.option("--csv", "form", flag_value="csv", help="Print a table as CSV.")
@click.option(
    "-0", "form", flag_value="null", help="Read and print paths with a NUL after each, not a line."
)
@click.option("--copy-to", type=FilePath(), help="With export: copy the files.")
@config_option
def album(
    name: str | None,
    action: str,
    pictures: tuple[str, ...],
    form: str | None,
    copy_to: Path | None,
    config: Path | None,
) -> None:
    """List the albums, or show and change the album NAME.

    An album is a set of pictures under a name, which may be any words. It keeps what is in the
    pictures and not where they are: moved and renamed files stay in it. PICTURES are files, paths
    relative to a source, or content ids; without any, they are read from standard input.

    \b
    retrieval album holidays add lisbon/*.jpg
    retrieval query a dog on the beach -n 50 -0 | retrieval album "our dogs" add -0
    retrieval album holidays                       its pictures, the newest first
    retrieval album holidays export > paths.txt    or --csv, --json, -0, --copy-to DIR
    retrieval album holidays remove lisbon/a.jpg
    retrieval album holidays rename "summer 2019"
    retrieval album holidays delete                the set, never the pictures
    retrieval query a dog --album holidays         a filter
    retrieval query --like-album holidays          more of the kind
    """
    settings = load_settings(config)
    from retrieval_pipeline.storage.albums import (
        album_names,
        delete_album,
        read_album,
        remove_from_album,
        rename_album,
    )
    from retrieval_pipeline.storage.store import Store

    store = Store(settings.home)
    if name is None:
        # So that albums of a home on another machine are fetched first.
        store.current_build()
        names = album_names(store)
        echo(*(f"{len(read_album(store, each)):>6,}  {each}" for each in names))
        if not names:
            tell("no album yet: `retrieval album NAME add FILE...` begins one")
        return
    if action == "rename":
        if len(pictures) != 1:
            raise click.UsageError("rename takes one new name: quote it if it has spaces")
        rename_album(store, name, *pictures)
        tell(f'the album is now named "{pictures[0]}"')
        return
    if pictures and action in ("show", "export", "delete"):
        raise click.UsageError(f"{action} takes no pictures")
    if action == "delete":
        count = len(read_album(store, name))
        delete_album(store, name)
        tell(f"deleted the album, and left {plural(count, 'picture')} where they are")
        return
    from retrieval_pipeline.search.searcher import Searcher

    searcher = Searcher.open(settings)
    if action in ("add", "remove"):
        named = pictures or tuple(_names_of_input("\0" if form == "null" else "\n"))
        if not named:
            raise click.UsageError(f"name pictures to {action}, or pipe their paths in")
        if action == "add":
            tell(_add(searcher, name, named))
        else:
            before = read_album(store, name)
            left = remove_from_album(store, name, _members(searcher, before, named))
            tell(f"{len(before) - len(left):,} removed; {len(left):,} in the album")
        return
    if copy_to is not None and action != "export":
        raise click.UsageError("--copy-to is about export")
    members = read_album(store, name)
    answer = _listed(searcher, name, len(members))
    _print(answer, form, paths=action == "export")
    if copy_to is not None:
        from retrieval_pipeline.cli.hit_files import check_directory, put_files

        check_directory(copy_to, settings)
        put = put_files([hit.path for hit in answer.hits], copy_to, "copy")
        tell(put.told("copy", copy_to))
    shown = {hit.content_id for hit in answer.hits}
    for picture in members:
        if picture.content_id not in shown:
            was = f", was {picture.path}" if picture.path else ""
            tell(f"not in the index now, kept in the album: {picture.content_id}{was}")


def _names_of_input(end: str) -> list[str]:
    """Return the names that are piped in; none from a terminal."""
    return [] if sys.stdin.isatty() else [name for name in sys.stdin.read().split(end) if name]


def _add(searcher: "Searcher", name: str, named: tuple[str, ...]) -> str:
    """Add pictures, and say how many were new."""
    from retrieval_pipeline.search.named_pictures import find_pictures
    from retrieval_pipeline.storage.albums import add_to_album, album_names, read_album
    from retrieval_pipeline.storage.store import Store

    store = Store(searcher.settings.home)
    found = {
        content: f"{place.source}/{place.path}"
        for content, place in find_pictures(searcher, named).items()
    }
    before = len(read_album(store, name)) if name in album_names(store) else 0
    album = add_to_album(store, name, found)
    added = len(album) - before
    known = f", {len(found) - added:,} were in it" if len(found) > added else ""
    return f"{added:,} added{known}; {len(album):,} in the album"


def _members(searcher: "Searcher", album: "list[AlbumPicture]", named: tuple[str, ...]) -> set[str]:
    """Return the content ids of named pictures; those of the album need not be in the index."""
    from retrieval_pipeline.search.named_pictures import find_pictures

    by_name = {picture.path: picture.content_id for picture in album if picture.path}
    by_name |= {picture.content_id: picture.content_id for picture in album}
    others = [each for each in named if each not in by_name]
    return {by_name[each] for each in named if each in by_name} | {*find_pictures(searcher, others)}


def _listed(searcher: "Searcher", name: str, count: int) -> "Answer":
    """Return the pictures of an album that are in the index, the newest first."""
    from retrieval_pipeline.search.query import Query

    return searcher.answer(Query(albums=(name,), sort="newest"), max(count, 1))


def _print(answer: "Answer", form: str | None, *, paths: bool) -> None:
    from retrieval_pipeline.cli.answer_text import answer_text
    from retrieval_pipeline.cli.rows import echo_columns, echo_rows

    if form == "csv":
        echo_columns()
    if form is not None or paths:
        echo_rows(answer, form or "paths")
    elif answer.hits:
        if sys.stdout.isatty():
            from retrieval_pipeline.cli.styled import styled_answer

            echo_styled(*styled_answer(answer, heading=False))
        else:
            echo(*answer_text(answer, heading=False))
