"""`retrieval status`: show what is indexed."""

import sys
from dataclasses import asdict
from pathlib import Path

import click

from retrieval_pipeline.cli.begin import load_arrow_without_pandas
from retrieval_pipeline.cli.commands.common import config_option
from retrieval_pipeline.cli.output import echo, echo_json
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.paths import to_text


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option("--failed", is_flag=True, help="List the files that failed, with the reasons.")
@config_option
def status(as_json: bool, failed: bool, config: Path | None) -> None:
    """Show what is indexed, by which model, how old that is, and what failed."""
    settings = load_settings(config)
    load_arrow_without_pandas()
    from retrieval_pipeline.cli.status_text import failed_text, status_text
    from retrieval_pipeline.encoders.from_settings import describe_encoder
    from retrieval_pipeline.maintenance.failed_files import read_failed_files
    from retrieval_pipeline.maintenance.status import read_status, status_json

    space = describe_encoder(settings).space
    if failed:
        files = read_failed_files(settings, space)
        if as_json:
            echo_json(
                [asdict(each) | {"path": to_text(str(each.path))} for each in files], indent=2
            )
        else:
            echo(*failed_text(files, terminal=sys.stdout.isatty()))
        return
    state = read_status(settings, space)
    echo(*(status_json(state).splitlines() if as_json else status_text(state)))
