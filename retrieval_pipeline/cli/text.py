"""Answers, reports and states as lines of text for a terminal."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from retrieval_pipeline.cli.output import plural
from retrieval_pipeline.config.extensions import RAW
from retrieval_pipeline.facts.model import Origin
from retrieval_pipeline.facts.summary import FactsSummary
from retrieval_pipeline.images.extras import FORMATS_EXTRA, can_read_raw
from retrieval_pipeline.paths import shell_quoted, to_path
from retrieval_pipeline.storage.remote import Remote

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from retrieval_pipeline.config.settings import Settings
    from retrieval_pipeline.index.build_info import BuildInfo
    from retrieval_pipeline.index.milvus.schema import PublishedInfo
    from retrieval_pipeline.latent_map.coordinates import MapInfo
    from retrieval_pipeline.maintenance.failed_files import FailedFile
    from retrieval_pipeline.maintenance.gc import Freed
    from retrieval_pipeline.maintenance.status import LibraryStatus, SourceStatus
    from retrieval_pipeline.pipeline.engine import Publication
    from retrieval_pipeline.pipeline.publish import MapReport
    from retrieval_pipeline.pipeline.run import IndexReport
    from retrieval_pipeline.pipeline.watch import BatchReport
    from retrieval_pipeline.search.duplicate_plan import DuplicatePlan
    from retrieval_pipeline.search.near_duplicates import DuplicateGroup
    from retrieval_pipeline.search.results import Answer, Hit
    from retrieval_pipeline.search.saved_queries import SavedAnswer

# What people call the kinds of companions.
KINDS = {
    "raw": "RAW file",
    "original": "original",
    "edit": "older edit",
    "video": "video",
    "sidecar": "sidecar",
}

# Extensions of files that are not looked at which are named; the others are counted together.
MOST_EXTENSIONS = 6

# Seconds of embedding above which the report says which step limited the speed.
WORTH_A_HINT = 20.0


@dataclass(frozen=True)
class AnswerLine:
    """A line of an answer in its parts, which a terminal shows differently.

    Attributes:
        before: What stands before the path; the whole line if it has none.
        path: As it is shown.
        after: What stands after it.
        hit: Whose line it is; None for a heading or a verdict.
        link: The file, if it is on this machine.
    """

    before: str
    path: str = ""
    after: str = ""
    hit: Hit | None = None
    link: Path | None = None

    def __str__(self) -> str:
        return self.before + self.path + self.after


def answer_text(answer: Answer, *, heading: bool) -> list[str]:
    """Return the lines of `answer_lines` as text for a pipe."""
    return [str(line) for line in answer_lines(answer, heading=heading, terminal=False)]


def answer_lines(answer: Answer, *, heading: bool, terminal: bool) -> list[AnswerLine]:
    """Return a line for each hit, and below it its other copies.

    A line has the rank, score, relevance, the day the picture was taken, its path, and place and
    camera; what no hit knows is left out. A day with "?" is only that of the file's time. Where a
    part of the picture matched, the line names the part as `--crop` takes it. For a terminal, paths
    are quoted so that they can be pasted into a shell.
    """
    lines = [AnswerLine(str(answer.query))] if heading else []
    scored, dated = _has_scores(answer), _has_dates(answer)
    # Below the names that a terminal shows.
    width = len("relevance") if terminal else 4
    for rank, hit in enumerate(answer.hits, answer.offset + 1):
        before = f"{rank:>4}"
        if scored:
            before += f"  {hit.score or 0:6.3f}  {hit.relevance or 0:{width}.0%}"
        if dated:
            unsure = "?" if hit.facts.taken_from == Origin.FILE_TIME else " "
            before += f"  {hit.facts.day:>10}{unsure}"
        about = hit.facts.about
        after = f"  [{about}]" if about else ""
        after += f"  (its part {hit.region})" if hit.region else ""
        after += f"  (and {plural(hit.alike, 'picture')} like it)" if hit.alike else ""
        link = None if isinstance(hit.path, Remote) else hit.path
        path = _shown(str(hit.path), terminal)
        lines.append(AnswerLine(f"{before}  ", path, after, hit, link))
        others = [(f"also in {place.source}: ", place.path) for place in hit.other_locations]
        others += [(f"{KINDS[each.kind]} ", each.file.location.path) for each in hit.companions]
        lines += [
            AnswerLine(f"{'':>12}{what}", _shown(to_path(path), terminal), hit=hit)
            for what, path in others
        ]
    if not answer.hits:
        lines.append(AnswerLine(answer.verdict))
    return lines


def column_names(answer: Answer) -> str:
    """Return the names of the columns of `answer_lines` on a terminal, each above its column."""
    scores = "   score  relevance" if _has_scores(answer) else ""
    taken = f"  {'taken':<11}" if _has_dates(answer) else ""
    return f"   #{scores}{taken}  file"


def _has_scores(answer: Answer) -> bool:
    return any(hit.score is not None for hit in answer.hits)


def _has_dates(answer: Answer) -> bool:
    """Tell whether a hit has a date of its own: the files' times would be a column of noise."""
    return any(hit.facts.day and hit.facts.taken_from != Origin.FILE_TIME for hit in answer.hits)


def _shown(path: str, terminal: bool) -> str:
    """Return a path for people to read, and, on a terminal, for shells."""
    return shell_quoted(path) if terminal or not path.isprintable() else path


def failed_text(failed: Sequence[FailedFile], *, terminal: bool) -> list[str]:
    """List the files that could not be indexed, by source, each with its reason."""
    lines = []
    for number, each in enumerate(failed):
        if number == 0 or each.source != failed[number - 1].source:
            lines.append(each.source)
        reason = each.reason.replace("_", " ")
        detail = f"  ({each.detail})" if each.detail else ""
        lines.append(f"  {reason}: {_shown(str(each.path), terminal)}{detail}")
    return lines or ["no file has failed"]


def understood_text(answer: Answer) -> list[str]:
    """Say which words were read as facts and how to prevent it, and what else should be known."""
    lines = [f"note: {note}" for note in answer.notes]
    if answer.understood:
        meanings = ", ".join(each.meaning for each in answer.understood)
        lines.append(f"understood: {meanings} (--literal takes the words as they are)")
    return lines


def answer_explanation(answer: Answer) -> str:
    """Say which search plan found the hits, and how long each step took in milliseconds."""
    steps = ", ".join(f"{step} {taken:.1f} ms" for step, taken in answer.timings_ms.items())
    return f"{answer.plan}; {steps}; model {answer.model}, index {answer.build}"


def saved_text(found: SavedAnswer, *, only_new: bool) -> list[str]:
    """Name a saved query, count its hits and the new ones, and list the new hits or all of them."""
    answer = found.new if only_new else found.answer
    hits = plural(len(found.answer.hits), "hit")
    heading = f"{found.name}: {hits}, {len(found.new.hits):,} new"
    return [heading, *answer_text(answer, heading=False)]


def duplicates_text(groups: Sequence[DuplicateGroup], *, terminal: bool) -> list[str]:
    """List each group: a picture, then the files with the same bytes or the same looks."""
    lines = []
    for group in groups:
        for number, picture in enumerate(group.pictures):
            kind = f"{picture.cosine:.3f}" if number else ""
            for copy, path in enumerate(picture.paths):
                what = "same file" if copy else kind
                lines.append(f"{what:>10}  {_shown(str(path), terminal)}")
        lines.append("")
    files = sum(len(picture.paths) for group in groups for picture in group.pictures)
    lines.append(
        f"{plural(len(groups), 'group')}, {plural(files - len(groups), 'file')} more than needed"
        if groups
        else "no picture is there twice"
    )
    return lines


def plan_text(plan: DuplicatePlan, *, terminal: bool) -> list[str]:
    """List what stays of each group, what can go, and what is left for a reason."""
    lines = []
    for group in plan.groups:
        lines.append(f"{'keep':>10}  {_shown(str(group.keep.path), terminal)}")
        for file in group.remove:
            same = file.content_id == group.keep.content_id
            what = "same bytes" if same else "looks the same"
            path = _shown(str(file.path), terminal)
            lines.append(f"{plan.action:>10}  {path}  ({what}, {_size(file.size)})")
        lines += [
            f"{'leave':>10}  {_shown(str(path), terminal)}  ({why})" for path, why in group.left
        ]
        lines.append("")
    total = f"{plural(plan.files, 'file')} can go, {_size(plan.bytes)}"
    return [*lines, f"{total}; nothing was changed" if plan.files else "no file can go"]


def index_report(report: IndexReport) -> list[str]:
    """Return a few lines that say what a run of `retrieval index` did, but for the map."""
    lines = []
    embeddings = {each.source: each for each in report.embeddings}
    for manifest in report.manifests:
        changes = _counts(
            (manifest.new, "new"),
            (manifest.changed, "changed"),
            (manifest.removed, "removed"),
            (manifest.unreadable, "unreadable"),
        )
        files = plural(manifest.files, "image file")
        line = f"{manifest.source}: {files} ({changes or 'nothing new'})"
        if embedded := embeddings.get(manifest.source):
            rate = f"embedded ({embedded.images_per_second:.1f} images/s)"
            done = _counts(
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
        lines += [line, *_not_looked_at(manifest.not_looked_at)]
        if embedded and embedded.timings and embedded.seconds > WORTH_A_HINT:
            lines.append(f"  {embedded.timings.hint}")
    if report.labels is not None and report.labels.changed:
        counts = report.labels.labels.counts
        lines.append(f"labels: {_counts(*((count, word) for word, count in counts.items()))}")
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
    changes = _counts(
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
            about = f"{images}, model {info.model}, {_ago(info.created_at)}"
        mark = "*" if build == current else " "
        lines.append(f"{mark} {build.name}  {about}{', held' if held and build == current else ''}")
    return lines


def publications_text(found: Sequence[Publication], held: bool) -> list[str]:
    """List what was published to an engine; a star marks what answers."""
    lines = []
    for each in found:
        info = each.info
        about = (
            f"{plural(info.items, 'image')}, model {info.model}, {_ago(info.created_at)}, "
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
            f"{plural(status.index.locations, 'file')}, {_ago(status.index.created_at)}, "
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
            f"  {what}: {_counts(*((count, name) for name, count in named.items()))}"
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
        f"{_size(each.bytes):>9}  {each.path.relative_to(home)}  ({each.why})" for each in freed
    ]
    if not freed:
        return ["there is nothing to give back"]
    total = _size(sum(each.bytes for each in freed))
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
        f"{source.bytes / 1e6:,.1f} MB; looked at {_ago(source.crawled_at)}",
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
    return [*lines, *_not_looked_at(source.not_looked_at)]


def _facts_lines(facts: FactsSummary) -> list[str]:
    """Say when the pictures were taken, how that is known, and with what."""
    span = ""
    if facts.first_taken is not None and facts.last_taken is not None:
        span = f"taken {facts.first_taken:%Y-%m-%d} to {facts.last_taken:%Y-%m-%d}, "
    origins = _counts(
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


def _not_looked_at(counts: Mapping[str, int]) -> list[str]:
    """Return a line that counts the files that were not looked at, by extension, if there are any.

    The most frequent extensions are named, and those of RAW files that an extra would read.
    """
    if not counts:
        return []
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    lacking = frozenset() if can_read_raw() else frozenset(RAW)
    named = [
        (
            f'{extension} (pip install "{FORMATS_EXTRA}")' if extension in lacking else extension,
            count,
        )
        for rank, (extension, count) in enumerate(ranked)
        if extension and (rank < MOST_EXTENSIONS or extension in lacking)
    ]
    bare = counts.get("", 0)
    others = sum(counts.values()) - bare - sum(count for _, count in named)
    parts = _counts(
        *((count, what) for what, count in named), (others, "others"), (bare, "without extension")
    )
    return [f"  {plural(sum(counts.values()), 'file')} not looked at: {parts}"]


def _size(count: int) -> str:
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"


def _counts(*pairs: tuple[int, str]) -> str:
    return ", ".join(f"{count:,} {what}" for count, what in pairs if count)


def _ago(moment: datetime) -> str:
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for size, noun in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return f"{plural(int(seconds // size), noun)} ago"
    return "just now"
