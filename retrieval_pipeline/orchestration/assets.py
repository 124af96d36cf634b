"""The flow as assets: file manifest -> embeddings -> index -> map. The work is in the core."""

import functools
from collections.abc import Sequence
from pathlib import Path

import dagster as dg
from pydantic import Field

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.from_settings import describe_encoder, load_settings_encoder
from retrieval_pipeline.errors import BuildError, SourceError, StoreError, VectorError
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.index.builder import RefusedBuildError
from retrieval_pipeline.index.items import items_schema
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.embed import EmbedReport, update_embeddings
from retrieval_pipeline.latent_map.coordinates import COORDINATES
from retrieval_pipeline.orchestration.automation import (
    ON_NEW_DATA,
    ON_NEW_DATA_OF_ANY,
    ON_NEW_DATA_OR_MODEL,
)
from retrieval_pipeline.orchestration.checks import (
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
    unit_vectors,
    whole_sources,
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
from retrieval_pipeline.orchestration.metadata import (
    build_metadata,
    embedding_metadata,
    manifest_metadata,
    map_metadata,
)
from retrieval_pipeline.orchestration.progress import LogProgress
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.orchestration.versions import embeddings_version, manifest_version
from retrieval_pipeline.pipeline.publish import update_index, update_map
from retrieval_pipeline.pipeline.run import embed_options
from retrieval_pipeline.storage.schemas import MANIFEST, embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace

GROUP = "retrieval"


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
    settings: Settings, by_source: dg.PartitionsDefinition[str]
) -> Sequence[dg.AssetsDefinition]:
    """Return the assets of the flow, upstream first, partitioned by these sources."""
    file_manifest = build_file_manifest(by_source)
    image_embeddings = build_image_embeddings(settings, by_source, file_manifest)
    retrieval_index = build_retrieval_index(image_embeddings)
    return [file_manifest, image_embeddings, retrieval_index, build_latent_map(retrieval_index)]


def build_file_manifest(by_source: dg.PartitionsDefinition[str]) -> dg.AssetsDefinition:
    """Return the asset of the manifests, partitioned by these sources."""

    @dg.asset(
        partitions_def=by_source,
        group_name=GROUP,
        kinds={"parquet"},
        code_version="1",
        metadata=columns(MANIFEST),
        check_specs=[SOURCE_IS_WHOLE],
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def file_manifest(
        context: dg.AssetExecutionContext, config: CrawlConfig, library: LibraryResource
    ) -> Events:
        """The image files of a source: path, size, time and content id."""
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
                        progress=LogProgress(context.log),
                    )
                except SourceError as error:
                    failed[source] = error
                else:
                    made[source] = Made(
                        manifest_version(store, source), manifest_metadata(store, report)
                    )
            if failed:
                yield whole_sources(list(made), failed)
                yield from partitions_made(context, made)
                raise next(filter(is_transient, failed.values()), None) or SourceError(
                    "\n".join(map(str, failed.values()))
                )
        yield from materialised(context, made, [whole_sources(list(made), failed)])

    return file_manifest


def build_image_embeddings(
    settings: Settings,
    by_source: dg.PartitionsDefinition[str],
    file_manifest: dg.AssetsDefinition,
) -> dg.AssetsDefinition:
    """Return the asset of the embeddings, downstream of the manifests."""

    @dg.asset(
        deps=[file_manifest],
        partitions_def=by_source,
        group_name=GROUP,
        kinds={"parquet", "huggingface"},
        pool="gpu",
        # A change of model is a change of code: everything is embedded anew.
        code_version=f"1 {settings.model} {settings.revision or ''} {settings.precision}",
        metadata=columns(embedding_schema(ANY_DIMENSION)),
        check_specs=[VECTORS_ARE_UNIT, FEW_ARE_QUARANTINED],
        automation_condition=ON_NEW_DATA_OR_MODEL,
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def image_embeddings(
        context: dg.AssetExecutionContext, config: EmbedConfig, library: LibraryResource
    ) -> Events:
        """An embedding of each image of a source that the model of the settings had not seen."""
        settings, store = library.settings, library.store
        made: dict[str, Made] = {}
        reports: list[EmbedReport] = []
        with explained(context), store.locked(wait=True):
            description = describe_encoder(settings)
            space = description.space
            load = functools.cache(
                functools.partial(load_settings_encoder, settings, description.space)
            )
            options = embed_options(
                settings, description, retry_quarantined=config.retry_quarantined
            )
            stored = 0
            for source in context.partition_keys:
                before = set(_all_parts(store, space, source))
                report = update_embeddings(
                    store,
                    settings.source(source),
                    description,
                    load,
                    options,
                    progress=LogProgress(context.log),
                )
                new = [part for part in _all_parts(store, space, source) if part not in before]
                try:
                    stored += stored_vectors(new, space)
                except (StoreError, VectorError) as error:
                    yield unit_vectors(False, str(error))
                    raise
                reports.append(report)
                made[source] = Made(
                    embeddings_version(store, space, source),
                    embedding_metadata(store, settings, space, report),
                    inputs={"file_manifest": manifest_version(store, source)},
                )
        checks = [
            unit_vectors(True, f"{stored:,} new vectors"),
            few_quarantined(settings, reports),
        ]
        yield from materialised(context, made, checks)

    return image_embeddings


def _all_parts(store: Store, space: VectorSpace, source: str) -> list[Path]:
    """Return the embedding parts of a source, and those of the views of its pictures."""
    return [*store.parts(space, source), *store.view_parts(space, source)]


def build_retrieval_index(image_embeddings: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """Return the asset of the index over all sources."""

    @dg.asset(
        deps=[image_embeddings],
        group_name=GROUP,
        kinds={"arrow"},
        code_version="1",
        metadata=columns(items_schema(ANY_DIMENSION)),
        check_specs=[ROWS_AGREE, RECALL_IS_ENOUGH],
        automation_condition=ON_NEW_DATA_OF_ANY,
    )
    def retrieval_index(context: dg.AssetExecutionContext, library: LibraryResource) -> Events:
        """The current build: Annoy's trees and the items they point to, over all sources."""
        settings = library.settings
        with explained(context), library.store.locked(wait=True):
            space = describe_encoder(settings).space
            try:
                report = update_index(
                    settings,
                    space,
                    functools.partial(load_settings_encoder, settings, space),
                    progress=LogProgress(context.log),
                )
            except RefusedBuildError as refused:
                yield from build_checks(refused.checks)
                raise
        if report.kept:
            context.log.warning(f"the index stays as it is: {report.kept}")
        made = Made(report.info.inputs, build_metadata(report))
        yield result(context, made, list(build_checks(report.info.checks)))

    return retrieval_index


def build_latent_map(retrieval_index: dg.AssetsDefinition) -> dg.AssetsDefinition:
    """Return the asset of the map of the current build."""

    @dg.asset(
        deps=[retrieval_index],
        group_name=GROUP,
        kinds={"plotly", "scikitlearn"},
        code_version="1",
        metadata=columns(COORDINATES),
        check_specs=[MAP_IS_STEADY],
        automation_condition=ON_NEW_DATA,
    )
    def latent_map(context: dg.AssetExecutionContext, library: LibraryResource) -> Events:
        """The current build as a map: its principal components, clusters, picture and page."""
        settings = library.settings
        with explained(context), library.store.locked(wait=True):
            build = library.store.current_build()
            if build is None:
                raise failure(BuildError("nothing is indexed yet: materialise retrieval_index"))
            report = update_map(settings, build, progress=LogProgress(context.log))
        made = Made(build.name, map_metadata(report))
        yield result(context, made, [steady_map(settings, report.info)])

    return latent_map
