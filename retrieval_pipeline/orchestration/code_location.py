"""The definitions of a settings file: everything that Dagster shows and runs.

Importing this reads no settings; `retrieval_pipeline.definitions` does, for Dagster.
"""

import contextlib
import warnings
from collections.abc import Iterator

import dagster as dg

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.orchestration.alerts import build_alert_sensors
from retrieval_pipeline.orchestration.assets import build_assets
from retrieval_pipeline.orchestration.automation import build_automation_sensor
from retrieval_pipeline.orchestration.checks import build_is_fresh
from retrieval_pipeline.orchestration.evaluation import build_evaluation_assets
from retrieval_pipeline.orchestration.flow import Flow
from retrieval_pipeline.orchestration.jobs import build_gc_job, build_query_job, build_verify_job
from retrieval_pipeline.orchestration.labels import build_label_assets
from retrieval_pipeline.orchestration.lost_runs import build_lost_runs_sensor
from retrieval_pipeline.orchestration.partitions import (
    partitions_by_recommender,
    partitions_by_saved_query,
    partitions_by_source,
)
from retrieval_pipeline.orchestration.queues import build_queue_sensors
from retrieval_pipeline.orchestration.recommend import (
    build_recommend_job,
    build_recommender_assets,
)
from retrieval_pipeline.orchestration.reindex import build_nightly_schedule, build_reindex_job
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.orchestration.saved import (
    build_saved_queries_job,
    build_saved_queries_schedule,
    build_saved_query_asset,
)
from retrieval_pipeline.orchestration.sensors import build_watch_sensor


def build_definitions(
    settings: Settings,
    library: LibraryResource | None = None,
    flow: Flow | None = None,
) -> dg.Definitions:
    """Return the definitions for these settings' sources.

    Args:
        settings: Names of sources and saved queries, times, the model.
        library: What runs read their settings from; by default the same file as the command line.
        flow: Names and options; by default those of a code location that holds nothing else.
    """
    with unstable_allowed():
        return _definitions(settings, library or LibraryResource(), flow or Flow())


@contextlib.contextmanager
def unstable_allowed() -> Iterator[None]:
    """Silence Dagster's warnings of what it does not call stable yet.

    What is used of it (backfill policies, checks of partitions, owners of sensors) is pinned and
    tested; warnings at every start would hide what matters.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        yield


def _definitions(settings: Settings, library: LibraryResource, flow: Flow) -> dg.Definitions:
    by_source = partitions_by_source(settings)
    by_query = partitions_by_saved_query(settings)
    by_recommender = partitions_by_recommender(settings)
    assets = [
        *build_assets(flow, settings, by_source),
        build_saved_query_asset(flow, by_query),
        *build_evaluation_assets(flow, settings),
        *build_label_assets(flow, settings),
        *build_recommender_assets(flow, by_recommender),
    ]
    is_fresh = build_is_fresh(flow)
    reindex_job = build_reindex_job(flow)
    saved_queries_job = build_saved_queries_job(flow)
    target = dg.AssetSelection.assets(*assets) | dg.AssetSelection.checks_for_assets(*assets)
    schedules = [
        build_nightly_schedule(flow, settings, reindex_job),
        build_saved_queries_schedule(flow, settings, saved_queries_job),
    ]
    sensors = [
        build_watch_sensor(flow, settings, by_source, by_query, by_recommender, reindex_job),
        build_automation_sensor(settings, flow, target),
        build_lost_runs_sensor(flow),
        *build_queue_sensors(flow, settings),
        *build_alert_sensors(flow, settings, {key for asset in assets for key in asset.keys}),
    ]
    return dg.Definitions(
        assets=assets,
        asset_checks=[is_fresh],
        jobs=[
            reindex_job,
            saved_queries_job,
            build_query_job(flow),
            build_recommend_job(flow, by_recommender.get_partition_keys()),
            build_verify_job(flow),
            build_gc_job(flow),
        ],
        schedules=schedules if flow.automation else [],
        sensors=sensors if flow.automation else [],
        resources={flow.resource: library},
    )
