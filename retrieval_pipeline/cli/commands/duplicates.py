"""`retrieval duplicates`: list the pictures that the collection holds more than once."""

from pathlib import Path

import click

from retrieval_pipeline.cli.commands.common import check_page, config_option, write_page
from retrieval_pipeline.cli.output import echo, echo_json
from retrieval_pipeline.config.loading import load_settings


@click.command()
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True),
    help="Compare the looks of two pictures whose cosine is at least this. Default: 0.9.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--gallery", type=click.Path(path_type=Path), help="Write the groups as an HTML page."
)
@config_option
def duplicates(
    threshold: float | None, as_json: bool, gallery: Path | None, config: Path | None
) -> None:
    """List files that are the same, or that look the same: resized, re-encoded, retouched.

    The numbers are cosines with the first picture of the group. No file is ever deleted.
    """
    settings = load_settings(config)
    if gallery is not None:
        check_page(gallery)
    from retrieval_pipeline.cli.text import duplicates_text
    from retrieval_pipeline.search.near_duplicates import (
        NEAR_DUPLICATE,
        duplicate_groups,
        duplicates_json,
    )
    from retrieval_pipeline.search.searcher import Searcher

    searcher = Searcher.open(settings)
    groups = duplicate_groups(
        searcher.build, searcher.path_of, searcher.looks, threshold or NEAR_DUPLICATE
    )
    if as_json:
        echo_json(duplicates_json(groups), indent=2)
    else:
        echo(*duplicates_text(groups))
    if gallery is not None:
        from retrieval_pipeline.cli.gallery import duplicates_html
        from retrieval_pipeline.images.errors import Limits

        html = duplicates_html(groups, Limits.of(settings.images))
        write_page(html, gallery, open_page=False)
