"""The state of a home as lines of text: sources, failed files, builds, what was freed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from retrieval_pipeline.cli.output import plural
from retrieval_pipeline.cli.wording import (
    KINDS,
    ago_text,
    counts_text,
    not_looked_at,
    shown_path,
    size_text,
)
from retrieval_pipeline.facts.summary import FactsSummary
from retrieval_pipeline.storage.remote import Remote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from retrieval_pipeline.index.build_info import BuildInfo
    from retrieval_pipeline.maintenance.failed_files import FailedFile
    from retrieval_pipeline.maintenance.gc import Freed
    from retrieval_pipeline.maintenance.status import LibraryStatus, SourceStatus
    from retrieval_pipeline.pipeline.engine import Publication


def failed_text(failed: Sequence[FailedFile], *, terminal: bool) -> list[str]:
    """List the files that could not be indexed, by source, each with its reason."""
    lines = []
    for number, each in enumerate(failed):
        if number == 0 or each.source != failed[number - 1].source:
            lines.append(each.source)
        reason = each.reason.replace("_", " ")
        detail = f"  ({each.detail})" if each.detail else ""
        lines.append(f"  {reason}: {shown_path(str(each.path), terminal)}{detail}")
    return lines or ["no file has failed"]


def builds_text(
    builds: Mapping[Path, BuildInfo | str], current: Path | None, held: bool
) -> list[str]:
    """List builds, each with its facts or why it cannot be used; a star marks the current one."""
    lines = []
    for build, info in builds.items():
        if isinstance(info, str):
            about = f"cannot be used: {info}"
        else:
            images = plural(info.items, "image")
            about = f"{images}, model {info.model}, {ago_text(info.created_at)}"
        mark = "*" if build == current else " "
        lines.append(f"{mark} {build.name}  {about}{', held' if held and build == current else ''}")
    return lines


def publications_text(found: Sequence[Publication], held: bool) -> list[str]:
    """List what was published to an engine; a star marks what answers."""
    lines = []
    for each in found:
        info = each.info
        about = (
            f"{plural(info.items, 'image')}, model {info.model}, {ago_text(info.created_at)}, "
            f"{each.collection}"
        )
        hold = ", held" if held and each.answers else ""
        lines.append(f"{'*' if each.answers else ' '} {info.build}  {about}{hold}")
    return lines


def status_text(status: LibraryStatus) -> list[str]:
    """Return the model, the index, and the state of each source."""
    from retrieval_pipeline.maintenance.status import search_line

    model = status.model + (f" (languages: {status.languages})" if status.languages else "")
    lines = [f"home   {status.home}", f"model  {model}", f"format {status.precision}"]
    if status.index is not None and status.build is not None:
        lines.append(
            f"index  {status.build.name}: {plural(status.index.items, 'image')}, "
            f"{plural(status.index.locations, 'file')}, {ago_text(status.index.created_at)}, "
            f"model {status.index.model}"
        )
        lines.append(f"search {search_line(status.index)}")
    if status.problem:
        lines.append(f"note   {status.problem}")
    for source in status.sources:
        lines += ["", *_source_lines(source, isinstance(status.home, Remote))]
    if status.facts.files:
        lines += ["", *_facts_lines(status.facts)]
        lines += [
            f"  {what}: {counts_text(*((count, name) for name, count in named.items()))}"
            for what, named in (
                ("cameras", status.facts.frequent_cameras),
                ("countries", status.countries),
                ("towns", status.towns),
            )
            if named
        ]
    for what, counted in (("labels", status.labels), ("albums", status.albums)):
        if counted:
            counts = ", ".join(f"{count:,} {name}" for name, count in counted.items())
            lines += ["", f"{what}  {counts}"]
    return lines


def gc_text(freed: Sequence[Freed], home: Path, *, dry_run: bool) -> list[str]:
    """List what was removed (or would be): its size, its path under `home`, and the reason."""
    lines = [
        f"{size_text(each.bytes):>9}  {each.path.relative_to(home)}  ({each.why})" for each in freed
    ]
    if not freed:
        return ["there is nothing to give back"]
    total = size_text(sum(each.bytes for each in freed))
    what = "to give back; this was a dry run, nothing was removed" if dry_run else "given back"
    return [*lines, f"{total:>9}  {what}"]


def _source_lines(source: SourceStatus, remote: bool) -> list[str]:
    where = f"{source.name}  {source.path}"
    if not source.reachable:
        where += "  (not reachable now)"
    if source.crawled_at is None:
        missing = (
            "no tables on this machine: ask one that indexes" if remote else "not looked at yet"
        )
        return [where, f"  {missing}"]
    lines = [
        where,
        f"  {plural(source.files, 'file')}, {plural(source.images, 'image')}, "
        f"{source.bytes / 1e6:,.1f} MB; looked at {ago_text(source.crawled_at)}",
        f"  {source.embedded:,} embedded, {max(source.pending, 0):,} to do",
    ]
    if source.companions:
        kinds = (plural(count, KINDS[kind]) for kind, count in source.companions.items())
        lines.append(f"  shown with another file: {', '.join(kinds)}")
    if source.views:
        parts = plural(source.views, "vector")
        lines.append(f"  {parts} of parts of pictures")
    if source.damaged:
        lines.append(f"  {source.damaged:,} of them damaged: the end of the picture is missing")
    if source.quarantined:
        reasons = ", ".join(
            f"{count} {reason.replace('_', ' ')}" for reason, count in source.quarantined.items()
        )
        lines.append(f"  in quarantine: {reasons}")
    if source.unreadable:
        lines.append(f"  {plural(source.unreadable, 'path')} could not be read")
    return [*lines, *not_looked_at(source.not_looked_at)]


def _facts_lines(facts: FactsSummary) -> list[str]:
    """Say when the pictures were taken, how that is known, and with what."""
    span = ""
    if facts.first_taken is not None and facts.last_taken is not None:
        span = f"taken {facts.first_taken:%Y-%m-%d} to {facts.last_taken:%Y-%m-%d}, "
    origins = counts_text(
        *((count, origin.replace("_", " ")) for origin, count in facts.origins.items()),
        (facts.undated, "without"),
    )
    lines = [
        f"facts  {plural(facts.files, 'file')}: {span}{plural(facts.cameras, 'camera')}, "
        f"{facts.positions:,} with a position"
        + (f", {plural(facts.motion_photos, 'motion photo')}" if facts.motion_photos else ""),
        f"  dates from: {origins}",
    ]
    if facts.problems:
        reasons = (f"{reason} ({count:,})" for reason, count in facts.problems.items())
        lines.append(f"  refused: {'; '.join(reasons)}")
    return lines
