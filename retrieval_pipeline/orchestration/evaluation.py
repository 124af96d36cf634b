"""The evaluation as an asset: how well each index answers labelled queries, plotted over time.

Whether a change of model is blocked is decided when the index is published, in `pipeline`.
"""

from collections.abc import Sequence
from typing import Any

import dagster as dg
from blake3 import blake3

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import SettingsError
from retrieval_pipeline.evaluation.evaluate import Evaluation, evaluate
from retrieval_pipeline.evaluation.labels import LabelledQuery, settings_queries
from retrieval_pipeline.orchestration.automation import ON_NEW_DATA
from retrieval_pipeline.orchestration.events import Events, Made, explained, result
from retrieval_pipeline.orchestration.flow import Flow
from retrieval_pipeline.orchestration.progress import LogProgress
from retrieval_pipeline.paths import printable
from retrieval_pipeline.search.searcher import Searcher

WORST_COLUMNS = dg.TableSchema(
    columns=[dg.TableColumn("query"), dg.TableColumn("rank_of_first_right_answer", "int")]
)


def build_evaluation_assets(flow: Flow, settings: Settings) -> Sequence[dg.AssetsDefinition]:
    """Return the asset of the evaluation, if the settings name labelled queries."""
    if settings.evaluation is None:
        return []
    index = flow.key("retrieval_index")

    @dg.asset(
        **flow.options("evaluation"),
        deps=[index],
        code_version="1",
        automation_condition=flow.when(ON_NEW_DATA),
    )
    def evaluation(context: dg.AssetExecutionContext) -> Events:
        """How well the current index answers the labelled queries of the settings."""
        settings = flow.library(context).settings
        with explained(context):
            if settings.evaluation is None:
                raise SettingsError("the settings have no [evaluation] any more")
            searcher = Searcher.open(settings)
            queries = settings_queries(settings.evaluation, searcher.corpus)
            found = evaluate(searcher, queries, progress=LogProgress(context.log))
        inputs = searcher.index.info.inputs
        made = Made(f"{_version(queries)}-{inputs}", _metadata(found), {index: inputs})
        yield from result(context, made)

    return [evaluation]


def _version(queries: Sequence[LabelledQuery]) -> str:
    digest = blake3()
    for query in queries:
        digest.update(repr((query.text, query.relevant)).encode(errors="surrogateescape"))
    return digest.hexdigest(length=16)


def _metadata(found: Evaluation) -> dict[str, Any]:
    """Return what Dagster plots, numbers of one kind under one key, and the worst queries."""
    metrics = {
        name.lower().replace("@", "_at_"): round(metric.mean, 4)
        for name, metric in found.metrics.items()
    }
    worst = [
        dg.TableRecord({"query": printable(bad.query.text), "rank_of_first_right_answer": bad.rank})
        for bad in found.worst
    ]
    return {
        **metrics,
        # Shares, so that collections of any size make one plot.
        "false_alarms": round(found.alarms / max(found.alarms_asked, 1), 4),
        "index_misses": round(found.missed / max(found.near, 1), 4),
        "queries": found.queries,
        "unknown_labels": found.unknown,
        "unanswerable_queries": found.unanswerable,
        "pictures": found.items,
        "model": found.model,
        "build": found.build,
        "worst": dg.MetadataValue.table(worst, WORST_COLUMNS),
    }
