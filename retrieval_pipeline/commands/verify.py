"""`retrieval verify`: check every stored file."""

from pathlib import Path

import click

from retrieval_pipeline.commands.common import config_option
from retrieval_pipeline.config import load_settings
from retrieval_pipeline.errors import RetrievalError


@click.command()
@config_option
def verify(config: Path | None) -> None:
    """Check every stored file against its contract; exit 1 if anything is off."""
    settings = load_settings(config)
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
