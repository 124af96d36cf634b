"""Saved queries as an asset: the hits of each, and what is new among them."""

from typing import TYPE_CHECKING, Any, TypeAlias

import dagster as dg
from blake3 import blake3

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.orchestration.automation import ON_NEW_DATA
from retrieval_pipeline.orchestration.checks import Rule
from retrieval_pipeline.orchestration.events import (
    Events,
    Made,
    explained,
    materialised,
    partitions_made,
)
from retrieval_pipeline.orchestration.flow import BACKGROUND, Flow
from retrieval_pipeline.orchestration.partitions import all_partitions
from retrieval_pipeline.orchestration.previews import hits_pictures, hits_table
from retrieval_pipeline.search.saved_queries import SavedAnswer, run_saved_query
from retrieval_pipeline.search.searcher import Searcher

if TYPE_CHECKING:
    # What define_asset_job returns has no public name.
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition,
    )

    AssetJob: TypeAlias = UnresolvedAssetJobDefinition

NOTHING_NEW = Rule(
    "saved_query",
    "nothing_new",
    "Fails, as a warning, when a saved query finds what it has never found before.",
)


def build_saved_query_asset(
    flow: Flow, by_name: dg.PartitionsDefinition[str]
) -> dg.AssetsDefinition:
    """Return the asset with a partition for each saved query of the settings."""
    index = flow.key("retrieval_index")

    @dg.asset(
        **flow.options("saved_query"),
        deps=[index],
        partitions_def=by_name,
        code_version="1",
        check_specs=[NOTHING_NEW.spec(flow, by_name)],
        automation_condition=flow.when(ON_NEW_DATA),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def saved_query(context: dg.AssetExecutionContext) -> Events:
        """The hits of a query that the settings keep, and what is new since the last time."""
        settings = flow.library(context).settings
        made: dict[str, Made] = {}
        checks: list[dg.AssetCheckEvaluation] = []
        failed: list[str] = []
        with explained(context):
            searcher = Searcher.open(settings)
            inputs = {index: searcher.index.info.inputs}
            for name in context.partition_keys:
                try:
                    found = run_saved_query(searcher, settings.saved_query(name))
                except (QueryError, ImageError) as error:
                    # One that cannot be asked keeps no other from being asked.
                    failed.append(str(error))
                    continue
                for hit in found.new.hits:
                    context.log.info(f"new for {name}: {hit.path}")
                news = len(found.new.hits)
                checks.append(NOTHING_NEW.found(flow, not news, {"new": news}, name))
                made[name] = Made(_version(found), _metadata(settings, found), inputs)
            if failed:
                yield from partitions_made(context, made)
                yield from checks
                raise QueryError(*failed)
        yield from materialised(context, made, checks)

    return saved_query


def _version(found: SavedAnswer) -> str:
    hits = "\n".join(hit.content_id for hit in found.answer.hits)
    return blake3(hits.encode()).hexdigest(length=16)


def _metadata(settings: Settings, found: SavedAnswer) -> dict[str, Any]:
    metadata: dict[str, Any] = {
        "dagster/partition_row_count": len(found.answer.hits),
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


def build_saved_queries_job(flow: Flow) -> "AssetJob":
    """Return the job that asks saved queries."""
    return dg.define_asset_job(
        flow.named("saved_queries_job"),
        selection=dg.AssetSelection.assets(flow.key("saved_query")),
        executor_def=dg.in_process_executor,
        description="Ask a saved query, and tell what is new.",
    )


def build_saved_queries_schedule(
    flow: Flow, settings: Settings, job: "AssetJob"
) -> dg.ScheduleDefinition:
    """Return the schedule that asks all saved queries; off, since a new index makes them ask."""

    @dg.schedule(
        job=job,
        name=flow.named("saved_queries"),
        cron_schedule=settings.schedule.saved_queries,
        execution_timezone=settings.schedule.timezone,
        description="Asks every saved query in one run, also when the index has not changed.",
    )
    def saved_queries(
        context: dg.ScheduleEvaluationContext,
    ) -> dg.RunRequest | dg.SkipReason:
        names = [query.name for query in settings.saved_queries]
        if not names:
            return dg.SkipReason("the settings have no saved queries")
        return dg.RunRequest(tags={**BACKGROUND, **all_partitions(names)})

    return saved_queries
