"""The job that brings everything up to date in one run, however many sources have changed.

It does what `retrieval index` does and records what changed on the pages of the assets. As steps of
the assets, a run could only take sources that are neighbours in the settings, and each source that
is away would keep the others from being found.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from itertools import chain
from pathlib import Path

import dagster as dg
from pydantic import Field

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.errors import RetrievalError, SourceError, StoreError, VectorError
from retrieval_pipeline.index.builder import RefusedBuildError
from retrieval_pipeline.ingest.embed import embedded_ids
from retrieval_pipeline.ingest.missing_views import stored_views
from retrieval_pipeline.orchestration.assets import CrawlConfig, EmbedConfig
from retrieval_pipeline.orchestration.checks import (
    VECTORS_ARE_UNIT,
    build_checks,
    few_quarantined,
    steady_map,
    stored_vectors,
    whole_source,
)
from retrieval_pipeline.orchestration.events import (
    Events,
    InputEvents,
    Made,
    explained,
    is_transient,
    materialisation,
    recorded_versions,
)
from retrieval_pipeline.orchestration.facts import recorded_facts
from retrieval_pipeline.orchestration.flow import BACKGROUND, WHOLE_FLOW, Flow
from retrieval_pipeline.orchestration.history import open_history
from retrieval_pipeline.orchestration.metadata import (
    build_metadata,
    embedding_metadata,
    manifest_metadata,
    map_metadata,
)
from retrieval_pipeline.orchestration.progress import run_progress
from retrieval_pipeline.orchestration.versions import (
    embeddings_code_version,
    embeddings_version,
    manifest_version,
)
from retrieval_pipeline.pipeline.publish import update_index, update_map
from retrieval_pipeline.pipeline.run import SourcesReport, update_sources
from retrieval_pipeline.storage.store import Store

# Tags of a run: the model that embeds, and the build that it published.
MODEL_TAG, BUILD_TAG = "retrieval/model", "retrieval/build"
# Tag of a run that some sources refused: only people can help, by mounting or confirming.
REFUSED_TAG = "retrieval/refused_sources"
# A contact sheet takes 100 KB of the event log, which keeps it for ever.
SHEETS_IN_A_RUN = 10


class ReindexConfig(CrawlConfig, EmbedConfig):
    """What to bring up to date."""

    sources: list[str] = Field(
        default=[], description="Look at these sources only; empty: at all of them"
    )


def build_reindex_job(flow: Flow) -> dg.JobDefinition:
    """Return the job that brings manifests, embeddings, index and map up to date."""

    @dg.op(name=flow.named("reindex"), required_resource_keys=flow.resources, out={})
    def reindex(context: dg.OpExecutionContext, config: ReindexConfig) -> Events:
        """Look at the sources, embed what is new, and renew the index and its map."""
        library = flow.library(context)
        settings, store = library.settings, library.store
        progress = run_progress(store, context.log)
        # A source may have left the settings since the run was asked for.
        only = [name for name in config.sources if name in settings.source_names]
        history = open_history(context.instance, context.run.run_id)
        with explained(context), history, store.locked(wait=True):
            space = describe_encoder(settings).space
            before = set(store.parts(space))
            tables = update_sources(
                settings,
                only=only,
                allow_shrink=config.allow_shrink,
                rehash=config.rehash,
                retry_quarantined=config.retry_quarantined,
                progress=progress,
            )
            sources = chain(
                _recorded_sources(context, flow, settings, tables, before, named=bool(only)),
                recorded_facts(context, flow, settings, tables, named=bool(only)),
            )
            try:
                build = update_index(settings, space, tables.load, progress=progress)
            except RetrievalError as error:
                yield from sources
                if isinstance(error, RefusedBuildError):
                    yield from build_checks(flow, settings, error.checks)
                raise
            if build.kept:
                context.log.warning(f"the index stays as it is: {build.kept}")
            drawn = update_map(settings, build.build, progress=progress)
            # Hundreds of events take a while: the index answers before.
            yield from sources
            # A run over all sources tells also that nothing has changed: they are fresh.
            if build.published or not only:
                index, inputs = flow.key("retrieval_index"), build.info.inputs
                tables_read = {
                    flow.key(each): inputs for each in ("image_embeddings", "picture_facts")
                }
                made = Made(inputs, build_metadata(flow, settings, build), tables_read)
                yield materialisation(InputEvents(context.instance), index, made, "1")
                yield from build_checks(flow, settings, build.info.checks)
                made = Made(build.build.name, map_metadata(flow, drawn), {index: inputs})
                events = InputEvents(context.instance)
                yield materialisation(events, flow.key("latent_map"), made, "1")
                yield steady_map(flow, settings, drawn.info)
            context.instance.add_run_tags(
                context.run.run_id, {MODEL_TAG: build.info.model, BUILD_TAG: build.build.name}
            )
            if tables.failures:
                raise _refused(context, tables.failures)

    @dg.job(
        name=flow.named("reindex_job"),
        tags=WHOLE_FLOW,
        executor_def=dg.in_process_executor,
        description="Bring sources, the index and the map up to date, all in one run.",
    )
    def reindex_job() -> None:
        reindex()

    return reindex_job


def _recorded_sources(
    context: dg.OpExecutionContext,
    flow: Flow,
    settings: Settings,
    tables: SourcesReport,
    before: AbstractSet[Path],
    *,
    named: bool,
) -> Events:
    """Yield the events of the sources that differ from what was recorded of them last.

    The checks of sources that a run was started for are recorded also if nothing has changed: one
    of them may have failed before.
    """
    store, space, instance = Store(settings.home), tables.description.space, context.instance
    embedded, views = embedded_ids(store, space), stored_views(store, space)
    for source, error in tables.failures.items():
        yield whole_source(flow, source, error)

    events = InputEvents(instance)
    manifests = flow.key("file_manifest")
    recorded = recorded_versions(instance, manifests)
    versions = {each.source: manifest_version(store, each.source) for each in tables.manifests}
    for crawled in tables.manifests:
        source, version = crawled.source, versions[crawled.source]
        if recorded.get(source) != version:
            made = Made(version, manifest_metadata(store, crawled))
            yield materialisation(events, manifests, made, "1", source)
        elif not named:
            continue
        yield whole_source(flow, source)

    embeddings = flow.key("image_embeddings")
    recorded = recorded_versions(instance, embeddings)
    vectors = {
        each.source: embeddings_version(store, space, each.source, embedded, views)
        for each in tables.embeddings
    }
    changed = [name for name, version in vectors.items() if recorded.get(name) != version]
    for report in tables.embeddings:
        source = report.source
        if source in changed or report.newly_quarantined:
            made = Made(
                vectors[source],
                embedding_metadata(
                    flow,
                    store,
                    settings,
                    space,
                    report,
                    pictures=len(changed) <= SHEETS_IN_A_RUN,
                ),
                {manifests: versions[source]} if source in versions else {},
            )
            code = embeddings_code_version(settings)
            yield materialisation(events, embeddings, made, code, source)
        elif not named:
            continue
        new = [part for part in store.parts(space, source) if part not in before]
        try:
            stored = stored_vectors(new, space)
        except (StoreError, VectorError) as error:
            yield VECTORS_ARE_UNIT.found(flow, False, {"why": str(error)}, source)
            raise
        if stored:
            yield VECTORS_ARE_UNIT.found(flow, True, {"new_vectors": stored}, source)
        yield few_quarantined(flow, settings, report)


def _refused(context: dg.OpExecutionContext, failures: Mapping[str, SourceError]) -> SourceError:
    """Return the error of the sources that could not be looked at, when all else is done."""
    errors = list(failures.values())
    if not any(map(is_transient, errors)):
        tag = {REFUSED_TAG: ", ".join(failures)}
        context.instance.add_run_tags(context.run.run_id, tag)
    return next(filter(is_transient, errors), None) or SourceError(*map(str, errors))


def request(
    sources: Sequence[str], flow: Flow, *, run_key: str | None, tags: Mapping[str, str]
) -> dg.RunRequest:
    """Return the request for a run over these sources; none means all."""
    config = {"ops": {flow.named("reindex"): {"config": {"sources": list(sources)}}}}
    named = {"retrieval/source": sources[0]} if len(sources) == 1 else {}
    return dg.RunRequest(
        run_key=run_key,
        run_config=config if sources else {},
        tags={**WHOLE_FLOW, **named, "retrieval/sources": str(len(sources) or "all"), **tags},
    )


def build_nightly_schedule(
    flow: Flow, settings: Settings, job: dg.JobDefinition
) -> dg.ScheduleDefinition:
    """Return the schedule that makes up for whatever sensors missed or failed at."""

    @dg.schedule(
        job=job,
        name=flow.named("nightly"),
        cron_schedule=settings.schedule.reindex,
        execution_timezone=settings.schedule.timezone,
        default_status=dg.DefaultScheduleStatus.RUNNING,
        description="One run over all sources; one that is away keeps no other from being found.",
    )
    def nightly(context: dg.ScheduleEvaluationContext) -> dg.RunRequest | dg.SkipReason:
        if not settings.sources:
            return dg.SkipReason("the settings have no sources")
        return request([], flow, run_key=None, tags=BACKGROUND)

    return nightly
