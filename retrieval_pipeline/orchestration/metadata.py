"""What each run of the flow tells people of what it made, and what Dagster plots over time."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.index.builder import BuildReport
from retrieval_pipeline.index.milvus.publication import PublicationReport
from retrieval_pipeline.index.milvus.schema import PublishedInfo
from retrieval_pipeline.ingest.bottleneck import MachineWork, Timings
from retrieval_pipeline.ingest.crawl import ManifestReport
from retrieval_pipeline.ingest.embed import EmbedReport
from retrieval_pipeline.orchestration.columns import (
    EMBEDDING_ORIGINS,
    ITEM_ORIGINS,
    MAP_ORIGINS,
    lineage,
)
from retrieval_pipeline.orchestration.flow import Flow
from retrieval_pipeline.orchestration.previews import (
    failed_sheet,
    failed_table,
    map_preview,
    quarantine_table,
    source_sheet,
    unreadable_table,
)
from retrieval_pipeline.pipeline.engine import engine_facts
from retrieval_pipeline.pipeline.publish import MapReport
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace


def manifest_metadata(store: Store, report: ManifestReport) -> dict[str, Any]:
    """Tell what a crawl found."""
    metadata = {
        "summary": f"{report.files:,} pictures: "
        + _counts(
            new=report.new,
            changed=report.changed,
            removed=report.removed,
            unreadable=report.unreadable + report.too_large,
        ),
        "dagster/partition_row_count": report.files,
        "new": report.new,
        "changed": report.changed,
        "removed": report.removed,
        "unreadable": report.unreadable,
        "too_large": report.too_large,
        "megabytes_hashed": round(report.bytes_hashed / 1e6, 1),
        "not_looked_at": sum(report.not_looked_at.values()),
        "not_looked_at_by_extension": dg.MetadataValue.json(
            {extension or "none": count for extension, count in report.not_looked_at.items()}
        ),
        "table": dg.MetadataValue.path(str(store.manifest(report.source))),
    }
    if report.unreadable or report.too_large:
        metadata["unreadable_files"] = unreadable_table(store, report.source)
    return metadata


def embedding_metadata(
    flow: Flow,
    store: Store,
    settings: Settings,
    space: VectorSpace,
    report: EmbedReport,
    *,
    pictures: bool = True,
) -> dict[str, Any]:
    """Tell what became of the images of a source, with some of them to look at.

    Args:
        flow: Names the assets that the columns come from.
        store: Holds the tables.
        settings: Where the pictures are.
        space: The vector space of the embeddings.
        report: What a run did.
        pictures: False leaves out the contact sheets, for a run over many sources.
    """
    rows = report.known + report.embedded
    metadata = {
        "summary": f"{rows:,} pictures can be found: "
        + _counts(new=report.embedded, failed=report.quarantined)
        + (f", {report.images_per_second:.1f} images a second" if report.embedded else ""),
        "dagster/partition_row_count": rows,
        **lineage(flow, EMBEDDING_ORIGINS),
        "embedded": report.embedded,
        "views_embedded": report.views,
        "duplicates": report.duplicates,
        "companions": report.companions,
        "quarantined": report.quarantined,
        "left_for_next_run": report.left,
        "images_per_second": round(report.images_per_second, 1),
        "model": space.model,
        **_timings_metadata(report.timings),
        **_machines_metadata(report.machines),
        "table": dg.MetadataValue.path(str(store.embeddings(space, report.source))),
    }
    if pictures:
        metadata["pictures"] = source_sheet(store, settings, report.source)
    if report.quarantined:
        metadata["quarantine"] = quarantine_table(store, space, report.source)
        metadata["failed_pictures"] = failed_table(store, space, report.source)
        if pictures:
            metadata["failed_thumbnails"] = failed_sheet(store, settings, space, report.source)
    return metadata


def _counts(**counts: int) -> str:
    """Say the counts that are not 0, such as "3 new, 1 removed"."""
    told = ", ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    return told or "nothing new"


def _timings_metadata(timings: Timings | None) -> dict[str, Any]:
    """Say what bounded the speed of embedding, if anything was embedded."""
    if timings is None:
        return {}
    return {
        "speed": timings.hint,
        "decode_workers_busy": round(timings.busy(timings.decode), 3),
        "encoder_busy": round(timings.busy(timings.encode), 3),
        "timings": dg.MetadataValue.json(timings.seconds),
    }


def _machines_metadata(machines: Mapping[str, MachineWork]) -> dict[str, Any]:
    """Say what each machine of a cluster did, if there was one."""
    if not machines:
        return {}
    return {
        "machines": dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {
                        "machine": name,
                        "decoded": work.decoded,
                        "decode_seconds": round(work.decode_seconds, 1),
                        "encoded": work.encoded,
                        "encode_seconds": round(work.encode_seconds, 1),
                    }
                )
                for name, work in machines.items()
            ]
        ),
        "decode_seconds_of_all_machines": round(
            sum(work.decode_seconds for work in machines.values()), 1
        ),
        "encode_seconds_of_all_machines": round(
            sum(work.encode_seconds for work in machines.values()), 1
        ),
    }


def build_metadata(
    flow: Flow, settings: Settings, report: BuildReport | PublicationReport
) -> dict[str, Any]:
    """Tell what the current build is, and why it stayed the current one if it did."""
    info = report.info
    metadata = {
        "summary": f"{info.items:,} pictures in {info.locations:,} files, recall "
        f"{info.recall_at_10:.3f}, of {info.created_at:%Y-%m-%d %H:%M} UTC"
        + ("" if report.published else ": as before"),
        "dagster/row_count": info.items,
        **lineage(flow, ITEM_ORIGINS),
        "files": info.locations,
        "build": report.build.name,
        "published": report.published,
        "model": info.model,
        "dimensions": info.dim,
        "recall_at_10": info.recall_at_10,
        "files_by_source": dg.MetadataValue.json(info.sources),
    }
    if isinstance(info, PublishedInfo):
        metadata |= engine_facts(settings, info)
        metadata["build_seconds"] = info.seconds
    else:
        metadata |= {
            "engine": "embedded",
            "plan": str(info.calibration.plan),
            "build_seconds": info.build_seconds,
            "segments": len(info.segments),
            "blocks": len(info.blocks),
            "views": info.views,
            "megabytes": round(info.bytes / 1e6, 1),
            "directory": dg.MetadataValue.path(str(report.build)),
        }
    if report.kept:
        metadata["kept"] = report.kept
    return metadata


def map_metadata(flow: Flow, report: MapReport) -> dict[str, Any]:
    """Tell what a map shows, with its picture, or why there is none."""
    info = report.info
    if info is None:
        return {"summary": "no map", "no_map": report.problem}
    moved = "" if info.drift is None else f", moved by {info.drift:.1%} of its size"
    return {
        "summary": f"{info.items:,} pictures in {len(info.clusters)} clusters{moved}",
        "dagster/row_count": info.items,
        **lineage(flow, MAP_ORIGINS),
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
        # A path to copy: browsers follow no link from a page to a file.
        "page": dg.MetadataValue.path(str(report.directory / "map.html")),
        "directory": dg.MetadataValue.path(str(report.directory)),
    }
