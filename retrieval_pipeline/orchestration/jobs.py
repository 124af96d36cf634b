"""Jobs that people and schedules start: bring everything up to date, or ask one question."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import dagster as dg
from pydantic import Field

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.errors import StoreError, UnreadableError
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.maintenance.gc import collect
from retrieval_pipeline.maintenance.verify import verify as verify_store
from retrieval_pipeline.orchestration.checks import is_fresh
from retrieval_pipeline.orchestration.events import explained
from retrieval_pipeline.orchestration.partitions import one_run_each
from retrieval_pipeline.orchestration.previews import freed_table, hits_pictures, hits_table
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher

if TYPE_CHECKING:
    # What define_asset_job returns has no public name.
    from dagster._core.definitions.unresolved_asset_job_definition import (
        UnresolvedAssetJobDefinition,
    )

    AssetJob: TypeAlias = UnresolvedAssetJobDefinition

# It looks at all sources, and has a time of its own.
FRESHNESS = dg.AssetSelection.checks(is_fresh)


class QueryConfig(dg.Config):
    """What to look for: a text, an image, or both."""

    text: str = Field(default="", description="Words, such as: a red car in the snow")
    image: str = Field(default="", description="Path of a picture to find similar ones of")
    plus: list[str] = Field(default=[], description="Move the meaning towards these words")
    minus: list[str] = Field(default=[], description="Move the meaning away from these words")
    k: int = Field(default=8, description="Number of hits, at least 1")
    sources: list[str] = Field(default=[], description="Only these sources; empty: all")
    path: list[str] = Field(default=[], description="Only paths like these globs; empty: all")
    after: str = Field(default="", description="Taken then or later: 2019-08, last week, ...")
    before: str = Field(default="", description="Taken before")
    on: str = Field(default="", description="Taken then: summer 2019, yesterday, ...")
    years: list[int] = Field(default=[], description="Taken in these years; empty: any")
    file_after: str = Field(default="", description="Files changed then or later")
    file_before: str = Field(default="", description="Files changed before")
    cameras: list[str] = Field(default=[], description="Words in the camera's name; empty: any")
    lenses: list[str] = Field(default=[], description="Words in the lens's name; empty: any")
    near: str = Field(default="", description="Taken near this town, or latitude, longitude")
    within: str = Field(default="20 km", description="How near")
    countries: list[str] = Field(default=[], description="Codes (PT) or names; empty: all")
    keywords: list[str] = Field(default=[], description="One of these keywords; empty: any")
    min_rating: int | None = Field(default=None, description="Least number of stars")
    sort: str = Field(default="relevance", description="relevance, newest, oldest or name")
    literal: bool = Field(default=False, description="Do not read words as facts")


@dg.op
def query(context: dg.OpExecutionContext, config: QueryConfig, library: LibraryResource) -> None:
    """Answer one query from the current build."""
    settings = library.settings
    images = (Path(config.image),) if config.image else ()
    asked = Query.of({**config.model_dump(exclude={"image", "k"}), "images": images})
    with explained(context):
        answer = Searcher.open(settings).answer(asked, config.k)
    for rank, hit in enumerate(answer.hits, 1):
        score = "" if hit.score is None else f"{hit.score:.3f}  "
        context.log.info(f"{rank:>3}  {score}{hit.path}")
    for each in answer.understood:
        context.log.info(f"understood: {each.meaning}")
    for note in answer.notes:
        context.log.info(note)
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


@dg.op
def verify(context: dg.OpExecutionContext, library: LibraryResource) -> None:
    """Read every stored file and check it against its contract."""
    with explained(context):
        findings = list(verify_store(library.store, library.settings.source_names))
        problems = [finding.problem for finding in findings if finding.problem]
        for finding in findings:
            if finding.note:
                context.log.warning(finding.note)
        if not findings:
            raise StoreError(f"nothing is stored in {library.store.home} yet")
        if any(finding.unreadable for finding in findings):
            raise UnreadableError("\n".join(problems))
        if problems:
            raise StoreError(
                "\n".join(problems) + "\n`retrieval verify --repair` rebuilds what it can"
            )
    context.add_output_metadata({"files": sum(not finding.note for finding in findings)})


@dg.job(executor_def=dg.in_process_executor)
def verify_job() -> None:
    """Check every stored file; the run fails with a line for each one that is off."""
    verify()


class GcConfig(dg.Config):
    """What to remove."""

    dry_run: bool = Field(default=False, description="Remove nothing; say what would go")
    other_models: bool = Field(
        default=False,
        description="Also remove embeddings and builds of all models but that of the settings",
    )


@dg.op
def gc(context: dg.OpExecutionContext, config: GcConfig, library: LibraryResource) -> None:
    """Give back the disk space of what the settings no longer name."""
    settings = library.settings
    with explained(context):
        freed = collect(
            library.store,
            settings.source_names,
            only_space=describe_encoder(settings).space if config.other_models else None,
            dry_run=config.dry_run,
            wait=True,
        )
    context.add_output_metadata(
        {
            "megabytes": round(sum(each.bytes for each in freed) / 1e6, 1),
            "removed": not config.dry_run,
            "files": freed_table(freed, library.store),
        }
    )


@dg.job(executor_def=dg.in_process_executor)
def gc_job() -> None:
    """Remove tables of former sources, old builds and maps, and what killed runs left behind."""
    gc()


def build_reindex_job(assets: Sequence[dg.AssetsDefinition]) -> "AssetJob":
    """Return the job that brings manifests, embeddings, index and map up to date."""
    return dg.define_asset_job(
        "reindex_job",
        selection=dg.AssetSelection.assets(*assets) - FRESHNESS,
        description="Bring a source, the index and the map up to date.",
    )


def build_crawl_job() -> "AssetJob":
    """Return the job that looks at a directory; what is new there makes the rest follow."""
    return dg.define_asset_job(
        "crawl_job",
        selection=dg.AssetSelection.assets("file_manifest") - FRESHNESS,
        description="Look at a directory; embeddings, index and map follow if it has changed.",
    )


def build_nightly_schedule(settings: Settings, job: "AssetJob") -> dg.ScheduleDefinition:
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
        return one_run_each(context, settings.source_names)

    return nightly


def all_sources(settings: Settings) -> dict[str, str]:
    """Return the run tags that make one run of `reindex_job` cover every source."""
    return {
        "dagster/asset_partition_range_start": settings.source_names[0],
        "dagster/asset_partition_range_end": settings.source_names[-1],
    }
