"""Jobs that people start: ask one question, check every stored file, give back disk space."""

from datetime import timedelta
from pathlib import Path

import dagster as dg
from pydantic import Field

from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.errors import StoreError, UnreadableError
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.maintenance.engine import collect_engine, verify_engine
from retrieval_pipeline.maintenance.gc import collect
from retrieval_pipeline.maintenance.verify import verify as verify_store
from retrieval_pipeline.orchestration.events import explained
from retrieval_pipeline.orchestration.flow import QUICK, Flow
from retrieval_pipeline.orchestration.history import MOST_RUNS, prune
from retrieval_pipeline.orchestration.previews import freed_table, hits_pictures, hits_table
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher


class QueryConfig(dg.Config):
    """What to look for: a text, an image, or both."""

    text: str = Field(default="", description="Words, such as: a red car in the snow")
    image: str = Field(default="", description="Path of a picture to find similar ones of")
    crop: str = Field(default="", description="Only x,y,width,height of that picture")
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
    labels: list[str] = Field(default=[], description="One of these labels; empty: any")
    albums: list[str] = Field(default=[], description="In one of these albums; empty: any")
    like_albums: list[str] = Field(default=[], description="Find more of the kind of these albums")
    min_rating: int | None = Field(default=None, description="Least number of stars")
    sort: str = Field(default="relevance", description="relevance, newest, oldest or name")
    literal: bool = Field(default=False, description="Do not read words as facts")


def build_query_job(flow: Flow) -> dg.JobDefinition:
    """Return the job that asks one question."""

    @dg.op(name=flow.named("query"), required_resource_keys=flow.resources)
    def query(context: dg.OpExecutionContext, config: QueryConfig) -> None:
        """Answer one query from the current build."""
        settings = flow.library(context).settings
        images = (Path(config.image),) if config.image else ()
        with explained(context):
            asked = Query.of({**config.model_dump(exclude={"image", "k"}), "images": images})
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

    @dg.job(
        name=flow.named("query_job"),
        tags=QUICK,
        # What the Launchpad begins with.
        config={"ops": {flow.named("query"): {"config": {"text": "a red car in the snow"}}}},
        executor_def=dg.in_process_executor,
        description="Ask one question; the hits are in the output's metadata.",
    )
    def query_job() -> None:
        query()

    return query_job


def build_verify_job(flow: Flow) -> dg.JobDefinition:
    """Return the job that checks every stored file."""

    @dg.op(name=flow.named("verify"), required_resource_keys=flow.resources)
    def verify(context: dg.OpExecutionContext) -> None:
        """Read every stored file and check it against its contract."""
        library = flow.library(context)
        with explained(context):
            findings = list(verify_store(library.store, library.settings.source_names))
            if library.settings.has_engine:
                findings += verify_engine(library.settings)
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

    @dg.job(
        name=flow.named("verify_job"),
        tags=QUICK,
        executor_def=dg.in_process_executor,
        description="Check every stored file; the run fails with a line for each one that is off.",
    )
    def verify_job() -> None:
        verify()

    return verify_job


class GcConfig(dg.Config):
    """What to remove."""

    dry_run: bool = Field(default=False, description="Remove nothing; say what would go")
    other_models: bool = Field(
        default=False,
        description="Also remove embeddings and builds of all models but that of the settings",
    )
    keep_runs_days: float = Field(
        default=30,
        description="Forget older runs; of those that made something, only what they logged",
    )
    most_runs: int = Field(
        default=MOST_RUNS,
        ge=0,
        description="Forget so many at the most, the oldest first; the next run goes on",
    )


def build_gc_job(flow: Flow) -> dg.JobDefinition:
    """Return the job that gives back disk space."""

    @dg.op(name=flow.named("gc"), required_resource_keys=flow.resources)
    def gc(context: dg.OpExecutionContext, config: GcConfig) -> None:
        """Give back the disk space of what the settings no longer name, and of old runs."""
        library = flow.library(context)
        settings = library.settings
        with explained(context):
            freed = collect(
                library.store,
                settings.source_names,
                only_space=describe_encoder(settings).space if config.other_models else None,
                dry_run=config.dry_run,
                wait=True,
            )
            if settings.has_engine:
                freed += collect_engine(
                    settings,
                    space=describe_encoder(settings).space,
                    other_models=config.other_models,
                    dry_run=config.dry_run,
                    wait=True,
                )
        age = timedelta(days=config.keep_runs_days)
        pruned = prune(context.instance, flow.jobs, age, config.most_runs, dry_run=config.dry_run)
        if pruned.left:
            context.log.warning(f"{pruned.left:,} old runs are left for the next gc_job")
        context.add_output_metadata(
            {
                "megabytes": round(sum(each.bytes for each in freed) / 1e6, 1),
                "runs": pruned.runs,
                "logs_of_runs": pruned.logs,
                "runs_left": pruned.left,
                "removed": not config.dry_run,
                "files": freed_table(freed, library.store),
            }
        )

    @dg.job(
        name=flow.named("gc_job"),
        executor_def=dg.in_process_executor,
        description=(
            "Remove tables of former sources, old builds and maps, what killed runs left behind, "
            "and the history of old runs that made nothing."
        ),
    )
    def gc_job() -> None:
        gc()

    return gc_job
