"""`retrieval gc`: remove stored files that are no longer needed."""

from pathlib import Path

import click

from retrieval_pipeline.cli.commands.common import config_option
from retrieval_pipeline.cli.output import report
from retrieval_pipeline.config.loading import load_settings


@click.command()
@click.option("--dry-run", is_flag=True, help="Only list what would be removed.")
@click.option(
    "--other-models",
    is_flag=True,
    help="Also remove the embeddings and builds of every model that the settings do not name.",
)
@config_option
def gc(dry_run: bool, other_models: bool, config: Path | None) -> None:
    """Remove stored files that the settings no longer need, to free disk space.

    These are tables of former sources, embeddings of images that are gone, old builds and maps, and
    what killed runs and repairs left behind. Small tables are merged. Pictures, votes and files
    that a process has open are never touched.
    """
    settings = load_settings(config)
    from retrieval_pipeline.cli.status_text import gc_text
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
    if settings.index.engine != "embedded":
        from retrieval_pipeline.maintenance.engine import collect_engine

        space = describe_encoder(settings).space
        freed += collect_engine(settings, space=space, other_models=other_models, dry_run=dry_run)
    report(*gc_text(freed, store.home, dry_run=dry_run))
