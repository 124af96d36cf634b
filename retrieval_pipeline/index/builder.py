"""The index builder: writes what is new of a build, has it checked and publishes it."""

import contextlib
import io
import json
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from retrieval_pipeline.errors import BuildError, UnreadableError
from retrieval_pipeline.index.ann import METRIC
from retrieval_pipeline.index.arrays import load_array
from retrieval_pipeline.index.arrow import one_chunk
from retrieval_pipeline.index.autotune import Calibration
from retrieval_pipeline.index.blocks import Block, BlockFile, ItemTables, write_blocks
from retrieval_pipeline.index.build import Build, current_or_none, vocabulary_file
from retrieval_pipeline.index.build_info import (
    BUILD_FORMAT,
    RUNS_FILE,
    BuildInfo,
    Check,
    SegmentEntry,
    read_info,
    vocabulary_digest,
    write_info,
)
from retrieval_pipeline.index.companions import companions_of_items
from retrieval_pipeline.index.facts_table import facts_of_items, has_facts
from retrieval_pipeline.index.hashed_files import FileFacts, check_files, remember_hashed
from retrieval_pipeline.index.items import (
    ITEM_COLUMNS,
    JoinedItems,
    join_some,
    read_vectors,
)
from retrieval_pipeline.index.knn import evenly_spaced
from retrieval_pipeline.index.matrices import Matrix
from retrieval_pipeline.index.quantization import WantCodes, require_codes
from retrieval_pipeline.index.retention import retire_builds
from retrieval_pipeline.index.row_keys import RowKeys, find, row_keys
from retrieval_pipeline.index.runs import RowMap, RowsOfBuild, Runs, to_runs
from retrieval_pipeline.index.score_statistics import SAMPLE_PICTURES, measure_background
from retrieval_pipeline.index.segment import (
    Precision,
    Segment,
    SegmentSettings,
    open_segment,
    write_segment,
)
from retrieval_pipeline.index.segmented_index import Part, SegmentedIndex
from retrieval_pipeline.index.tiers import largest_segment, to_merge
from retrieval_pipeline.index.views import JoinedViews, join_views
from retrieval_pipeline.index.vocabulary import words
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.atomic import new_directory, replacing
from retrieval_pipeline.storage.content_id import content_id
from retrieval_pipeline.storage.schemas import embedding_schema, views_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import EncodeTexts, Numbers, Vectors, VectorSpace, check_vectors
from retrieval_pipeline.views import Views

RECALL = 0.99  # The recall at 10 to reach where the settings name none.

# Checks a build, opened as readers open it, before it is published.
AcceptBuild = Callable[[Build], Sequence[Check]]


@dataclass(frozen=True)
class BuildSpec:
    """What a build is made from.

    Attributes:
        settings: What segments are made with.
        joined: The items.
        views: Their further views.
        keys: What identifies each row of vectors.
        blocks: The blocks, which are written.
        inputs: Hash of the items, of all that is told of them, and of every setting that matters.
        texts: Vectors of the vocabulary, float32 (n, dim); None if they are not known.
    """

    settings: SegmentSettings
    joined: JoinedItems
    views: JoinedViews
    keys: RowKeys
    blocks: tuple[Block, ...]
    inputs: str
    texts: Vectors | None

    @property
    def space(self) -> VectorSpace:
        """The vector space of the embeddings."""
        return self.settings.space


@dataclass(frozen=True)
class BuildReport:
    """The current build after an update.

    Attributes:
        build: Its directory.
        info: The contents of its build.json.
        published: Whether this update made it the current one.
        kept: Why it stayed the current one although newer images are waiting; "" if none are.
    """

    build: Path
    info: BuildInfo
    published: bool
    kept: str = ""


class RefusedBuildError(BuildError):
    """A new build did not pass its checks; the one before it goes on answering."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.checks = tuple(checks)
        failed = "; ".join(check.found for check in checks if not check.passed)
        super().__init__(
            f"the new index was not published, since {failed}. The index before it, if there is "
            "one, goes on answering"
        )


def build_index(
    store: Store,
    space: VectorSpace,
    sources: Sequence[str],
    *,
    views: Mapping[str, Views] | None = None,
    recall: float = RECALL,
    codes: WantCodes = "auto",
    precision: Precision = "float16",
    encode_texts: EncodeTexts | None = None,
    accept: AcceptBuild | None = None,
    accept_change: AcceptBuild | None = None,
    publish: bool = True,
    progress: Progress | None = None,
) -> BuildReport:
    """Write and publish a build of `sources`, unless a sound one has the same inputs.

    Only what is new is written: blocks and segments that earlier builds have serve this one, too.

    Args:
        store: Where tables and builds are.
        space: The vector space whose embeddings to index.
        sources: The names of the sources whose manifests to index.
        views: Which of the stored views of its pictures each source has; default "whole".
        recall: The recall at 10 that the plan must reach when it is measured.
        codes: Whether to write codes for faiss, and to try how fast they are; "auto": of large
            segments, where faiss is installed.
        precision: What vectors are stored as.
        encode_texts: Encodes the vocabulary if no build of this space has it yet. Without it the
            build has no vectors of words, and only queries like pictures calibrate it.
        accept: Checks a new build, opened as readers open it, before it is published.
        accept_change: Checks a build, new or not, before it takes over from the current one.
        publish: False leaves the current build the current one.
        progress: Told about stages and items.

    Raises:
        BuildError: There is nothing to index, or `codes` are wanted and faiss is not installed.
        RefusedBuildError: A check failed; nothing was published.
        StoreError: A table is damaged or the build cannot be written.
        VectorError: A stored vector is not of unit length.
    """
    progress = progress or Quiet()
    if codes is True:
        require_codes()
    joined = join_some(store, space, sources)
    further = join_views(store, space, joined, views or {})
    tables = ItemTables(
        joined.table.cast(ITEM_COLUMNS),
        facts_of_items(store, joined.table) if has_facts(store, joined.table) else None,
        companions_of_items(joined.table, joined.grouped),
        further.table,
    )
    keys = row_keys(tables.items["content_id"], further.table)
    previous = _previous(store, space)
    known = () if previous is None else previous[1].blocks
    blocks = write_blocks(store.blocks(space), tables, keys[: len(joined)], known)
    made_with = (BUILD_FORMAT, recall, codes, precision, vocabulary_digest(), space.key)
    names = [[file.name for file in block.tables.values()] for block in blocks]
    inputs = content_id(json.dumps([made_with, names]).encode())
    if (same := _same_build(store, space, inputs)) is not None:
        if not publish:
            return BuildReport(same, read_info(same), published=False)
        return _publish_existing(store, same, accept_change)
    texts = _vocabulary_vectors(store, space, encode_texts)
    vocabulary = None if texts is None else vocabulary_digest()
    settings = SegmentSettings(space, precision, recall, codes, vocabulary)
    spec = BuildSpec(settings, joined, further, keys, blocks, inputs, texts)
    segments = [] if previous is None else _open_segments(store, spec, previous[1])
    write = partial(_write, store, spec, accept=accept, accept_change=accept_change)
    try:
        build, info = write(segments, progress=progress)
    except RefusedBuildError:
        if not segments:
            raise
        # Segments of the build before may be to blame.
        build, info = write([], progress=progress, anew=True)
    if publish:
        store.publish(build)
    retire_builds(store)
    return BuildReport(build, info, published=publish)


def _previous(store: Store, space: VectorSpace) -> tuple[Path, BuildInfo] | None:
    """Return the build whose parts the next one may share: the current one, or the newest."""
    current = current_or_none(store)
    newest_first = reversed(store.builds(space))
    for build in sorted(newest_first, key=lambda build: build != current):
        with contextlib.suppress(BuildError, UnreadableError):
            info = read_info(build)
            if info.space == space and info.segments:
                return build, info
    return None


def _same_build(store: Store, space: VectorSpace, inputs: str) -> Path | None:
    """Return a sound build that was made from the same inputs; the current one if it is such."""
    current = current_or_none(store)
    newest_first = reversed(store.builds(space))
    for build in sorted(newest_first, key=lambda build: build != current):
        with contextlib.suppress(BuildError, UnreadableError):
            if read_info(build).inputs == inputs:
                Build.open(build)
                return build
    return None


def _publish_existing(store: Store, build: Path, accept_change: AcceptBuild | None) -> BuildReport:
    """Make an existing build the current one, unless it already is.

    Raises:
        RefusedBuildError: A check failed.
    """
    published = build != current_or_none(store)
    if published:
        if accept_change is not None:
            passed((*read_info(build).checks, *accept_change(Build.open(build))))
        store.publish(build)
    return BuildReport(build, read_info(build), published)


def _vocabulary_vectors(
    store: Store, space: VectorSpace, encode_texts: EncodeTexts | None
) -> Vectors | None:
    """Return the vectors of `vocabulary.words()`, from an earlier build of the space if possible.

    None if no build has them and there is no `encode_texts`.
    """
    for build in reversed(store.builds(space)):
        with contextlib.suppress(BuildError, UnreadableError):
            info = read_info(build)
            file = vocabulary_file(build, info)
            if file is not None and info.vocabulary == vocabulary_digest():
                facts = info.shared_files | info.files
                check_files(file.parent, {file.name: facts[file.name]})
                return load_array(file, np.float32, (None, space.dim))
    if encode_texts is None:
        return None
    return check_vectors(encode_texts(words()), space.dim, "vocabulary")


def _write_vocabulary(store: Store, spec: BuildSpec) -> BlockFile | None:
    """Write the vectors of the vocabulary beside the blocks, unless they are there."""
    if spec.texts is None:
        return None
    buffer = io.BytesIO()
    np.save(buffer, spec.texts)
    data = buffer.getvalue()
    facts = FileFacts(size=len(data), blake3=content_id(data))
    file = store.blocks(spec.space) / f"{facts.blake3}.npy"
    try:
        check_files(file.parent, {file.name: facts})
    except BuildError:
        with replacing(file) as temporary:
            temporary.write_bytes(data)
        remember_hashed(file.parent, {file.name: facts})
    return BlockFile(name=file.name, rows=len(spec.texts), facts=facts)


def _open_segments(store: Store, spec: BuildSpec, info: BuildInfo) -> list[Segment]:
    """Open the segments of an earlier build that this one may share.

    Vectors that are left out are read from the tables again.
    """
    found = []
    for entry in info.segments:
        with contextlib.suppress(BuildError, UnreadableError):
            segment = open_segment(store.segments(spec.space) / entry.name, spec.space.key)
            if segment.info.precision == spec.settings.precision and len(segment.keys):
                found.append(segment)
    return found


@dataclass(frozen=True)
class Placed:
    """Segments, and which rows of a build theirs are.

    Attributes:
        segments: The segments.
        rows: For each segment the rows of the build that its rows are; -1 for others.
    """

    segments: list[Segment]
    rows: list[RowsOfBuild]

    @cached_property
    def alive(self) -> list[int]:
        """How many rows of each segment are rows of the build."""
        return [int((rows >= 0).sum()) for rows in self.rows]


def _place(segments: Sequence[Segment], keys: RowKeys) -> Placed:
    """Find the rows of segments in a build; segments without any of its rows are left out.

    Of a row that several segments have, that of the first counts.
    """
    taken = np.zeros(len(keys), np.bool_)
    useful, rows = [], []
    for segment in segments:
        found = find(segment.keys, keys)
        found[(found >= 0) & taken[found]] = -1
        taken[found[found >= 0]] = True
        if found.max(initial=-1) >= 0:
            useful.append(segment)
            rows.append(found)
    return Placed(useful, rows)


def _write(
    store: Store,
    spec: BuildSpec,
    earlier: Sequence[Segment],
    *,
    accept: AcceptBuild | None,
    accept_change: AcceptBuild | None,
    progress: Progress,
    anew: bool = False,
) -> tuple[Path, BuildInfo]:
    """Write and check a build, which shares what it can of earlier segments."""
    started = time.monotonic()
    created_at = datetime.now(UTC)
    vocabulary = _write_vocabulary(store, spec)
    placed = _write_segments(store, spec, _place(earlier, spec.keys), progress, anew)
    before = {segment.name for segment in earlier}
    entries = tuple(
        SegmentEntry(
            name=segment.name,
            rows=len(segment),
            alive=alive,
            bytes=segment.info.bytes,
            is_new=segment.name not in before,
            recall_at_10=segment.info.calibration.recall_at_10,
        )
        for segment, alive in zip(placed.segments, placed.alive, strict=True)
    )
    # Names sort by age, even those of builds that were begun in the same second.
    build = store.new_build(spec.space, f"{created_at:%Y%m%dT%H%M%S.%f}Z-{spec.inputs[:8]}")
    with new_directory(build) as directory:
        runs = to_runs(placed.rows)
        np.save(directory / RUNS_FILE, runs)
        files = {RUNS_FILE: FileFacts.of(directory / RUNS_FILE)}
        sources = _count_sources(spec)
        numbers = evenly_spaced(len(spec.joined), SAMPLE_PICTURES)
        sample = _index_of(placed, runs, len(spec.keys)).vectors(numbers)
        info = BuildInfo(
            format=BUILD_FORMAT,
            created_at=created_at,
            inputs=spec.inputs,
            model=spec.space.model,
            revision=spec.space.revision,
            dim=spec.space.dim,
            preprocessing=spec.space.preprocessing,
            metric=METRIC,
            items=len(spec.joined),
            views=len(spec.views),
            locations=sum(sources.values()),
            sources=sources,
            segments=entries,
            blocks=spec.blocks,
            calibration=_of_all(placed),
            background=measure_background(sample, spec.texts),
            vocabulary=spec.settings.vocabulary,
            vocabulary_vectors=vocabulary,
            build_seconds=round(time.monotonic() - started, 3),
            files=files,
        )
        remember_hashed(directory, files)
        write_info(directory, info)
        checks: tuple[Check, ...] = ()
        if accept is not None:
            progress.start("checking the index", None, "")
            checks = passed(accept(Build.open(directory)))
            progress.finish()
        if accept_change is not None:
            checks = passed((*checks, *accept_change(Build.open(directory))))
        if checks:
            write_info(directory, info.model_copy(update={"checks": checks}))
    return build, read_info(build)


def _write_segments(
    store: Store, spec: BuildSpec, placed: Placed, progress: Progress, anew: bool
) -> Placed:
    """Write segments for the rows that are in none, and merge others with them."""
    largest = largest_segment(spec.space.dim * _dtype(spec.settings).itemsize)
    again = to_merge(
        [len(segment) for segment in placed.segments],
        placed.alive,
        len(spec.keys) - sum(placed.alive),
        largest,
    ) | {
        number
        for number, segment in enumerate(placed.segments)
        if segment.info.settings != spec.settings.digest(len(segment))
    }
    kept = [number for number, alive in enumerate(placed.alive) if alive and number not in again]
    source = RowSource(spec, placed)
    missing = np.ones(len(spec.keys), np.bool_)
    for number in kept:
        rows = placed.rows[number]
        missing[rows[rows >= 0]] = False
    segments = [placed.segments[number] for number in kept]
    rows_of = [placed.rows[number] for number in kept]
    for wanted in source.divided(np.flatnonzero(missing), largest):
        keys = spec.keys[wanted]
        path = store.segments(spec.space) / spec.settings.name(keys)
        read = partial(source.read, wanted, progress)
        write_segment(path, spec.settings, keys, read, spec.texts, progress, anew=anew)
        segments.append(open_segment(path, spec.space.key))
        rows_of.append(wanted.astype(np.int32))
    return Placed(segments, rows_of)


def _index_of(placed: Placed, runs: Runs, rows: int) -> SegmentedIndex:
    parts = [Part(each.vector_index, each.info.calibration.plan) for each in placed.segments]
    return SegmentedIndex(parts, RowMap(runs, tuple(map(len, placed.segments)), rows))


def _of_all(placed: Placed) -> Calibration:
    """Return the calibration of the largest segment, with the recall of all of them.

    That is their mean, weighted by their rows: so many of a query's nearest items lie in each.
    It is rounded down, to four digits.
    """
    largest = placed.segments[int(np.argmax(placed.alive))].info.calibration
    recalls = [segment.info.calibration.recall_at_10 for segment in placed.segments]
    recall = math.floor(1e4 * np.average(recalls, weights=placed.alive) + 1e-6) / 1e4
    return largest.model_copy(update={"recall_at_10": recall})


def _count_sources(spec: BuildSpec) -> dict[str, int]:
    """Return how many files of the items each source has."""
    locations = pc.list_flatten(one_chunk(spec.joined.table["locations"]))
    counts = pc.value_counts(locations.field("source")).to_pylist()
    return {entry["values"]: entry["counts"] for entry in counts}


@dataclass(frozen=True)
class RowSource:
    """Where the vectors of a build's rows are now.

    Attributes:
        spec: What the build is made from: its tables hold all vectors.
        placed: Segments that hold some of them.
    """

    spec: BuildSpec
    placed: Placed

    @cached_property
    def _places(self) -> Numbers:
        """For each row its place in the segments, one after the other; -1 for none."""
        places = np.full(len(self.spec.keys), -1, np.int64)
        start = 0
        for rows in self.placed.rows:
            here = np.flatnonzero(rows >= 0)
            places[rows[here]] = start + here
            start += len(rows)
        return places

    def divided(self, rows: Numbers, largest: int) -> Iterator[Numbers]:
        """Divide rows into segments, and yield the rows of each, ascending.

        Where one segment cannot hold them, each has such as are stored together, so that every
        table is read about once.
        """
        count = -(-len(rows) // largest)
        if count > 1:
            joined = self.spec.joined
            stored = np.concatenate([joined.rows, self.spec.views.rows])
            is_view = rows >= len(joined)
            order = np.lexsort((stored[rows], is_view, self._places[rows]))
            rows = rows[order]
        for some in np.array_split(rows, count) if count else ():
            yield np.sort(some)

    def read(self, rows: Numbers, progress: Progress) -> Matrix:
        """Return the vectors of rows, ascending, in the precision of the segments."""
        spec = self.spec
        progress.start("writing the index", len(rows), "images")
        vectors = np.empty((len(rows), spec.space.dim), _dtype(spec.settings))
        places, start = self._places[rows], 0
        for segment in self.placed.segments:
            here = np.flatnonzero((places >= start) & (places < start + len(segment)))
            (matrix,) = segment.vector_index.matrices
            vectors[here] = matrix[places[here] - start]
            start += len(segment)
            progress.advance(len(here))
        dim, items = spec.space.dim, len(spec.joined)
        own = np.flatnonzero((places < 0) & (rows < items))
        read_vectors(spec.joined, embedding_schema(dim), rows[own], vectors, own)
        further = np.flatnonzero((places < 0) & (rows >= items))
        read_vectors(spec.views, views_schema(dim), rows[further] - items, vectors, further)
        progress.advance(len(own) + len(further))
        progress.finish()
        return vectors


def _dtype(settings: SegmentSettings) -> np.dtype[np.floating]:
    return np.dtype(settings.precision)


def passed(checks: Sequence[Check]) -> tuple[Check, ...]:
    """Return the checks if all of them passed.

    Raises:
        RefusedBuildError: One failed.
    """
    if not all(check.passed for check in checks):
        raise RefusedBuildError(checks)
    return tuple(checks)
