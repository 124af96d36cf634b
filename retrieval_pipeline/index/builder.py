"""The index builder: writes what is new of a build, has it checked and publishes it."""

import contextlib
import io
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np

from retrieval_pipeline.errors import BuildError, UnreadableError
from retrieval_pipeline.index.ann import METRIC
from retrieval_pipeline.index.arrays import load_array
from retrieval_pipeline.index.autotune import Calibration
from retrieval_pipeline.index.blocks import BlockFile
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
from retrieval_pipeline.index.hashed_files import FileFacts, check_files, remember_hashed
from retrieval_pipeline.index.inputs import Inputs, read_inputs
from retrieval_pipeline.index.knn import evenly_spaced
from retrieval_pipeline.index.placing import Placed, open_segments, place, write_segments
from retrieval_pipeline.index.quantization import WantCodes, require_codes
from retrieval_pipeline.index.retention import retire_builds
from retrieval_pipeline.index.runs import RowMap, Runs, to_runs
from retrieval_pipeline.index.score_statistics import SAMPLE_PICTURES, measure_background
from retrieval_pipeline.index.segment import (
    Precision,
    Segment,
    SegmentSettings,
)
from retrieval_pipeline.index.segmented_index import Part, SegmentedIndex
from retrieval_pipeline.index.vocabulary import words
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.atomic import new_directory, replacing
from retrieval_pipeline.storage.content_id import content_id
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import EncodeTexts, Vectors, VectorSpace, check_vectors
from retrieval_pipeline.views import Views

RECALL = 0.99  # The recall at 10 to reach where the settings name none.

# Checks a build, opened as readers open it, before it is published.
AcceptBuild = Callable[[Build], Sequence[Check]]


@dataclass(frozen=True)
class BuildSpec:
    """What a build is made from.

    Attributes:
        settings: What segments are made with.
        tables: The items, of which the blocks are written already, and where their vectors are.
        inputs: Hash of the items, of all that is told of them, and of every setting that matters.
        texts: Vectors of the vocabulary, float32 (n, dim); None if they are not known.
    """

    settings: SegmentSettings
    tables: Inputs
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
    previous = _previous(store, space)
    known = () if previous is None else previous[1].blocks
    tables = read_inputs(store, space, sources, views or {}, known)
    made_with = (BUILD_FORMAT, recall, codes, precision, vocabulary_digest(), space.key)
    names = [[file.name for file in block.tables.values()] for block in tables.blocks]
    inputs = content_id(json.dumps([made_with, names]).encode())
    if (same := _same_build(store, space, inputs)) is not None:
        if not publish:
            return BuildReport(same, read_info(same), published=False)
        return _publish_existing(store, same, accept_change)
    texts = _vocabulary_vectors(store, space, encode_texts)
    vocabulary = None if texts is None else vocabulary_digest()
    settings = SegmentSettings(space, precision, recall, codes, vocabulary)
    spec = BuildSpec(settings, tables, inputs, texts)
    segments = [] if previous is None else open_segments(store, settings, previous[1])
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
    settings, keys = spec.settings, spec.tables.keys
    vocabulary = _write_vocabulary(store, spec)
    placed = write_segments(
        store, settings, spec.tables, place(earlier, keys), spec.texts, progress, anew=anew
    )
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
        items = len(spec.tables.items)
        numbers = evenly_spaced(items, SAMPLE_PICTURES)
        sample = _index_of(placed, runs, len(keys)).vectors(numbers)
        info = BuildInfo(
            format=BUILD_FORMAT,
            created_at=created_at,
            inputs=spec.inputs,
            model=spec.space.model,
            revision=spec.space.revision,
            dim=spec.space.dim,
            preprocessing=spec.space.preprocessing,
            metric=METRIC,
            items=items,
            views=len(spec.tables.views),
            locations=sum(spec.tables.sources.values()),
            sources=spec.tables.sources,
            segments=entries,
            blocks=spec.tables.blocks,
            calibration=_of_all(placed),
            background=measure_background(sample, spec.texts),
            vocabulary=settings.vocabulary,
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


def passed(checks: Sequence[Check]) -> tuple[Check, ...]:
    """Return the checks if all of them passed.

    Raises:
        RefusedBuildError: One failed.
    """
    if not all(check.passed for check in checks):
        raise RefusedBuildError(checks)
    return tuple(checks)
