"""`retrieval gc`: give back the disk space that nobody needs."""

from pathlib import Path

import click

from retrieval_pipeline.cli.commands.common import config_option
from retrieval_pipeline.config import load_settings


@click.command()
@click.option("--dry-run", is_flag=True, help="Remove nothing; say what would go.")
@click.option(
    "--other-models",
    is_flag=True,
    help="Also remove embeddings and builds of all models but that of the settings.",
)
@config_option
def gc(dry_run: bool, other_models: bool, config: Path | None) -> None:
    """Give back the disk space of what the settings no longer name.

    That is tables of former sources, embeddings of images that are gone, old builds and maps, and
    what killed runs and repairs left behind. Small tables are merged. Pictures and votes are never
    touched, nor what a process has open.
    """
    settings = load_settings(config)
    from retrieval_pipeline.cli.text import gc_text
    from retrieval_pipeline.encoders.from_settings import describe_encoder
    from retrieval_pipeline.maintenance.gc import collect
    from retrieval_pipeline.storage.store import Store

    store = Store(settings.home)
    freed = collect(
        store,
        settings.source_names,
        only_space=describe_encoder(settings).space if other_models else None,
        dry_run=dry_run,
    )
    click.echo(gc_text(freed, store.home, dry_run=dry_run))
