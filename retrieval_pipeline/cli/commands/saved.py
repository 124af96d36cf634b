"""`retrieval saved`: answer the saved queries of the settings."""

from pathlib import Path

import click

from retrieval_pipeline.cli.commands.common import config_option
from retrieval_pipeline.cli.output import echo, echo_json
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.errors import SettingsError


@click.command()
@click.argument("names", nargs=-1)
@click.option(
    "--new",
    "only_new",
    is_flag=True,
    help="Print only hits that the last run of the query did not have.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON, one line for each query.")
@config_option
def saved(names: tuple[str, ...], only_new: bool, as_json: bool, config: Path | None) -> None:
    """Answer the saved queries of the settings (or only NAMES), and say which hits are new.

    With --new, queries without new hits print nothing, so that cron sends mail only about news:

    \b
    */10 * * * *  retrieval index 2>/dev/null >/dev/null; retrieval saved --new
    """
    settings = load_settings(config)
    queries = [settings.saved_query(name) for name in names] or settings.saved_queries
    if not queries:
        raise SettingsError("there are no saved queries in the settings: add [[saved_queries]]")
    from retrieval_pipeline.cli.answer_text import saved_text
    from retrieval_pipeline.search.results import answer_json
    from retrieval_pipeline.search.saved_queries import run_saved_query
    from retrieval_pipeline.search.searcher import Searcher

    searcher = Searcher.open(settings)
    for query in queries:
        found = run_saved_query(searcher, query)
        if only_new and not found.new.hits:
            continue
        if as_json:
            answer = answer_json(found.new if only_new else found.answer)
            new = [hit.content_id for hit in found.new.hits]
            echo_json({"name": found.name, **answer, "new": new})
        else:
            echo(*saved_text(found, only_new=only_new))
