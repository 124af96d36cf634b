"""Jobs that people and schedules start: bring everything up to date, or ask one question."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg
from pydantic import Field

from retrieval_pipeline.config import Settings
from retrieval_pipeline.images import Limits
from retrieval_pipeline.orchestration.events import explained
from retrieval_pipeline.orchestration.previews import hits_pictures, hits_table
from retrieval_pipeline.orchestration.resources import Library
from retrieval_pipeline.search import Query, Searcher

if TYPE_CHECKING:
    # What define_asset_job returns has no public name.
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition,
    )


class QueryConfig(dg.Config):
    """What to look for: a text, an image, or both."""

    text: str = Field(default="", description="Words, such as: a red car in the snow")
    image: str = Field(default="", description="Path of a picture to find similar ones of")
    plus: list[str] = Field(default=[], description="Move the meaning towards these words")
    minus: list[str] = Field(default=[], description="Move the meaning away from these words")
    k: int = Field(default=8, ge=1, description="Number of hits")
    sources: list[str] = Field(default=[], description="Only these sources; empty: all")
    path: list[str] = Field(default=[], description="Only paths like these globs; empty: all")


@dg.op
def query(context: dg.OpExecutionContext, config: QueryConfig, library: Library) -> None:
    """Answer one query from the current build."""
    settings = library.settings
    with explained(context):
        answer = Searcher.open(settings).answer(
            Query(
                text=config.text or None,
                images=(Path(config.image),) if config.image else (),
                plus=tuple(config.plus),
                minus=tuple(config.minus),
                sources=tuple(config.sources),
                paths=tuple(config.path),
            ),
            config.k,
        )
    for rank, hit in enumerate(answer.hits, 1):
        context.log.info(f"{rank:>3}  {hit.score:.3f}  {hit.path}")
    context.add_output_metadata(
        {
            "hits": hits_table(answer),
            "pictures": hits_pictures(answer, Limits.of(settings.images)),
            "model": answer.model,
            "build": answer.build,
        }
    )


@dg.job(executor_def=dg.in_process_executor)
def query_job() -> None:
    """Ask one question; the hits are in the output's metadata."""
    query()


def build_reindex_job(assets: Sequence[dg.AssetsDefinition]) -> "UnresolvedAssetJobDefinition":
    """Return the job that brings manifests, embeddings, index and map up to date."""
    return dg.define_asset_job(
        "reindex_job",
        selection=dg.AssetSelection.assets(*assets),
        description="Bring a source, the index and the map up to date.",
    )


def build_crawl_job() -> "UnresolvedAssetJobDefinition":
    """Return the job that looks at a directory; what is new there makes the rest follow."""
    return dg.define_asset_job(
        "crawl_job",
        selection=dg.AssetSelection.assets("file_manifest"),
        description="Look at a directory; embeddings, index and map follow if it has changed.",
    )


def build_nightly_schedule(
    settings: Settings, job: "UnresolvedAssetJobDefinition"
) -> dg.ScheduleDefinition:
    """Return the schedule that makes up for whatever sensors missed or failed at."""

    @dg.schedule(
        job=job,
        name="nightly",
        cron_schedule=settings.schedule.reindex,
        execution_timezone=settings.schedule.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="A run for each source, so that a disk that is away fails alone.",
    )
    def nightly(context: dg.ScheduleEvaluationContext) -> Sequence[dg.RunRequest]:
        night = context.scheduled_execution_time.isoformat()
        return [
            dg.RunRequest(run_key=f"{name} {night}", partition_key=name)
            for name in settings.source_names
        ]

    return nightly


def all_sources(settings: Settings) -> dict[str, str]:
    """Return the run tags that make one run of `reindex_job` cover every source."""
    return {
        "dagster/asset_partition_range_start": settings.source_names[0],
        "dagster/asset_partition_range_end": settings.source_names[-1],
    }
