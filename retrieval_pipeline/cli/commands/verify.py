"""`retrieval verify`: check every stored file, and repair what can be repaired."""

from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_pipeline.cli.commands.common import config_option
from retrieval_pipeline.cli.output import report
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.errors import RetrievalError

if TYPE_CHECKING:
    from retrieval_pipeline.config.settings import Settings


@click.command()
@click.option(
    "--repair", "do_repair", is_flag=True, help="Rebuild damaged files from undamaged ones."
)
@config_option
def verify(do_repair: bool, config: Path | None) -> None:
    """Check every stored file; exit with 1 if one is damaged or missing.

    Every file is read and hashed again. With --repair, damaged files are moved to the folder
    `damaged` under home and rebuilt from the undamaged ones; the next `retrieval index` makes what
    cannot be rebuilt. Votes cannot be made again: a damaged table of votes stays where it is.
    """
    settings = load_settings(config)
    problems, unreadable = _check(settings)
    if problems and do_repair:
        from retrieval_pipeline.cli.progress import console_progress
        from retrieval_pipeline.maintenance.repair import repair

        with console_progress() as progress:
            repaired = repair(settings, progress=progress)
        for each in repaired:
            report(f"FIX  {each.file}: {each.done}")
        problems, unreadable = _check(settings)
    if unreadable:
        raise RetrievalError(f"{unreadable} stored files cannot be read, and may be sound")
    if problems:
        raise RetrievalError(f"{problems} stored files are not as they must be")


def _check(settings: "Settings") -> tuple[int, int]:
    """Print what is wrong, or that nothing is.

    Returns:
        How many files have a problem, and how many of these cannot be read.
    """
    from retrieval_pipeline.maintenance.verify import verify as verify_store
    from retrieval_pipeline.storage.store import Store

    files, problems, unreadable = 0, 0, 0
    findings = verify_store(Store(settings.home), settings.source_names)
    if settings.index.engine != "embedded":
        from retrieval_pipeline.maintenance.engine import verify_engine

        findings = chain(findings, verify_engine(settings))
    for finding in findings:
        files += not finding.note
        problems += finding.problem is not None
        unreadable += finding.unreadable
        if finding.problem:
            report(f"{'????' if finding.unreadable else 'BAD '} {finding.problem}")
        if finding.note:
            report(f"note {finding.note}")
    if not files:
        raise RetrievalError(f"nothing is stored in {settings.home} yet: run `retrieval index`")
    if not problems:
        report(f"{files} stored files are as they must be")
    return problems, unreadable
