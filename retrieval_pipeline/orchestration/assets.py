"""The flow as assets: file manifest -> embeddings -> index -> map. The work is in the core."""

import functools
from collections.abc import Sequence
from typing import Any

import dagster as dg

from retrieval_pipeline.crawl import update_manifest
from retrieval_pipeline.embed import update_embeddings
from retrieval_pipeline.errors import BuildError, RetrievalError, SourceError
from retrieval_pipeline.images import Limits
from retrieval_pipeline.index import build_index
from retrieval_pipeline.orchestration.previews import map_preview, source_sheet
from retrieval_pipeline.orchestration.progress import LogProgress
from retrieval_pipeline.orchestration.resources import Library
from retrieval_pipeline.pipeline import describe_encoder, load_settings_encoder, update_map


def failure(error: RetrievalError) -> dg.Failure:
    """Return the error as a failure of the run: one line, and no retry, which would not help."""
    return dg.Failure(description=str(error), allow_retries=False)


def build_assets(by_source: dg.PartitionsDefinition[str]) -> Sequence[dg.AssetsDefinition]:
    """Return the assets of the flow, partitioned by these sources."""

    @dg.asset(
        partitions_def=by_source,
        group_name="retrieval",
        kinds={"parquet"},
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def file_manifest(context: dg.AssetExecutionContext, library: Library) -> None:
        """The image files of a source: path, size, time and content id."""
        settings = library.settings
        failed: list[str] = []
        with library.store.locked(wait=True):
            for source in context.partition_keys:
                try:
                    report = update_manifest(
                        library.store,
                        settings.source(source),
                        max_shrink=settings.max_shrink,
                        progress=LogProgress(context.log),
                    )
                except SourceError as error:
                    failed.append(str(error))
                    continue
                context.add_asset_metadata(
                    {
                        "dagster/row_count": report.files,
                        "new": report.new,
                        "changed": report.changed,
                        "removed": report.removed,
                        "unreadable": report.unreadable,
                        "megabytes_hashed": round(report.bytes_hashed / 1e6, 1),
                        "table": dg.MetadataValue.path(str(library.store.manifest(source))),
                    },
                    partition_key=source,
                )
        if failed:
            raise failure(SourceError("\n".join(failed)))

    @dg.asset(
        deps=[file_manifest],
        partitions_def=by_source,
        group_name="retrieval",
        kinds={"parquet", "huggingface"},
        pool="gpu",
        backfill_policy=dg.BackfillPolicy.single_run(),
    )
    def image_embeddings(context: dg.AssetExecutionContext, library: Library) -> None:
        """An embedding of each image of a source that the model of the settings had not seen."""
        settings = library.settings
        description = describe_encoder(settings)
        load = functools.cache(functools.partial(load_settings_encoder, settings))
        with library.store.locked(wait=True):
            for source in context.partition_keys:
                report = update_embeddings(
                    library.store,
                    settings.source(source),
                    description,
                    load,
                    limits=Limits.of(settings.images),
                    progress=LogProgress(context.log),
                )
                context.add_asset_metadata(
                    {
                        "dagster/row_count": report.known + report.embedded,
                        "embedded": report.embedded,
                        "duplicates": report.duplicates,
                        "quarantined": report.quarantined,
                        "left_for_next_run": report.left,
                        "images_per_second": round(report.images_per_second, 1),
                        "model": description.space.model,
                        "pictures": source_sheet(library.store, settings, source),
                    },
                    partition_key=source,
                )

    @dg.asset(deps=[image_embeddings], group_name="retrieval", kinds={"arrow"})
    def retrieval_index(
        context: dg.AssetExecutionContext, library: Library
    ) -> dg.MaterializeResult[Any]:
        """The current build: Annoy's trees and the items they point to, over all sources."""
        settings = library.settings
        space = describe_encoder(settings).space
        with library.store.locked(wait=True):
            report = build_index(
                library.store,
                space,
                settings.source_names,
                recall=settings.index.recall,
                encode_texts=lambda texts: load_settings_encoder(settings).encode_texts(texts),
                progress=LogProgress(context.log),
            )
        info = report.info
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": info.items,
                "files": info.locations,
                "build": report.build.name,
                "published": report.published,
                "model": info.model,
                "dimensions": info.dim,
                "recall_at_10": info.recall_at_10,
                "plan": str(info.calibration.plan),
                "megabytes": round(sum(file.size for file in info.files.values()) / 1e6, 1),
                "directory": dg.MetadataValue.path(str(report.build)),
                "files_by_source": dg.MetadataValue.json(info.sources),
            },
            data_version=dg.DataVersion(info.inputs),
        )

    @dg.asset(deps=[retrieval_index], group_name="retrieval", kinds={"plotly", "scikitlearn"})
    def latent_map(
        context: dg.AssetExecutionContext, library: Library
    ) -> dg.MaterializeResult[Any]:
        """The current build as a map: its principal components, clusters, picture and page."""
        settings = library.settings
        with library.store.locked(wait=True):
            build = library.store.current_build()
            if build is None:
                raise failure(BuildError("nothing is indexed yet: materialise retrieval_index"))
            report = update_map(settings, build, progress=LogProgress(context.log))
        version = dg.DataVersion(build.name)
        if report.info is None:
            return dg.MaterializeResult(metadata={"no_map": report.problem}, data_version=version)
        info = report.info
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": info.items,
                "build": info.build,
                "explained_variance": round(sum(info.explained[:2]), 4),
                "explained_by_axis": list(info.explained),
                "drift": dg.MetadataValue.null() if info.drift is None else info.drift,
                "clusters": dg.MetadataValue.table(
                    [
                        dg.TableRecord({"cluster": cluster.name, "images": cluster.images})
                        for cluster in info.clusters
                    ]
                ),
                "picture": map_preview(report.directory / "map.png"),
                "page": dg.MetadataValue.url((report.directory / "map.html").as_uri()),
                "directory": dg.MetadataValue.path(str(report.directory)),
            },
            data_version=version,
        )

    return [file_manifest, image_embeddings, retrieval_index, latent_map]
