"""The index builder: writes a build, has it checked and publishes it."""

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.errors import BuildError, StoreError, UnreadableError
from retrieval_pipeline.index.ann import METRIC, TREE_COUNT
from retrieval_pipeline.index.arrays import load_array
from retrieval_pipeline.index.build import (
    BUILD_FORMAT,
    ITEMS_FILE,
    VIEWS_FILE,
    VOCABULARY_FILE,
    Build,
    BuildInfo,
    Check,
    FileFacts,
    check_files,
    current_or_none,
    item_matrices,
    map_items,
    open_current,
    read_info,
    remember_hashed,
    vocabulary_digest,
    write_info,
)
from retrieval_pipeline.index.companions import (
    COMPANIONS_FILE,
    companions_of_items,
    write_companions,
)
from retrieval_pipeline.index.facts_table import (
    FACTS_FILE,
    facts_of_items,
    has_facts,
    places_version,
    with_places,
    write_facts,
)
from retrieval_pipeline.index.items import (
    JoinedItems,
    items_schema,
    join,
    table_digest,
    write_rows,
)
from retrieval_pipeline.index.knn import evenly_spaced, rows_of
from retrieval_pipeline.index.quantization import require_codes
from retrieval_pipeline.index.reduction import REDUCED_DIMENSIONS
from retrieval_pipeline.index.retention import retire_builds
from retrieval_pipeline.index.score_statistics import (
    SAMPLE_PICTURES,
    Background,
    measure_background,
)
from retrieval_pipeline.index.search_structures import (
    BASIS_FILE,
    CODES_FILE,
    SearchStructures,
    reuse_structures,
    write_structures,
)
from retrieval_pipeline.index.views import (
    JoinedViews,
    join_views,
    row_ids,
    view_rows_schema,
)
from retrieval_pipeline.index.vocabulary import words
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.atomic import new_directory
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.schemas import embedding_schema, views_schema
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
        space: The vector space of the embeddings.
        joined: The items.
        views: Their further views.
        facts: Their facts, the columns of facts.arrow without the names of places; None if none
            were read yet.
        companions: The files that belong to them, the columns of companions.arrow.
        inputs: Hash of the items, their views, facts and companions, and of every setting that
            matters.
        recall: The recall at 10 that the plan must reach when it is measured.
        with_codes: Whether to write codes, and to try them.
        texts: Vectors of the vocabulary, float32 (n, dim); None if they are not known.
    """

    space: VectorSpace
    joined: JoinedItems
    views: JoinedViews
    facts: pa.Table | None
    companions: pa.Table
    inputs: str
    recall: float
    with_codes: bool
    texts: Vectors | None

    @property
    def vocabulary(self) -> str | None:
        """Hash of the words that `texts` are the vectors of; None without texts."""
        return None if self.texts is None else vocabulary_digest()


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
    codes: bool = False,
    encode_texts: EncodeTexts | None = None,
    accept: AcceptBuild | None = None,
    accept_change: AcceptBuild | None = None,
    publish: bool = True,
    progress: Progress | None = None,
) -> BuildReport:
    """Write and publish a build of `sources`, unless a sound one has the same inputs.

    Args:
        store: Where tables and builds are.
        space: The vector space whose embeddings to index.
        sources: The names of the sources whose manifests to index.
        views: Which of the stored views of its pictures each source has; default "whole".
        recall: The recall at 10 that the plan must reach when it is measured.
        codes: Whether to write codes for faiss, and to try how fast they are.
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
    if codes:
        require_codes()
    joined = _join_sources(store, space, sources)
    further = join_views(store, space, joined, views or {})
    facts = facts_of_items(store, joined.table) if has_facts(store, joined.table) else None
    companions = companions_of_items(joined.table, joined.grouped)
    inputs = joined.digest(
        *(BUILD_FORMAT, TREE_COUNT, REDUCED_DIMENSIONS, recall, codes),
        *(vocabulary_digest(), space.key),
        # Without any of these, the hash is that of a version that knew none: its builds stay.
        *(() if facts is None else (table_digest(facts, places_version(facts)),)),
        *(("views", table_digest(further.table)) if len(further) else ()),
        *(("companions", table_digest(companions)) if len(companions) else ()),
    )
    if (same := _same_build(store, space, inputs)) is not None:
        if not publish:
            return BuildReport(same, read_info(same), published=False)
        return _publish_existing(store, same, accept_change)
    texts = _vocabulary_vectors(store, space, encode_texts)
    spec = BuildSpec(space, joined, further, facts, companions, inputs, recall, codes, texts)
    previous = _open_previous(store, spec)
    try:
        build, info = _write(store, spec, previous, accept, accept_change, progress)
    except RefusedBuildError:
        if previous is None:
            raise
        # What was reused from the previous build may be to blame.
        build, info = _write(store, spec, None, accept, accept_change, progress)
    if publish:
        store.publish(build)
    retire_builds(store)
    return BuildReport(build, info, published=publish)


def _join_sources(store: Store, space: VectorSpace, sources: Sequence[str]) -> JoinedItems:
    joined = join(store, space, sources)
    if not len(joined):
        raise BuildError(
            "there is nothing to index: no source has an image that could be embedded. "
            "`retrieval status` shows what was found"
        )
    return joined


def _same_build(store: Store, space: VectorSpace, inputs: str) -> Path | None:
    """Return a sound build that was made from the same inputs; the current one if it is such."""
    current = current_or_none(store)
    newest_first = reversed(store.builds(space))
    for build in sorted(newest_first, key=lambda build: build != current):
        with contextlib.suppress(BuildError, UnreadableError):
            info = read_info(build)
            if info.inputs == inputs:
                check_files(build, info)
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
            _passed((*read_info(build).checks, *accept_change(Build.open(build))))
        store.publish(build)
    return BuildReport(build, read_info(build), published)


def _vocabulary_vectors(
    store: Store, space: VectorSpace, encode_texts: EncodeTexts | None
) -> Vectors | None:
    """Return the vectors of `vocabulary.words()`, from an earlier build of the space if possible.

    None if no build has them and there is no `encode_texts`.
    """
    for build in reversed(store.builds(space)):
        try:
            info = read_info(build)
            if info.vocabulary == vocabulary_digest():
                check_files(build, info)
                return load_array(build / VOCABULARY_FILE, np.float32, (None, space.dim))
        except (BuildError, UnreadableError):
            continue
    if encode_texts is None:
        return None
    return check_vectors(encode_texts(words()), space.dim, "vocabulary")


def _open_previous(store: Store, spec: BuildSpec) -> Build | None:
    """Open the current build if a build of `spec` may reuse its search structures."""
    with contextlib.suppress(BuildError, StoreError):
        build = open_current(store)
        info = build.info
        # Codes are written of reduced vectors only: a build without these suits any setting.
        with_codes = CODES_FILE in info.files or (spec.with_codes and BASIS_FILE not in info.files)
        found = info.space, info.calibration.target, with_codes, info.vocabulary
        if found == (spec.space, spec.recall, spec.with_codes, spec.vocabulary):
            return build
    return None


def _write(
    store: Store,
    spec: BuildSpec,
    previous: Build | None,
    accept: AcceptBuild | None,
    accept_change: AcceptBuild | None,
    progress: Progress,
) -> tuple[Path, BuildInfo]:
    """Write and check a build, which reuses what it can of `previous`; return its directory."""
    started = time.monotonic()
    created_at = datetime.now(UTC)
    # Names sort by age, even those of builds that were begun in the same second.
    build = store.new_build(spec.space, f"{created_at:%Y%m%dT%H%M%S.%f}Z-{spec.inputs[:8]}")
    with new_directory(build) as directory:
        matrices = _write_items(directory, spec, progress)
        if spec.facts is not None:
            write_facts(with_places(spec.facts), directory / FACTS_FILE)
        if len(spec.companions):
            write_companions(spec.companions, directory / COMPANIONS_FILE)
        if spec.texts is not None:
            np.save(directory / VOCABULARY_FILE, spec.texts)
        structures = _reuse_or_write_structures(directory, spec, matrices, previous, progress)
        background = _measure_background(matrices, len(spec.joined), spec.texts)
        info = _describe(directory, spec, structures, background, created_at, started)
        remember_hashed(directory, info)
        write_info(directory, info)
        checks: tuple[Check, ...] = ()
        if accept is not None:
            progress.start("checking the index", None, "")
            checks = _passed(accept(Build.open(directory)))
            progress.finish()
        if accept_change is not None:
            checks = _passed((*checks, *accept_change(Build.open(directory))))
        if checks:
            info = info.model_copy(update={"checks": checks})
            write_info(directory, info)
    return build, info


def _write_items(directory: Path, spec: BuildSpec, progress: Progress) -> list[Vectors]:
    """Write items.arrow, and views.arrow if there are views.

    Returns:
        Their vectors, mapped into memory, those of the items first: float32 (n, dim) each.
    """
    dim, scratch = spec.space.dim, directory / "scratch"
    progress.start("writing the index", len(spec.joined), "images")
    for count in write_rows(
        spec.joined, items_schema(dim), embedding_schema(dim), directory / ITEMS_FILE, scratch
    ):
        progress.advance(count)
    progress.finish()
    matrices = item_matrices(map_items(directory / ITEMS_FILE), dim)
    if len(spec.views):
        file = directory / VIEWS_FILE
        for _ in write_rows(spec.views, view_rows_schema(dim), views_schema(dim), file, scratch):
            pass
        matrices += item_matrices(map_items(file), dim)
    return matrices


def _reuse_or_write_structures(
    directory: Path,
    spec: BuildSpec,
    matrices: Sequence[Vectors],
    previous: Build | None,
    progress: Progress,
) -> SearchStructures:
    if previous is not None:
        ids = row_ids(spec.joined.table["content_id"], spec.views.table)
        reused = reuse_structures(
            directory, matrices, ids, spec.texts, previous.as_previous, progress
        )
        if reused is not None:
            return reused
    return write_structures(directory, matrices, spec.texts, spec.recall, spec.with_codes, progress)


def _measure_background(
    matrices: Sequence[Vectors], items: int, texts: Vectors | None
) -> Background:
    """Measure it on a sample of the items' own vectors, which are the first rows."""
    numbers = evenly_spaced(items, SAMPLE_PICTURES)
    return measure_background(rows_of(matrices, numbers), texts)


def _describe(
    directory: Path,
    spec: BuildSpec,
    structures: SearchStructures,
    background: Background,
    created_at: datetime,
    started: float,
) -> BuildInfo:
    """Return the build.json of a build whose other files are in `directory`.

    Args:
        directory: Of the new build.
        spec: What it was made from.
        structures: The search structures that were written.
        background: How unrelated texts and pictures score.
        created_at: When the build was begun.
        started: The same, by `time.monotonic()`.
    """
    sources = pc.list_flatten(spec.joined.table["locations"]).combine_chunks().field("source")
    counts = pc.value_counts(sources).to_pylist()
    return BuildInfo(
        format=BUILD_FORMAT,
        created_at=created_at,
        inputs=spec.inputs,
        model=spec.space.model,
        revision=spec.space.revision,
        dim=spec.space.dim,
        preprocessing=spec.space.preprocessing,
        metric=METRIC,
        trees=structures.trees,
        tree_components=structures.tree_dimensions,
        items=len(spec.joined),
        views=len(spec.views),
        locations=len(sources),
        sources={entry["values"]: entry["counts"] for entry in counts},
        calibration=structures.calibration,
        background=background,
        vocabulary=spec.vocabulary,
        build_seconds=round(time.monotonic() - started, 3),
        files={
            file.name: FileFacts(size=file.stat().st_size, blake3=content_id_of_file(file))
            for file in sorted(directory.iterdir())
        },
    )


def _passed(checks: Sequence[Check]) -> tuple[Check, ...]:
    """Return the checks if all of them passed.

    Raises:
        RefusedBuildError: One failed.
    """
    if not all(check.passed for check in checks):
        raise RefusedBuildError(checks)
    return tuple(checks)
