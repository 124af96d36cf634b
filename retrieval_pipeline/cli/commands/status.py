"""`retrieval status`: show what is indexed."""

from pathlib import Path

import click

from retrieval_pipeline.cli.commands.common import config_option
from retrieval_pipeline.cli.output import echo
from retrieval_pipeline.config.loading import load_settings


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_option
def status(as_json: bool, config: Path | None) -> None:
    """Show what is indexed, by which model, how old that is, and what failed."""
    settings = load_settings(config)
    from retrieval_pipeline.cli.text import status_text
    from retrieval_pipeline.encoders.from_settings import describe_encoder
    from retrieval_pipeline.maintenance.status import read_status, status_json

    state = read_status(settings, describe_encoder(settings).space)
    echo(*(status_json(state).splitlines() if as_json else status_text(state)))
