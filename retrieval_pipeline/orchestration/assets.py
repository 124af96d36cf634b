"""The flow as assets: file manifest -> embeddings, facts -> index -> map. The work is in the core.

People materialise them one by one, or by source; what runs by itself is `reindex.py`.
"""

import functools
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import dagster as dg
from pydantic import Field

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.from_settings import describe_encoder, load_settings_encoder
from retrieval_pipeline.errors import BuildError, SourceError, StoreError, VectorError
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.index.builder import RefusedBuildError
from retrieval_pipeline.index.items import ITEM_COLUMNS
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.embed import embedded_ids, update_embeddings
from retrieval_pipeline.ingest.int8_check import check_int8
from retrieval_pipeline.ingest.missing_views import ViewTables
from retrieval_pipeline.latent_map.coordinates import COORDINATES
from retrieval_pipeline.orchestration.automation import ON_NEW_DATA_IN_THE_FLOW
from retrieval_pipeline.orchestration.checks import (
    ANSWERS_AS_WELL,
    FEW_ARE_QUARANTINED,
    MAP_IS_STEADY,
    RECALL_IS_ENOUGH,
    ROWS_AGREE,
    SOURCE_IS_WHOLE,
    VECTORS_ARE_UNIT,
    build_checks,
    few_quarantined,
    steady_map,
    stored_vectors,
    whole_source,
)
from retrieval_pipeline.orchestration.columns import ANY_DIMENSION, columns
from retrieval_pipeline.orchestration.events import (
    Events,
    Made,
    explained,
    failure,
    is_transient,
    materialised,
    partitions_made,
    result,
)
from retrieval_pipeline.orchestration.facts import build_picture_facts
from retrieval_pipeline.orchestration.flow import Flow
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
from retrieval_pipeline.pipeline.publish import answering_build, update_index, update_map
from retrieval_pipeline.pipeline.run import embed_options
from retrieval_pipeline.storage.schemas import MANIFEST, embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace


class CrawlConfig(dg.Config):
    """How to look at the directories."""

    allow_shrink: bool = Field(
        default=False, description="Confirm that most files of a source are gone"
    )
    rehash: bool = Field(
        default=False, description="Read every file again, also those that look unchanged"
    )


class EmbedConfig(dg.Config):
    """How to embed."""

    retry_quarantined: bool = Field(
        default=False, description="Try images again that could not be used"
    )


def build_assets(
    flow: Flow, settings: Settings, by_source: dg.PartitionsDefinition[str]
) -> Sequence[dg.AssetsDefinition]:
    """Return the assets of the flow, upstream first, partitioned by these sources."""
    return [
        build_file_manifest(flow, by_source),
        build_image_embeddings(flow, settings, by_source),
        build_picture_facts(flow, settings, by_source),
        build_retrieval_index(flow, settings),
        build_latent_map(flow, settings),
    ]


def build_file_manifest(flow: Flow, by_source: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    """Return the asset of the manifests, partitioned by these sources."""

    @dg.asset(
        **flow.options("file_manifest"),
        deps=flow.upstream,
        partitions_def=by_source,
        kinds={"parquet"},
        code_version="1",
        metadata=columns(MANIFEST),
        check_specs=[SOURCE_IS_WHOLE.spec(flow, by_source)],
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def file_manifest(context: dg.AssetExecutionContext, config: CrawlConfig) -> Events:
        """The image files of a source: path, size, time and content id."""
        library = flow.library(context)
        settings, store = library.settings, library.store
        made: dict[str, Made] = {}
        failed: dict[str, SourceError] = {}
        with explained(context), store.locked(wait=True):
            for source in context.partition_keys:
                try:
                    report = update_manifest(
                        store,
                        settings.source(source),
                        max_shrink=settings.max_shrink,
                        allow_shrink=config.allow_shrink,
                        rehash=config.rehash,
                        max_bytes=Limits.of(settings.images).bytes,
                        progress=run_progress(store, context.log),
                    )
                except SourceError as error:
                    failed[source] = error
                else:
                    made[source] = Made(
                        manifest_version(store, source), manifest_metadata(store, report)
                    )
            checks = [whole_source(flow, source) for source in made]
            checks += [whole_source(flow, source, error) for source, error in failed.items()]
            if failed:
                yield from checks
                yield from partitions_made(context, made)
                raise next(filter(is_transient, failed.values()), None) or SourceError(
                    "\n".join(map(str, failed.values()))
                )
        yield from materialised(context, made, checks)

    return file_manifest


def build_image_embeddings(
    flow: Flow, settings: Settings, by_source: dg.PartitionsDefinition[str]
) -> dg.AssetsDefinition:
    """Return the asset of the embeddings, downstream of the manifests."""

    file_manifest = flow.key("file_manifest")

    @dg.asset(
        **flow.options("image_embeddings"),
        deps=[file_manifest],
        partitions_def=by_source,
        kinds={"parquet", "huggingface"},
        pool=flow.pool,
        code_version=embeddings_code_version(settings),
        metadata=columns(embedding_schema(ANY_DIMENSION)),
        check_specs=[
            VECTORS_ARE_UNIT.spec(flow, by_source),
            FEW_ARE_QUARANTINED.spec(flow, by_source),
        ],
        automation_condition=flow.when(ON_NEW_DATA_IN_THE_FLOW),
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def image_embeddings(context: dg.AssetExecutionContext, config: EmbedConfig) -> Events:
        """An embedding of each image of a source that the model of the settings had not seen."""
        library = flow.library(context)
        settings, store = library.settings, library.store
        made: dict[str, Made] = {}
        checks: list[dg.AssetCheckEvaluation] = []
        with explained(context), store.locked(wait=True):
            sources = [settings.source(name) for name in context.partition_keys]
            check_int8(settings, sources, progress=run_progress(store, context.log))
            description = describe_encoder(settings)
            space = description.space
            load = functools.cache(
                functools.partial(load_settings_encoder, settings, description.space)
            )
            options = embed_options(
                settings, description, retry_quarantined=config.retry_quarantined
            )
            embedded, tables = embedded_ids(store, space), ViewTables(store, description)
            for source in context.partition_keys:
                before = set(_all_parts(store, space, source))
                report = update_embeddings(
                    store,
                    settings.source(source),
                    description,
                    load,
                    options,
                    embedded=embedded,
                    tables=tables,
                    progress=run_progress(store, context.log),
                )
                new = [part for part in _all_parts(store, space, source) if part not in before]
                try:
                    stored = stored_vectors(new, space)
                except (StoreError, VectorError) as error:
                    yield VECTORS_ARE_UNIT.found(flow, False, {"why": str(error)}, source)
                    raise
                checks.append(VECTORS_ARE_UNIT.found(flow, True, {"new_vectors": stored}, source))
                checks.append(few_quarantined(flow, settings, report))
                made[source] = Made(
                    embeddings_version(store, space, source, embedded, tables.stored),
                    embedding_metadata(flow, store, settings, space, report),
                    inputs={file_manifest: manifest_version(store, source)},
                )
        yield from materialised(context, made, checks)

    return image_embeddings


def _all_parts(store: Store, space: VectorSpace, source: str) -> list[Path]:
    """Return the embedding parts of a source, and those of the views of its pictures."""
    return [*store.parts(space, source), *store.view_parts(space, source)]


def build_retrieval_index(flow: Flow, settings: Settings) -> dg.AssetsDefinition:
    """Return the asset of the index over all sources."""
    rules = [ROWS_AGREE, RECALL_IS_ENOUGH]
    if settings.evaluation is not None:
        rules.append(ANSWERS_AS_WELL)
    defined = settings

    @dg.asset(
        **flow.options("retrieval_index"),
        deps=[flow.key("image_embeddings"), flow.key("picture_facts")],
        kinds={"arrow"},
        code_version="1",
        metadata=columns(ITEM_COLUMNS),
        check_specs=[rule.spec(flow) for rule in rules],
        automation_condition=flow.when(ON_NEW_DATA_IN_THE_FLOW),
        freshness_policy=freshness(settings),
    )
    def retrieval_index(context: dg.AssetExecutionContext) -> Events:
        """The current build: Annoy's trees and the items they point to, over all sources."""
        library = flow.library(context)
        settings = library.settings
        with explained(context), library.store.locked(wait=True):
            space = describe_encoder(settings).space
            try:
                report = update_index(
                    settings,
                    space,
                    functools.cache(functools.partial(load_settings_encoder, settings, space)),
                    progress=run_progress(library.store, context.log),
                )
            except RefusedBuildError as refused:
                yield from build_checks(flow, defined, refused.checks)
                raise
        if report.kept:
            context.log.warning(f"the index stays as it is: {report.kept}")
        made = Made(report.info.inputs, build_metadata(flow, settings, report))
        yield from result(context, made, list(build_checks(flow, defined, report.info.checks)))

    return retrieval_index


def build_latent_map(flow: Flow, settings: Settings) -> dg.AssetsDefinition:
    """Return the asset of the map of the current build."""

    @dg.asset(
        **flow.options("latent_map"),
        deps=[flow.key("retrieval_index")],
        kinds={"scikitlearn"},
        code_version="1",
        metadata=columns(COORDINATES),
        check_specs=[MAP_IS_STEADY.spec(flow)],
        automation_condition=flow.when(ON_NEW_DATA_IN_THE_FLOW),
        freshness_policy=freshness(settings),
    )
    def latent_map(context: dg.AssetExecutionContext) -> Events:
        """The current build as a map: its principal components, clusters, picture and page."""
        library = flow.library(context)
        settings = library.settings
        with explained(context), library.store.locked(wait=True):
            build = answering_build(settings)
            if build is None:
                raise failure(BuildError("nothing is indexed yet: materialise retrieval_index"))
            report = update_map(settings, build, progress=run_progress(library.store, context.log))
        made = Made(build.name, map_metadata(flow, report))
        yield from result(context, made, [steady_map(flow, settings, report.info)])

    return latent_map


def freshness(settings: Settings) -> dg.FreshnessPolicy:
    """Return how old an index or a map may be; a run over all sources renews both."""
    return dg.FreshnessPolicy.time_window(timedelta(hours=settings.checks.max_age_hours))
