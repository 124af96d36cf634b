"""`retrieval use`: list the builds, and go back to an earlier one."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_pipeline.cli.commands.common import config_option
from retrieval_pipeline.cli.output import echo, report, tell
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.errors import BuildError, RetrievalError

if TYPE_CHECKING:
    from retrieval_pipeline.config.settings import Settings


@click.command()
@click.argument("build", required=False)
@click.option("--latest", is_flag=True, help="Let `retrieval index` publish new builds again.")
@config_option
def use(build: str | None, latest: bool, config: Path | None) -> None:
    """Answer from BUILD until `--latest` is given; without BUILD, list the builds.

    The beginning of a name is enough, if no other build has it.

    \b
    retrieval use
    retrieval use 20260102T0200
    retrieval use --latest
    """
    settings = load_settings(config)
    from retrieval_pipeline.cli.status_text import builds_text
    from retrieval_pipeline.index.build import current_or_none, list_builds
    from retrieval_pipeline.pipeline.publish import use_build
    from retrieval_pipeline.storage.store import Store

    store = Store(settings.home)
    if build is not None and latest:
        raise click.UsageError("give BUILD or --latest, not both")
    if settings.index.engine != "embedded" and not latest:
        _use_publication(settings, build)
    elif build is not None:
        # The time at its beginning is enough to type.
        matching = [path.name for path in store.all_builds() if path.name.startswith(build)]
        if len(matching) > 1 and build not in matching:
            raise BuildError(f'"{build}" is the beginning of several builds:', *sorted(matching))
        if len(matching) == 1:
            build = matching[0]
        info = use_build(settings, build).info
        report(f"{build} answers now, with {info.model}, and is held")
        tell("retrieval use --latest lets new builds take over again")
    elif latest:
        store.release()
        report("new builds take over again: run `retrieval index` for the latest")
    elif builds := list_builds(store):
        echo(*builds_text(builds, current_or_none(store), store.held_file.exists()))
    else:
        raise RetrievalError("nothing is indexed yet: run `retrieval index`")


def _use_publication(settings: "Settings", build: str | None) -> None:
    """Go back to what was published to an engine before, or list what there is."""
    from retrieval_pipeline.cli.status_text import publications_text
    from retrieval_pipeline.pipeline.engine import publications, use_publication
    from retrieval_pipeline.storage.store import Store

    if build is not None:
        info = use_publication(settings, build).info
        report(f"{info.build} answers now, with {info.model}, and is held")
        tell("retrieval use --latest lets new builds take over again")
    elif found := publications(settings):
        echo(*publications_text(found, Store(settings.home).held_file.exists()))
    else:
        raise RetrievalError("nothing is indexed yet: run `retrieval index`")
