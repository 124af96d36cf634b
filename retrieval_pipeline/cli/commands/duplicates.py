"""`retrieval duplicates`: list what the collection holds more than once, and plan what could go."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_pipeline.cli.commands.common import check_page, config_option, write_page
from retrieval_pipeline.cli.output import echo, echo_json, json_text, tell
from retrieval_pipeline.cli.parameters import FilePath, Fraction
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.paths import real_path

if TYPE_CHECKING:
    from retrieval_pipeline.config.settings import Settings
    from retrieval_pipeline.search.duplicate_plan import Action


@click.command()
@click.option(
    "--threshold",
    type=Fraction(min_open=True),
    help="Compare the looks of two pictures whose cosine is at least this. Default: 0.9.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--gallery", type=FilePath(), help="Write the groups as an HTML page.")
@click.option(
    "--keep",
    multiple=True,
    metavar="RULES",
    help="Plan which file of each group stays: largest, oldest, newest, format=png/jpeg, "
    "source=A/B, path=GLOB; the first rule decides first. Can be repeated. Default of a plan: "
    "largest,oldest.",
)
@click.option(
    "--reference",
    multiple=True,
    metavar="SOURCE",
    help="Never propose files of this source; others go before they do. Can be repeated.",
)
@click.option("--hardlink", is_flag=True, help="Plan hard links for files with the same bytes.")
@click.option("--move-to", type=FilePath(), help="Plan to move files into this directory.")
@click.option(
    "--script",
    type=FilePath(),
    help="Write the plan as a shell script, to review and run: files go to the trash.",
)
@click.option("--plan", type=FilePath(), help="Write the plan as JSON.")
@config_option
def duplicates(
    threshold: float | None,
    as_json: bool,
    gallery: Path | None,
    keep: tuple[str, ...],
    reference: tuple[str, ...],
    hardlink: bool,
    move_to: Path | None,
    script: Path | None,
    plan: Path | None,
    config: Path | None,
) -> None:
    """List files that are the same, or that look the same: resized, re-encoded, retouched.

    The numbers are cosines with the first picture of the group. No file is ever deleted: a plan
    says what could go and how much that is, and a script does it where you run it, step by step,
    after it has checked that the files have not changed.

    \b
    retrieval duplicates --keep largest
    retrieval duplicates --keep source=Pictures,format=png/jpeg --script tidy.sh
    retrieval duplicates --reference Archive --keep oldest --hardlink --script link.sh
    """
    settings = load_settings(config)
    action = _action(hardlink=hardlink, move_to=move_to)
    planning = bool(keep or reference or hardlink or move_to or script or plan)
    for file in (gallery, script, plan):
        if file is not None:
            check_page(file)
    from retrieval_pipeline.cli.duplicates_text import duplicates_text
    from retrieval_pipeline.search.duplicate_plan import DEFAULT_RULES, parse_rules
    from retrieval_pipeline.search.near_duplicates import (
        NEAR_DUPLICATE,
        duplicate_groups,
        duplicates_json,
    )
    from retrieval_pipeline.search.searcher import Searcher

    rules = parse_rules(keep) or DEFAULT_RULES
    _check(settings, reference, move_to)
    searcher = Searcher.open(settings).whole
    groups = duplicate_groups(
        searcher.corpus, searcher.path_of, searcher.looks, threshold or NEAR_DUPLICATE
    )
    if planning:
        from retrieval_pipeline.cli.duplicates_text import plan_text
        from retrieval_pipeline.search.duplicate_plan import (
            pictures_to_leave,
            plan_duplicates,
            plan_json,
        )
        from retrieval_pipeline.search.duplicate_script import duplicate_script
        from retrieval_pipeline.storage.store import Store

        planned = plan_duplicates(
            groups,
            searcher.looks.same,
            rules,
            references=reference,
            action=action,
            leave=pictures_to_leave(Store(settings.home)),
        )
        if as_json:
            echo_json(plan_json(planned), indent=2)
        else:
            echo(*plan_text(planned, terminal=sys.stdout.isatty()))
        if plan is not None:
            _write(plan, f"{json_text(plan_json(planned), indent=2)}\n".encode())
        if script is not None:
            target = move_to.absolute() if move_to is not None else None
            _write(script, duplicate_script(planned, target))
    elif as_json:
        echo_json(duplicates_json(groups), indent=2)
    else:
        echo(*duplicates_text(groups, terminal=sys.stdout.isatty()))
    if gallery is not None:
        from retrieval_pipeline.cli.gallery import duplicates_html
        from retrieval_pipeline.images.errors import Limits

        html = duplicates_html(groups, Limits.of(settings.images))
        write_page(html, gallery, open_page=False)


def _action(*, hardlink: bool, move_to: Path | None) -> "Action":
    """Return what is to be done with files that can go.

    Raises:
        UsageError: Two things at once.
    """
    if hardlink and move_to is not None:
        raise click.UsageError("give --hardlink or --move-to, not both")
    return "hardlink" if hardlink else "trash" if move_to is None else "move"


def _check(settings: "Settings", references: tuple[str, ...], move_to: Path | None) -> None:
    """Refuse what is no source, and a directory whose files would be indexed.

    Raises:
        QueryError: There is no such source.
        RetrievalError: The directory lies in a source or in the home.
    """
    known = [source.name for source in settings.sources]
    for name in references:
        if name not in known:
            raise QueryError(f'there is no source "{name}": the settings have {", ".join(known)}')
    if move_to is not None:
        from retrieval_pipeline.cli.hit_files import check_directory

        check_directory(move_to, settings)


def _write(file: Path, data: bytes) -> None:
    """Write a plan, and say where it is.

    Raises:
        StoreError: It cannot be written.
    """
    from retrieval_pipeline.storage.atomic import replacing

    where = real_path(file)
    with replacing(where) as temporary:
        temporary.write_bytes(data)
    tell(f"plan: {where}")
