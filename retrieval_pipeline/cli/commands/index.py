"""`retrieval index`: bring the tables and the index up to date."""

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_pipeline.cli.begin import load_arrow_without_pandas
from retrieval_pipeline.cli.commands.common import config_option, stoppable
from retrieval_pipeline.cli.output import report, tell
from retrieval_pipeline.config.loading import find_settings_file, load_settings
from retrieval_pipeline.errors import RetrievalError, Stopped

if TYPE_CHECKING:
    from retrieval_pipeline.pipeline.run import IndexReport


@click.command()
@click.option(
    "--source", "only", multiple=True, metavar="NAME", help="Only this source. Can be repeated."
)
@click.option(
    "--allow-shrink", is_flag=True, help="Go on although most files of a source are gone."
)
@click.option(
    "--rehash", is_flag=True, help="Read every file again, even if its size and time are unchanged."
)
@click.option(
    "--retry-quarantined", is_flag=True, help="Try again the images that could not be used."
)
@click.option(
    "--model",
    help="Embed with this model instead of the one in the settings. The present index answers "
    "until the new one is complete.",
)
@click.option(
    "--ray",
    "address",
    is_flag=False,
    flag_value="local",
    metavar="[ADDRESS]",
    help='Embed on this Ray cluster: "auto" or "host:6379"; without ADDRESS, Ray starts on this '
    "machine. [ray] in the settings says how many processes to use.",
)
@click.option(
    "-q", "--quiet", is_flag=True, help="No progress, and no report if nothing has changed."
)
@click.option(
    "-v",
    "--verbose",
    is_flag=True,
    help="Also say which settings and number format were used, and where the time went.",
)
@config_option
def index(
    only: tuple[str, ...],
    allow_shrink: bool,
    rehash: bool,
    retry_quarantined: bool,
    model: str | None,
    address: str | None,
    quiet: bool,
    verbose: bool,
    config: Path | None,
) -> None:
    """Bring the tables and the index up to date with the directories.

    Only new and changed files are read, and only new images are embedded. A run that is stopped
    is continued by the next one, so it can be started from cron as it is; with -q, cron sends mail
    only if something has changed or failed.
    """
    named = load_settings(config)
    from retrieval_pipeline.config.validation import with_model, with_ray

    settings = with_model(named, model) if model else named
    settings = with_ray(settings, address) if address else settings
    if settings.ray is None:  # Ray hands data frames to pyarrow
        load_arrow_without_pandas()
    from retrieval_pipeline.cli.progress import ConsoleProgress, console_progress
    from retrieval_pipeline.pipeline.run import index_sources

    def say(done: "IndexReport") -> None:
        if done.changed or not quiet:
            from retrieval_pipeline.cli.index_text import index_report

            if progress is not None:
                progress.pause()
            report(*index_report(done))
        if verbose:
            from retrieval_pipeline.cli.index_text import index_details

            tell(*index_details(settings, find_settings_file(config), done))

    progress: ConsoleProgress | None = None
    with stoppable() as stop:
        try:
            with contextlib.ExitStack() as shown:
                if not quiet:
                    progress = shown.enter_context(console_progress())
                done = index_sources(
                    settings,
                    only=only,
                    allow_shrink=allow_shrink,
                    rehash=rehash,
                    retry_quarantined=retry_quarantined,
                    # The answer does not wait for the map.
                    published=say,
                    progress=progress,
                    stop=stop,
                )
        except Stopped as stopped:
            tell(f"{stopped}. Run `retrieval index` again to go on")
            # As the shell reports a process that a signal ended.
            raise SystemExit(128 + stop.signal_number) from None

    if done.map is not None and (done.changed or not quiet):
        from retrieval_pipeline.cli.index_text import map_report

        report(map_report(done.map))
    if settings.model != named.model:
        tell(
            f"The settings still name {named.model}, to which the next `retrieval index` goes "
            f"back: change `model` in {find_settings_file(config)} to stay with {settings.model}"
        )
    if done.failures:
        raise RetrievalError(*done.failures.values())
