"""`retrieval watch`: follow the sources, and index what changes within seconds."""

import contextlib
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_pipeline.cli.begin import load_arrow_without_pandas
from retrieval_pipeline.cli.commands.common import config_option, stoppable
from retrieval_pipeline.cli.output import echo, echo_json, tell
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.errors import Stopped

if TYPE_CHECKING:
    from retrieval_pipeline.pipeline.watch import BatchReport


@click.command()
@click.option(
    "--poll",
    "poll_seconds",
    type=click.FloatRange(1, 86_400),
    metavar="SECONDS",
    help="Look at all files so often instead of asking the system: on network shares it does not "
    "know what other machines change.",
)
@click.option("--json", "as_json", is_flag=True, help="Print a JSON object for each batch.")
@click.option("-q", "--quiet", is_flag=True, help="Say only what goes wrong.")
@config_option
def watch(poll_seconds: float | None, as_json: bool, quiet: bool, config: Path | None) -> None:
    """Follow the directories, and index what changes within seconds.

    It begins as `retrieval index` does, and stays until Ctrl-C. The model is loaded once. Whatever
    changes while it does not run is found when it starts again.
    """
    settings = load_settings(config)
    if settings.ray is None:  # Ray hands data frames to pyarrow
        load_arrow_without_pandas()
    from retrieval_pipeline.cli.index_text import batch_text
    from retrieval_pipeline.cli.progress import ConsoleProgress, console_progress
    from retrieval_pipeline.pipeline.watch import watch as follow_sources
    from retrieval_pipeline.progress import NotesOnly

    is_first = True

    def told(batch: "BatchReport") -> None:
        nonlocal is_first
        if progress is not None:
            progress.pause()
        if as_json:
            at = datetime.now(UTC).isoformat(timespec="milliseconds")
            echo_json({"at": at, **asdict(batch)})
        elif not quiet:
            echo(batch_text(batch, watching=len(settings.sources) if is_first else None))
        is_first = False

    progress: ConsoleProgress | None = None
    with stoppable() as stop, contextlib.ExitStack() as shown:
        if not quiet:
            progress = shown.enter_context(console_progress())
        try:
            follow_sources(
                settings,
                told=told,
                tell=tell,
                stop=stop,
                poll_seconds=poll_seconds,
                progress=progress or NotesOnly(tell),
            )
        except Stopped:
            # As the shell reports a process that a signal ended.
            raise SystemExit(128 + stop.signal_number) from None
