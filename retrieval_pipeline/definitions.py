"""The code location: everything that Dagster shows and runs."""

import dagster as dg

from retrieval_pipeline.config import Settings
from retrieval_pipeline.orchestration.assets import build_assets
from retrieval_pipeline.orchestration.jobs import build_reindex_job, query_job
from retrieval_pipeline.orchestration.partitions import (
    load_definition_settings,
    partitions_by_recommender,
    partitions_by_source,
)
from retrieval_pipeline.orchestration.recommend import build_recommender_assets, recommend_job
from retrieval_pipeline.orchestration.resources import Library


def build_definitions(settings: Settings, library: Library | None = None) -> dg.Definitions:
    """Return the definitions for these settings' sources.

    `library` is what runs read their settings from; by default the same file as the command line.
    """
    assets = build_assets(partitions_by_source(settings))
    return dg.Definitions(
        assets=[*assets, *build_recommender_assets(partitions_by_recommender(settings))],
        jobs=[build_reindex_job(assets), query_job, recommend_job],
        resources={"library": library or Library()},
    )


defs = build_definitions(load_definition_settings())
