"""The definitions of a settings file: everything that Dagster shows and runs.

Importing this reads no settings; `retrieval_pipeline.definitions` does, for Dagster.
"""

import warnings

import dagster as dg

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.orchestration.assets import build_assets
from retrieval_pipeline.orchestration.automation import build_automation_sensor
from retrieval_pipeline.orchestration.checks import is_fresh
from retrieval_pipeline.orchestration.jobs import (
    build_crawl_job,
    build_nightly_schedule,
    build_reindex_job,
    gc_job,
    query_job,
    verify_job,
)
from retrieval_pipeline.orchestration.partitions import (
    partitions_by_recommender,
    partitions_by_saved_query,
    partitions_by_source,
)
from retrieval_pipeline.orchestration.recommend import build_recommender_assets, recommend_job
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.orchestration.saved import (
    build_saved_queries_job,
    build_saved_queries_schedule,
    build_saved_query_asset,
)
from retrieval_pipeline.orchestration.sensors import build_watch_sensor

# Each run has a process of its own, and the lock on the tables lets one write at a time: processes
# for the steps would only import everything again (docs/benchmarks.md, "Executors of Dagster").
EXECUTOR = dg.in_process_executor


def build_definitions(settings: Settings, library: LibraryResource | None = None) -> dg.Definitions:
    """Return the definitions for these settings' sources.

    `library` is what runs read their settings from; by default the same file as the command line.
    """
    with warnings.catch_warnings():
        # The beta parts that are used here (backfill policies, observable sources) are pinned and
        # tested; a page of warnings at every start would hide what matters.
        warnings.simplefilter("ignore", dg.BetaWarning)
        return _definitions(settings, library or LibraryResource())


def _definitions(settings: Settings, library: LibraryResource) -> dg.Definitions:
    by_source = partitions_by_source(settings)
    by_recommender = partitions_by_recommender(settings)
    assets = build_assets(settings, by_source)
    saved_query = build_saved_query_asset(partitions_by_saved_query(settings))
    reindex_job = build_reindex_job(assets)
    crawl_job = build_crawl_job()
    saved_queries_job = build_saved_queries_job()
    return dg.Definitions(
        assets=[*assets, saved_query, *build_recommender_assets(by_recommender)],
        asset_checks=[is_fresh],
        jobs=[
            reindex_job,
            crawl_job,
            saved_queries_job,
            query_job,
            recommend_job,
            verify_job,
            gc_job,
        ],
        schedules=[
            build_nightly_schedule(settings, reindex_job),
            build_saved_queries_schedule(settings, saved_queries_job),
        ],
        sensors=[
            build_watch_sensor(settings, by_source, by_recommender, crawl_job),
            build_automation_sensor(settings),
        ],
        executor=EXECUTOR,
        resources={"library": library},
    )
