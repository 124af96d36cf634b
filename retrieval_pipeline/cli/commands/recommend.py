"""`retrieval recommend`: vote on pictures, and see the ranking that is learned from the votes."""

import functools
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_pipeline.cli.commands.common import (
    check_page,
    config_option,
    source_option,
    write_page,
)
from retrieval_pipeline.cli.output import echo, echo_json, plural, tell
from retrieval_pipeline.cli.parameters import Count, FilePath
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.errors import CommandError

if TYPE_CHECKING:
    from retrieval_pipeline.images.errors import Limits
    from retrieval_pipeline.recommend.recommender import Candidate, Recommender

KEYS = "y = like, n = not, u = undo, q = quit"


@click.command()
@click.option(
    "--name",
    default="default",
    show_default=True,
    help="Name of the recommender, which has its own votes.",
)
@click.option(
    "--strategy",
    type=click.Choice(["alternating", "uncertain"]),
    default="alternating",
    show_default=True,
    help="Show predicted likes and dislikes in turn, or the pictures that are hardest to predict.",
)
@click.option(
    "--rank",
    type=Count(1),
    metavar="N",
    help="Print the N best pictures without a vote.",
)
@click.option("--gallery", type=FilePath(), help="Write the ranking as an HTML page.")
@click.option(
    "--open",
    "open_it",
    is_flag=True,
    help="Open the page of the ranking; when voting, each picture.",
)
@click.option(
    "--from-json",
    "votes_file",
    type=FilePath(),
    metavar="FILE",
    help='Add votes: [{"path" or "content_id": "...", "liked": true}, ...]. A path is that of a '
    "file, or relative to a source.",
)
@click.option("--json", "as_json", is_flag=True, help="Print votes and ranking as JSON.")
@source_option
@config_option
def recommend(
    name: str,
    strategy: str,
    rank: int | None,
    gallery: Path | None,
    open_it: bool,
    votes_file: Path | None,
    as_json: bool,
    sources: tuple[str, ...],
    config: Path | None,
) -> None:
    """Learn what you like from yes/no votes, and recommend pictures that you have not seen.

    Shows one picture after the other and takes a key for each: y (like), n (do not like), u (undo
    the last vote), q (quit). Every vote is stored at once, so you can stop at any time and go on
    later. Of piped input, each line is one answer.

    \b
    retrieval recommend --name cats
    retrieval recommend --name cats --rank 50 --gallery cats.html --open
    retrieval recommend --name cats --from-json votes.json
    """
    voting = rank is None and votes_file is None
    if voting and as_json:
        raise click.UsageError("--json needs --rank or --from-json")
    if rank is None and gallery is not None:
        raise click.UsageError("--gallery needs --rank")
    settings = load_settings(config)
    if gallery is not None:
        check_page(gallery)
    from retrieval_pipeline.cli.ranking import ranking_html, ranking_text, recommender_json
    from retrieval_pipeline.images.errors import Limits
    from retrieval_pipeline.recommend.recommender import Recommender
    from retrieval_pipeline.recommend.votes import read_votes_file, require_recommender
    from retrieval_pipeline.search.named_pictures import stored_files
    from retrieval_pipeline.search.searcher import Searcher
    from retrieval_pipeline.storage.store import Store

    store, limits = Store(settings.home), Limits.of(settings.images)
    added = []
    if votes_file is not None:
        added = read_votes_file(votes_file, functools.partial(stored_files, settings))
    if rank is not None and votes_file is None:
        require_recommender(store, name)
    recommender = Recommender(Searcher.open(settings), name, strategy=strategy, sources=sources)
    if recommender.note:
        tell(recommender.note)
    if voting:
        _converse(recommender, limits, open_each=open_it)
        return
    if votes_file is not None:
        recommender.add(added)
        tell(f"{plural(len(added), 'vote')} added: {recommender.votes_text}")
    ranking = recommender.ranking(rank) if rank is not None else []
    if as_json:
        echo_json(recommender_json(recommender, ranking), indent=2)
    elif rank is not None:
        echo(*ranking_text(ranking))
    if rank is not None and (gallery is not None or open_it):
        html = ranking_html(recommender, ranking, limits)
        write_page(html, gallery or store.last_gallery, open_page=open_it)


def _converse(recommender: "Recommender", limits: "Limits", *, open_each: bool) -> None:
    """Show pictures and take votes until q, the end of the input, or the last picture."""
    from retrieval_pipeline.rendering.terminal_image import terminal_protocol

    protocol = terminal_protocol()
    tell(f"{recommender.name}: {recommender.votes_text}")
    picture = _show_next(recommender, protocol, limits, open_each=open_each)
    while picture is not None:
        answer = _answer()
        if answer in ("y", "n"):
            recommender.vote(picture, answer == "y")
            tell(_progress(recommender))
            picture = _show_next(recommender, protocol, limits, open_each=open_each)
        elif answer == "u":
            undone, before = recommender.undo()
            tell("undone" if undone else "there is no vote to undo")
            if before is not None and _show(before, protocol, limits, open_each=open_each):
                picture = before
        elif answer == "q":
            break
        else:
            tell(KEYS)
    if picture is None:
        tell("there is no image left to vote on")
    if recommender.model is not None:
        tell(
            f"see what it recommends: retrieval recommend --name {recommender.name} "
            "--rank 50 --open"
        )


def _answer() -> str:
    """Return the next key in lower case; of piped input, the first letter of the next line."""
    try:
        if sys.stdin.isatty():
            tell(f"{KEYS}: ", end="")
            answer = click.getchar()
            tell(answer if answer.isprintable() else "")
        else:
            answer = input().strip()
    except EOFError:
        return "q"
    return answer[:1].lower()


def _progress(recommender: "Recommender") -> str:
    right = recommender.right
    text = recommender.votes_text
    return f"{text}; {sum(right)} of {len(right)} predicted right" if right else text


def _show_next(
    recommender: "Recommender", protocol: str | None, limits: "Limits", *, open_each: bool
) -> "Candidate | None":
    """Show the next picture whose file can be used and return it; None if none is left."""
    while (picture := recommender.next()) is not None:
        if _show(picture, protocol, limits, open_each=open_each):
            return picture
        recommender.set_aside(picture)
    return None


def _show(picture: "Candidate", protocol: str | None, limits: "Limits", *, open_each: bool) -> bool:
    """Show a picture in the terminal, or just its path; return False if its file cannot be used."""
    from retrieval_pipeline.images.decode_pool import Job
    from retrieval_pipeline.images.errors import ImageError
    from retrieval_pipeline.paths import to_text
    from retrieval_pipeline.processes import open_file
    from retrieval_pipeline.rendering.terminal_image import picture_sequence

    path = to_text(str(picture.path))
    if not picture.path.is_file():
        tell(f"left out, because it has gone since it was indexed: {path}")
        return False
    if protocol is not None:
        try:
            job = Job(picture.path, picture.content_id)
            sequence = picture_sequence(job, protocol, limits)
        except ImageError as error:
            tell(f"left out: {path}: {error}")
            return False
        # The escape sequence that draws: the terminal must get it as it is.
        sys.stdout.write(sequence)
    echo(path)
    if open_each and isinstance(picture.path, Path):
        try:
            open_file(picture.path)
        except CommandError as error:
            tell(f"{error}; look at the path above")
    return True
