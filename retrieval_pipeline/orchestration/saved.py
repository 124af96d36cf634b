"""Saved queries as an asset: the hits of each, and what is new among them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import dagster as dg
from blake3 import blake3

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.orchestration.automation import ON_NEW_DATA
from retrieval_pipeline.orchestration.events import Events, Made, explained, materialised
from retrieval_pipeline.orchestration.partitions import one_run_each
from retrieval_pipeline.orchestration.previews import hits_pictures, hits_table
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.search.saved_queries import SavedAnswer, run_saved_query
from retrieval_pipeline.search.searcher import Searcher

if TYPE_CHECKING:
    from retrieval_pipeline.orchestration.jobs import AssetJob

NOTHING_NEW = dg.AssetCheckSpec(
    "nothing_new",
    asset="saved_query",
    description="Fails, as a warning, when a saved query finds what it has never found before.",
)


def build_saved_query_asset(by_name: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    """Return the asset with a partition for each saved query of the settings."""

    @dg.asset(
        deps=[dg.AssetKey("retrieval_index")],
        partitions_def=by_name,
        group_name="retrieval",
        code_version="1",
        check_specs=[NOTHING_NEW],
        automation_condition=ON_NEW_DATA,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def saved_query(context: dg.AssetExecutionContext, library: LibraryResource) -> Events:
        """The hits of a query that the settings keep, and what is new since the last time."""
        settings = library.settings
        made: dict[str, Made] = {}
        news: dict[str, int] = {}
        with explained(context):
            searcher = Searcher.open(settings)
            inputs = {"retrieval_index": searcher.build.info.inputs}
            for name in context.partition_keys:
                found = run_saved_query(searcher, settings.saved_query(name))
                for hit in found.new.hits:
                    context.log.info(f"new for {name}: {hit.path}")
                news[name] = len(found.new.hits)
                made[name] = Made(_version(found), _metadata(settings, found), inputs)
        nothing_new = dg.AssetCheckResult(
            check_name=NOTHING_NEW.name,
            passed=not any(news.values()),
            severity=dg.AssetCheckSeverity.WARN,
            metadata=news,
        )
        yield from materialised(context, made, [nothing_new])

    return saved_query


def _version(found: SavedAnswer) -> str:
    hits = "\n".join(hit.content_id for hit in found.answer.hits)
    return blake3(hits.encode()).hexdigest(length=16)


def _metadata(settings: Settings, found: SavedAnswer) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "dagster/row_count": len(found.answer.hits),
        "query": str(found.answer.query),
        "new": len(found.new.hits),
        "hits": hits_table(found.answer),
        "pictures": hits_pictures(found.answer, Limits.of(settings.images)),
        "model": found.answer.model,
        "build": found.answer.build,
    }
    if found.new.hits:
        metadata["new_hits"] = hits_table(found.new)
    return metadata


def build_saved_queries_job() -> "AssetJob":
    """Return the job that asks saved queries."""
    return dg.define_asset_job(
        "saved_queries_job",
        selection=dg.AssetSelection.assets("saved_query"),
        description="Ask a saved query, and tell what is new.",
    )


def build_saved_queries_schedule(settings: Settings, job: "AssetJob") -> dg.ScheduleDefinition:
    """Return the schedule that asks all saved queries; off, since a new index makes them ask."""

    @dg.schedule(
        job=job,
        name="saved_queries",
        cron_schedule=settings.schedule.saved_queries,
        execution_timezone=settings.schedule.timezone,
        description="Asks every saved query, also when the index has not changed.",
    )
    def saved_queries(context: dg.ScheduleEvaluationContext) -> Sequence[dg.RunRequest]:
        return one_run_each(context, [query.name for query in settings.saved_queries])

    return saved_queries
