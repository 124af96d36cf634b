"""The asset of the facts: when, where and with what the pictures of a source were taken."""

from collections.abc import Mapping
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.facts.summary import months_of, summary_of
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.index.items import table_digest
from retrieval_pipeline.ingest.facts import FactsReport, update_facts
from retrieval_pipeline.orchestration.automation import ON_NEW_DATA_IN_THE_FLOW
from retrieval_pipeline.orchestration.checks import Rule
from retrieval_pipeline.orchestration.columns import columns
from retrieval_pipeline.orchestration.events import (
    Events,
    InputEvents,
    Made,
    explained,
    materialisation,
    materialised,
    recorded_versions,
)
from retrieval_pipeline.orchestration.flow import Flow
from retrieval_pipeline.orchestration.progress import LogProgress
from retrieval_pipeline.pipeline.run import SourcesReport
from retrieval_pipeline.storage.schemas import FACTS
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_facts

CODE_VERSION = "1"

MOST_ARE_DATED = Rule(
    "picture_facts",
    "most_are_dated",
    "At least `checks.min_dated` of a source's pictures have a date other than the file's time.",
)
NONE_IS_OF_THE_FUTURE = Rule(
    "picture_facts",
    "none_is_of_the_future",
    "No picture was taken later than tomorrow: such a camera's clock is wrong.",
)

# The clocks on Earth differ by up to 26 hours.
_AHEAD = timedelta(days=1, hours=2)
# Months and width in characters of the histogram.
_MOST_MONTHS, _BAR = 240, 40


def build_picture_facts(
    flow: Flow, settings: Settings, by_source: dg.PartitionsDefinition[str]
) -> dg.AssetsDefinition:
    """Return the asset of the facts, downstream of manifests and embeddings.

    Embedding reads the facts of new pictures on the way; this reads those of all others.
    """
    manifests, embeddings = flow.key("file_manifest"), flow.key("image_embeddings")

    @dg.asset(
        **flow.options("picture_facts"),
        deps=[manifests, embeddings],
        partitions_def=by_source,
        kinds={"parquet"},
        code_version=CODE_VERSION,
        metadata=columns(FACTS),
        check_specs=[
            MOST_ARE_DATED.spec(flow, by_source),
            NONE_IS_OF_THE_FUTURE.spec(flow, by_source),
        ],
        automation_condition=flow.when(ON_NEW_DATA_IN_THE_FLOW),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def picture_facts(context: dg.AssetExecutionContext) -> Events:
        """When, where and with what each picture of a source was taken, and what tells so."""
        library = flow.library(context)
        settings, store = library.settings, library.store
        made: dict[str, Made] = {}
        checks: list[dg.AssetCheckEvaluation] = []
        inputs = _Inputs(context.instance, flow)
        with explained(context), store.locked(wait=True):
            for source in context.partition_keys:
                report = update_facts(
                    store,
                    settings.source(source),
                    Limits.of(settings.images),
                    settings.workers,
                    progress=LogProgress(context.log),
                )
                table = read_facts(store, source)
                metadata = _metadata(store, report, table)
                made[source] = Made(_version(table), metadata, inputs.of(source))
                checks += _checks(flow, settings, source, table)
        yield from materialised(context, made, checks)

    return picture_facts


def recorded_facts(
    context: dg.OpExecutionContext,
    flow: Flow,
    settings: Settings,
    tables: SourcesReport,
    *,
    named: bool,
) -> Events:
    """Yield the events of the sources whose facts differ from what was recorded of them last.

    Args:
        context: Of the run that has brought the tables up to date.
        flow: Names the asset.
        settings: Of the run.
        tables: What the run did.
        named: Whether the run was for these sources: then their checks are told in any case.
    """
    store, facts = Store(settings.home), flow.key("picture_facts")
    recorded = recorded_versions(context.instance, facts)
    inputs, events = _Inputs(context.instance, flow), InputEvents(context.instance)
    for report in tables.facts:
        source, table = report.source, read_facts(store, report.source)
        version = _version(table)
        if recorded.get(source) != version:
            made = Made(version, _metadata(store, report, table), inputs.of(source))
            yield materialisation(events, facts, made, CODE_VERSION, source)
        elif not named:
            continue
        yield from _checks(flow, settings, source, table)


class _Inputs:
    """The versions of what facts are made from, as they were recorded last."""

    def __init__(self, instance: dg.DagsterInstance, flow: Flow) -> None:
        keys = flow.key("file_manifest"), flow.key("image_embeddings")
        self._versions = {key: recorded_versions(instance, key) for key in keys}

    def of(self, source: str) -> dict[dg.AssetKey, str]:
        """Return the versions of a source's inputs, as far as they were recorded."""
        return {key: each[source] for key, each in self._versions.items() if source in each}


def _version(table: pa.Table) -> str:
    return table_digest(table.replace_schema_metadata())


def _metadata(store: Store, report: FactsReport, table: pa.Table) -> dict[str, Any]:
    """Tell what the facts of a source are, for people and for Dagster's plots."""
    summary = summary_of(table)
    days = " to ".join(
        dict.fromkeys(
            f"{each:%Y-%m-%d}" for each in (summary.first_taken, summary.last_taken) if each
        )
    )
    return {
        "summary": f"{summary.dated:,} of {summary.files:,} pictures are dated"
        + (f", {days}" if days else "")
        + f"; {summary.positions:,} have a place",
        "dagster/partition_row_count": summary.files,
        "dated": summary.dated,
        "headers_read": report.headers_read,
        "dates_from": dg.MetadataValue.json({**summary.origins, "none": summary.undated}),
        "first_taken": str(summary.first_taken or ""),
        "last_taken": str(summary.last_taken or ""),
        "cameras": summary.cameras,
        "with_a_position": summary.positions,
        "refused": dg.MetadataValue.json(dict(summary.problems)),
        "by_month": dg.MetadataValue.md(_histogram(months_of(table))),
        "table": dg.MetadataValue.path(str(store.facts(report.source))),
    }


def _histogram(months: Mapping[str, int]) -> str:
    """Return the number of pictures of each month as a Markdown table, the last month first."""
    rows = sorted(months.items(), reverse=True)[:_MOST_MONTHS]
    most = max((count for _, count in rows), default=1)
    lines = [f"| {month} | {count:,} | {'█' * -(-count * _BAR // most)} |" for month, count in rows]
    return "\n".join(["| month | pictures | |", "|---|---:|---|", *lines])


def _checks(
    flow: Flow, settings: Settings, source: str, table: pa.Table
) -> list[dg.AssetCheckEvaluation]:
    """Judge the dates of a source."""
    summary = summary_of(table)
    share = summary.dated / max(summary.files, 1)
    latest = datetime.now() + _AHEAD
    late = table.filter(pc.greater(table["taken_at"], pa.scalar(latest, pa.timestamp("us"))))
    found = {"pictures": len(late), "for_example": ", ".join(late["path"].to_pylist()[:5])}
    return [
        MOST_ARE_DATED.found(
            flow,
            share >= settings.checks.min_dated or not summary.files,
            {"share": round(share, 4), "pictures": summary.files},
            source,
        ),
        NONE_IS_OF_THE_FUTURE.found(flow, not len(late), found, source),
    ]
