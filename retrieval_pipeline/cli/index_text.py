"""What `retrieval index`, `watch` and `map` did, as lines of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval_pipeline.cli.output import plural
from retrieval_pipeline.cli.wording import counts_text, not_looked_at

if TYPE_CHECKING:
    from pathlib import Path

    from retrieval_pipeline.config.settings import Settings
    from retrieval_pipeline.index.milvus.schema import PublishedInfo
    from retrieval_pipeline.latent_map.coordinates import MapInfo
    from retrieval_pipeline.pipeline.publish import MapReport
    from retrieval_pipeline.pipeline.run import IndexReport
    from retrieval_pipeline.pipeline.watch import BatchReport

# Seconds of embedding above which the report says which step limited the speed.
WORTH_A_HINT = 20.0


def index_report(report: IndexReport) -> list[str]:
    """Return a few lines that say what a run of `retrieval index` did, but for the map."""
    lines = []
    embeddings = {each.source: each for each in report.embeddings}
    for manifest in report.manifests:
        changes = counts_text(
            (manifest.new, "new"),
            (manifest.changed, "changed"),
            (manifest.removed, "removed"),
            (manifest.unreadable, "unreadable"),
        )
        files = plural(manifest.files, "image file")
        line = f"{manifest.source}: {files} ({changes or 'nothing new'})"
        if embedded := embeddings.get(manifest.source):
            rate = f"embedded ({embedded.images_per_second:.1f} images/s)"
            done = counts_text(
                (embedded.embedded, rate),
                (embedded.quarantined, "in quarantine"),
                (embedded.left, "left for the next run"),
            )
            if done:
                line += f"; {done}"
            if embedded.views:
                line += f"; {plural(embedded.views, 'part')} of pictures embedded"
            if embedded.companions:
                line += f"; {embedded.companions:,} shown with another file"
        if not manifest.files:
            line += ". No file there has one of the extensions of the settings"
        lines += [line, *not_looked_at(manifest.not_looked_at)]
        if embedded and embedded.timings and embedded.seconds > WORTH_A_HINT:
            lines.append(f"  {embedded.timings.hint}")
    if report.labels is not None and report.labels.changed:
        counts = report.labels.labels.counts
        lines.append(f"labels: {counts_text(*((count, word) for word, count in counts.items()))}")
    build = report.build
    what = "published" if build.published else "stays:" if build.kept else "is up to date:"
    lines.append(
        f"index {build.build.name} {what} {plural(build.info.items, 'image')} "
        f"({plural(build.info.locations, 'file')}), model {build.info.model}"
    )
    if build.kept:
        lines.append(f"note: {build.kept}")
    return lines


def index_details(settings: Settings, file: Path | None, report: IndexReport) -> list[str]:
    """Return the lines that `retrieval index -v` says beside its report.

    Args:
        settings: Those of the run.
        file: Where they come from; None if there is no file.
        report: What the run did.

    Raises:
        StoreError: What is known of the number format is damaged.
    """
    from retrieval_pipeline.encoders.from_settings import precision_line
    from retrieval_pipeline.index.milvus.schema import PublishedInfo

    info = report.build.info
    lines = [
        f"settings {file}; home {settings.home}",
        f"format {precision_line(settings)}",
    ]
    for embedded in report.embeddings:
        if embedded.timings is not None:
            took = ", ".join(f"{name} {each} s" for name, each in embedded.timings.seconds.items())
            lines.append(f"{embedded.source}: {took}; {embedded.timings.hint}")
    if isinstance(info, PublishedInfo):
        return [*lines, f"index: {engine_line(settings, info)}"]
    lines.append(
        f"index: {info.calibration.plan}, recall at 10 {info.recall_at_10:.3f}; "
        f"{plural(len(info.segments), 'segment')}, written in {info.build_seconds:.1f} s"
    )
    return lines


def engine_line(settings: Settings, info: PublishedInfo) -> str:
    """Say which engine holds the index, how, and what the last publication sent."""
    rows = plural(info.items + info.views, "row")
    return (
        f"{settings.index.engine} at {settings.index.uri}: {rows} in "
        f"{plural(info.shards, 'shard')}, {info.index_type}, recall at 10 "
        f"{info.recall_at_10:.3f}; {info.sent:,} sent, {info.deleted:,} deleted in "
        f"{info.seconds:.1f} s"
    )


def batch_text(batch: BatchReport, *, watching: int | None) -> str:
    """Return the line that says what a batch of `retrieval watch` did.

    Args:
        batch: What it did.
        watching: Number of sources that are followed from now on; None after the first batch.
    """
    changes = counts_text(
        (batch.new, f"new picture{'' if batch.new == 1 else 's'}"),
        (batch.changed, "changed"),
        (batch.removed, "removed"),
        (batch.failed, "could not be used"),
    )
    line = changes or "nothing new"
    if batch.seconds is not None:
        line += f", findable after {batch.seconds:.1f} s"
    if watching is not None:
        images = plural(batch.items, "image")
        line += f"; {images} in the index. Watching {plural(watching, 'source')}"
    return line


def map_report(drawn: MapReport) -> str:
    """Return the line that says where the map of an index is, or why there is none."""
    if drawn.info is None:
        return f"no map: {drawn.problem}"
    return f"map {drawn.directory / 'map.html'}"


def map_text(info: MapInfo) -> list[str]:
    """Return the facts about a map: its images, the variance on each axis, and its clusters."""
    shares = ", ".join(f"{share:.1%}" for share in info.explained)
    lines = [
        f"{plural(info.items, 'image')}, model {info.model}",
        f"variance explained by x, y, z: {shares}",
    ]
    if info.drift:
        lines.append(f"moved since the map before: {info.drift:.1%} of its size")
    width = max(len(cluster.name) for cluster in info.clusters)
    lines += [f"  {cluster.name:<{width}}  {cluster.images:>9,}" for cluster in info.clusters]
    return lines
