"""Making a build: items, vectors and what speeds up the search; checked before it is published."""

import contextlib
import functools
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow.compute as pc

from retrieval_pipeline.errors import BuildError, StoreError, UnreadableError
from retrieval_pipeline.index.ann import (
    BASIS,
    CODES,
    METRIC,
    TREES,
    take_over,
    write_structures,
)
from retrieval_pipeline.index.build import (
    FORMAT,
    ITEMS,
    VOCABULARY,
    Build,
    BuildInfo,
    Check,
    FileFacts,
    check_files,
    current_or_none,
    file_identity,
    item_matrices,
    map_items,
    open_current,
    read_info,
    vocabulary_digest,
    write_info,
    write_stamp,
)
from retrieval_pipeline.index.items import (
    Joined,
    join,
    one_chunk,
    write_items,
)
from retrieval_pipeline.index.knn import COMPONENTS, rows_of, spread
from retrieval_pipeline.index.quantization import require_codes
from retrieval_pipeline.index.retention import retire_builds
from retrieval_pipeline.index.score_statistics import SAMPLE_PICTURES, measure_background
from retrieval_pipeline.index.vocabulary import words
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.atomic import new_directory
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.reading import reading
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import EncodeTexts, Vectors, VectorSpace, check_vectors

RECALL = 0.99  # The target where the settings name no other.


@dataclass(frozen=True)
class BuildReport:
    """The current build after an update.

    Attributes:
        build: Its directory.
        info: What it is.
        published: Whether it became the current one now.
        kept: Why it stayed the current one although there is something newer; "" if there is not.
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
    recall: float = RECALL,
    codes: bool = False,
    encode_texts: EncodeTexts | None = None,
    accept: Callable[["Build"], Sequence[Check]] | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Write and publish a build of `sources`, unless there is one of the same inputs.

    Args:
        store: Where tables and builds are.
        space: Whose embeddings to index.
        sources: Whose manifests to index.
        recall: The recall at 10 that the way of searching must reach when it is measured.
        codes: Whether to write codes for faiss and try how fast they are.
        encode_texts: Encodes the vocabulary where no build of this space has it yet. Without it
            the build knows no words: it is calibrated with queries like pictures alone.
        accept: Checks a build, opened as readers open it, before it is published.
        progress: Told about stages and items.

    Raises:
        BuildError: There is nothing to index, or faiss is not installed for `codes`.
        RefusedBuildError: A check failed; nothing was published.
        StoreError: A table is damaged or the build cannot be written.
        VectorError: A stored vector is not of unit length.
    """
    progress = progress or Quiet()
    if codes:
        require_codes()
    joined = join(store, space, sources)
    if not len(joined):
        raise BuildError(
            "there is nothing to index: no source has an image that could be embedded. "
            "`retrieval status` shows what was found"
        )
    inputs = joined.digest(FORMAT, TREES, COMPONENTS, recall, codes, vocabulary_digest(), space.key)
    if (same := _same_build(store, space, inputs)) is not None:
        published = same != current_or_none(store)
        if published:
            store.publish(same)
        return BuildReport(same, read_info(same), published)
    texts = _vocabulary(store, space, encode_texts)
    write = functools.partial(
        _write_build, store, space, joined, inputs, recall, codes, texts, accept, progress
    )
    former = _open_former(store, space, recall, codes, texts)
    try:
        return write(former)
    except RefusedBuildError:
        if former is None:
            raise
        # It may be for what it took over.
        return write(None)


def _write_build(
    store: Store,
    space: VectorSpace,
    joined: Joined,
    inputs: str,
    recall: float,
    codes: bool,
    texts: Vectors | None,
    accept: Callable[["Build"], Sequence[Check]] | None,
    progress: Progress,
    former: "Build | None",
) -> BuildReport:
    """Write, check and publish a build, which takes over what it can from `former`."""
    started = time.monotonic()
    created_at = datetime.now(UTC)
    # Names sort by age, also those of one second.
    build = store.new_build(space, f"{created_at:%Y%m%dT%H%M%S.%f}Z-{inputs[:8]}")
    with new_directory(build) as directory:
        progress.start("writing the index", len(joined), "images")
        for count in write_items(joined, space, directory / ITEMS, directory / "scratch"):
            progress.advance(count)
        progress.finish()
        matrices = item_matrices(map_items(directory / ITEMS), space.dim)
        if texts is not None:
            np.save(directory / VOCABULARY, texts)
        structures = None
        if former is not None:
            content_ids = one_chunk(joined.table["content_id"])
            structures = take_over(directory, matrices, content_ids, texts, former.kept, progress)
        if structures is None:
            structures = write_structures(directory, matrices, texts, recall, codes, progress)
        flat_sources = pc.list_flatten(joined.table["locations"]).combine_chunks().field("source")
        info = BuildInfo(
            format=FORMAT,
            created_at=created_at,
            inputs=inputs,
            model=space.model,
            revision=space.revision,
            dim=space.dim,
            preprocessing=space.preprocessing,
            metric=METRIC,
            trees=structures.trees,
            tree_components=structures.components,
            items=len(joined),
            locations=len(flat_sources),
            sources={
                entry["values"]: entry["counts"]
                for entry in pc.value_counts(flat_sources).to_pylist()
            },
            calibration=structures.calibration,
            background=measure_background(_sample(matrices), texts),
            vocabulary=None if texts is None else vocabulary_digest(),
            build_seconds=round(time.monotonic() - started, 3),
            files={
                file.name: FileFacts(size=file.stat().st_size, blake3=content_id_of_file(file))
                for file in sorted(directory.iterdir())
            },
        )
        stamp = {name: file_identity(directory / name, facts) for name, facts in info.files.items()}
        write_stamp(directory, stamp)
        write_info(directory, info)
        if accept is not None:
            progress.start("checking the index", None, "")
            checks = tuple(accept(Build.open(directory)))
            progress.finish()
            if not all(check.passed for check in checks):
                raise RefusedBuildError(checks)
            info = info.model_copy(update={"checks": checks})
            write_info(directory, info)
    store.publish(build)
    retire_builds(store)
    return BuildReport(build, info, published=True)


def _open_former(
    store: Store, space: VectorSpace, recall: float, codes: bool, texts: Vectors | None
) -> "Build | None":
    """Open the current build if the next one may take over how it is searched."""
    with contextlib.suppress(BuildError, StoreError):
        build = open_current(store)
        info = build.info
        vocabulary = None if texts is None else vocabulary_digest()
        # Only a projection has codes.
        with_codes = CODES in info.files or (codes and BASIS not in info.files)
        found = info.space, info.calibration.target, with_codes, info.vocabulary
        if found == (space, recall, codes, vocabulary):
            return build
    return None


def _sample(matrices: list[Vectors]) -> Vectors:
    return rows_of(matrices, spread(sum(map(len, matrices)), SAMPLE_PICTURES))


def _vocabulary(
    store: Store, space: VectorSpace, encode_texts: EncodeTexts | None
) -> Vectors | None:
    """Return the vectors of `vocabulary.words()`, from an earlier build of the space if it can."""
    for build in reversed(store.builds(space)):
        try:
            info = read_info(build)
            if info.vocabulary == vocabulary_digest():
                check_files(build, info)
                with reading(build / VOCABULARY):
                    known: Vectors = np.load(build / VOCABULARY)
                return known
        except (BuildError, UnreadableError):
            continue
    if encode_texts is None:
        return None
    return check_vectors(encode_texts(words()), space.dim, "vocabulary")


def _same_build(store: Store, space: VectorSpace, inputs: str) -> Path | None:
    """Return a build that was made from the same inputs and is whole; the current one first."""
    current = current_or_none(store)
    newest_first = reversed(store.builds(space))
    for build in sorted(newest_first, key=lambda build: build != current):
        with contextlib.suppress(BuildError, UnreadableError):
            info = read_info(build)
            if info.inputs == inputs:
                check_files(build, info)
                return build
    return None
