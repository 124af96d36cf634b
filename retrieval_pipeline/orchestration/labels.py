"""The labels as an asset: how many pictures each word of the settings fits, plotted over time."""

from collections.abc import Sequence

import dagster as dg

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import SettingsError
from retrieval_pipeline.index.items import table_digest
from retrieval_pipeline.orchestration.automation import ON_NEW_DATA
from retrieval_pipeline.orchestration.columns import columns
from retrieval_pipeline.orchestration.events import Events, Made, explained, result
from retrieval_pipeline.orchestration.flow import Flow
from retrieval_pipeline.orchestration.progress import LogProgress
from retrieval_pipeline.search.labelling import refresh_labels
from retrieval_pipeline.storage.schemas import LABELS

COUNTS = dg.TableSchema(columns=[dg.TableColumn("word"), dg.TableColumn("pictures", "int")])


def build_label_assets(flow: Flow, settings: Settings) -> Sequence[dg.AssetsDefinition]:
    """Return the asset of the labels, if the settings have words."""
    if not settings.labels.words:
        return []
    index = flow.key("retrieval_index")

    @dg.asset(
        **flow.options("picture_labels"),
        deps=[index],
        kinds={"parquet"},
        code_version="1",
        metadata=columns(LABELS),
        automation_condition=flow.when(ON_NEW_DATA),
    )
    def picture_labels(context: dg.AssetExecutionContext) -> Events:
        """Which of a person's words fit which pictures, and how sure that is."""
        library = flow.library(context)
        with explained(context), library.store.locked(wait=True):
            report = refresh_labels(library.settings, progress=LogProgress(context.log))
            if report is None:
                raise SettingsError("the settings have no [labels] any more")
        labels = report.labels
        counts = [
            dg.TableRecord({"word": word, "pictures": count})
            for word, count in labels.counts.items()
        ]
        metadata = {
            "labels": len(labels.table),
            "pictures": report.items,
            "words": dg.MetadataValue.table(counts, COUNTS),
            "synonyms": [f"{one} = {other}" for one, other, _ in report.synonyms],
        }
        made = Made(table_digest(labels.table), metadata, {index: report.inputs})
        yield from result(context, made)

    return [picture_labels]
