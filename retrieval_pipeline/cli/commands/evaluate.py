"""`retrieval evaluate`: how well labelled queries are answered, by one model or several."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_pipeline.cli.commands.common import check_page, config_option, stoppable, write_page
from retrieval_pipeline.cli.output import echo, echo_json, tell
from retrieval_pipeline.cli.parameters import FilePath
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.errors import Stopped

if TYPE_CHECKING:
    from retrieval_pipeline.config.settings import Settings
    from retrieval_pipeline.evaluation.evaluate import Evaluation
    from retrieval_pipeline.evaluation.labels import LabelledQuery
    from retrieval_pipeline.search.searcher import Searcher


@click.command()
@click.argument("file", required=False, type=FilePath())
@click.option("--folders", is_flag=True, help="Each folder's name asks for the pictures in it.")
@click.option(
    "--votes", metavar="NAME", help="Each picture that this recommender likes asks for the others."
)
@click.option(
    "--model",
    "models",
    multiple=True,
    metavar="MODEL",
    help="Ask the newest index of this model. Can be repeated, to compare.",
)
@click.option(
    "--embed",
    is_flag=True,
    help="Embed and index first what these models have not yet. The present index goes on "
    "answering queries, and stays when all is done.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@click.option(
    "--page",
    type=FilePath(),
    metavar="FILE",
    help="Write an HTML page of the worst queries: what was found, and what was meant.",
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
@config_option
def evaluate(
    file: Path | None,
    folders: bool,
    votes: str | None,
    models: tuple[str, ...],
    embed: bool,
    as_json: bool,
    page: Path | None,
    open_page: bool,
    config: Path | None,
) -> None:
    """Measure how well labelled queries are answered.

    FILE holds queries and the pictures that are right: TOML, CSV, JSON lines, or captions as COCO
    and Flickr30k have them (docs/quality.md shows each).

    \b
    retrieval evaluate queries.toml
    retrieval evaluate --folders --page worst.html --open
    retrieval evaluate captions_val2017.json --model offline --model google/siglip2-base-patch16-224
    """
    if sum((file is not None, folders, votes is not None)) != 1:
        raise click.UsageError("give one of FILE, --folders and --votes")
    if embed and not models:
        raise click.UsageError(
            "--embed needs --model: `retrieval index` embeds with the present one"
        )
    from retrieval_pipeline.config.validation import with_model

    settings = load_settings(config)
    if page is not None:
        check_page(page)
    from retrieval_pipeline.cli.progress import console_progress
    from retrieval_pipeline.evaluation.evaluate import evaluate as measure
    from retrieval_pipeline.evaluation.evaluate import evaluation_json
    from retrieval_pipeline.evaluation.report import comparison_text, evaluation_text, worst_html
    from retrieval_pipeline.images.errors import Limits

    done: list[tuple[Searcher, Evaluation]] = []
    labelled: list[LabelledQuery] | None = None
    named = [with_model(settings, model) for model in dict.fromkeys(models)]
    if embed:
        _embed(named)
    for searcher in _searchers(settings, named):
        if labelled is None:
            labelled = _labelled(searcher, file, votes)
        with console_progress() as progress:
            done.append((searcher, measure(searcher, labelled, progress=progress)))
    evaluations = [evaluation for _, evaluation in done]
    if as_json:
        echo_json([evaluation_json(each) for each in evaluations], indent=2)
    else:
        for each in evaluations:
            echo(*evaluation_text(each), "")
        for other in evaluations[1:]:
            echo(*comparison_text(evaluations[0], other), "")
    if page is not None or open_page:
        from retrieval_pipeline.storage.store import Store

        html = worst_html(done, Limits.of(settings.images))
        write_page(html, page or Store(settings.home).last_gallery, open_page=open_page)


def _embed(named: "list[Settings]") -> None:
    """Bring the index of the model of each settings up to date, without publishing it."""
    from retrieval_pipeline.cli.progress import console_progress
    from retrieval_pipeline.pipeline.run import index_aside

    with stoppable() as stop:
        try:
            for settings in named:
                tell(f"{settings.model}:")
                with console_progress() as progress:
                    index_aside(settings, progress=progress, stop=stop)
        except Stopped as stopped:
            tell(f"{stopped}. Run the same command again to go on")
            raise SystemExit(128 + stop.signal_number) from None


def _searchers(settings: "Settings", named: "list[Settings]") -> "list[Searcher]":
    """Open the current index, or the newest of the model of each settings."""
    from retrieval_pipeline.evaluation.models import open_newest
    from retrieval_pipeline.search.searcher import Searcher

    return [open_newest(each) for each in named] or [Searcher.open(settings)]


def _labelled(searcher: "Searcher", file: Path | None, votes: str | None) -> "list[LabelledQuery]":
    from retrieval_pipeline.evaluation.labels import folder_queries, read_labelled, vote_queries
    from retrieval_pipeline.storage.store import Store

    if votes is not None:
        return vote_queries(Store(searcher.settings.home), votes)
    if file is None:
        return folder_queries(searcher.corpus)
    queries, entries = read_labelled(file)
    if entries > len(queries):
        tell(
            f"{entries:,} entries ask {len(queries):,} different queries: those of the same words "
            "are one, with the answers of all"
        )
    return queries
