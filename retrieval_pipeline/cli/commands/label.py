"""`retrieval label`: mark every picture that a person's own words fit."""

from pathlib import Path

import click

from retrieval_pipeline.cli.commands.common import config_option
from retrieval_pipeline.cli.output import echo, echo_json, tell
from retrieval_pipeline.cli.parameters import Fraction
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.errors import QueryError


@click.command()
@click.argument("words", nargs=-1)
@click.option("--compete", is_flag=True, help="Leave a picture only the word that fits it best.")
@click.option(
    "--min-relevance",
    type=Fraction(min_open=True),
    help="From this relevance on, a picture has the label. Default: 0.5, from which on more of "
    "them are right than wrong.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@config_option
def label(
    words: tuple[str, ...],
    compete: bool,
    min_relevance: float | None,
    as_json: bool,
    config: Path | None,
) -> None:
    """Mark every picture that one of WORDS fits, and print how many each fits.

    The labels are kept in a table, which `retrieval index` brings up to date: those of these WORDS,
    or of [labels] in the settings, which come first. Without WORDS, they are made if they are
    missing or of an earlier index.

    \b
    retrieval label invoice screenshot "a group of people"
    retrieval query --label invoice --sort newest
    """
    settings = load_settings(config)
    from pydantic import ValidationError

    from retrieval_pipeline.cli.progress import console_progress
    from retrieval_pipeline.config.settings import LabelSettings
    from retrieval_pipeline.search.labelling import labels_json, refresh_labels, update_labels
    from retrieval_pipeline.search.searcher import Searcher
    from retrieval_pipeline.storage.store import Store

    if (compete or min_relevance is not None) and not words:
        raise click.UsageError("--compete and --min-relevance are about WORDS")
    if not all(map(str.strip, words)):
        raise click.UsageError("one of WORDS is empty")
    least = min_relevance or settings.labels.min_relevance
    try:
        asked = LabelSettings(words=words, compete=compete, min_relevance=least)
    except ValidationError as error:
        found = (each["msg"].removeprefix("Value error, ") for each in error.errors())
        raise QueryError(*found) from None
    searcher = Searcher.open(settings)
    with Store(settings.home).locked(), console_progress() as progress:
        report = (
            update_labels(searcher, asked, progress=progress)
            if words
            else refresh_labels(settings, progress=progress)
        )
    if report is None:
        raise QueryError(
            "there are no words to label with: `retrieval label invoice screenshot`, or [labels] "
            "in the settings"
        )
    if as_json:
        echo_json(labels_json(report), indent=2)
    else:
        echo(*(f"{count:>8,}  {word}" for word, count in report.labels.counts.items()))
    for one, other, common in report.synonyms:
        tell(f'"{one}" and "{other}" mark mostly the same pictures: {common:,} have both')
    if words and settings.labels.words:
        tell("[labels] in the settings has other words, to which `retrieval index` goes back")
