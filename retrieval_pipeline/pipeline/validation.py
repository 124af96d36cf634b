"""Checks of a new build before it is published: it is complete, and its recall is enough."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc

from retrieval_pipeline.facts.grouped_files import read_grouped_files
from retrieval_pipeline.images.errors import Reason
from retrieval_pipeline.index.autotune import RECALL_TOLERANCE, make_sample_queries, measure
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.index.build_info import Check
from retrieval_pipeline.index.items import read_pictures
from retrieval_pipeline.index.row_keys import find, keys_of, no_keys
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_quarantine
from retrieval_pipeline.vectors import VectorSpace

# Another number than autotune.QUERY_SEED: other queries than the build was calibrated with.
QUERY_SEED = 5
# A new model takes over when at most this share of the images is not embedded yet: files that
# change during a run would otherwise delay it for ever.
MAY_BE_PENDING = 0.001


@dataclass(frozen=True)
class Coverage:
    """How many of the images of some sources are embedded in one vector space.

    Attributes:
        images: Different contents in the manifests, without those of companions.
        files: Files whose content is embedded.
        embedded: Contents that have an embedding.
        quarantined: Contents that cannot be used.
        pending: Contents that are neither, by source.
    """

    images: int
    files: int
    embedded: int
    quarantined: int
    pending: dict[str, int]


def read_coverage(store: Store, space: VectorSpace, sources: Sequence[str]) -> Coverage:
    """Compare the manifests of sources with the embeddings and the quarantine.

    Raises:
        StoreError: A table is damaged.
    """
    embedded = read_pictures(store, space).keys
    # Unreadable images count as pending and are tried again: their disk may be away.
    failed = [
        table.filter(pc.not_equal(table["reason"], Reason.UNREADABLE.value))["content_id"]
        for table in (read_quarantine(store, space, name) for name in sources)
    ]
    unusable = np.concatenate([no_keys(), *map(keys_of, failed)])
    files = [
        keys_of(read_grouped_files(store, space, name).files["content_id"]) for name in sources
    ]
    # Each content is looked up where it is first seen.
    first = find(contents := np.concatenate([no_keys(), *files]), contents)
    seen = np.flatnonzero(first == np.arange(len(first)))
    is_embedded, is_unusable, is_pending = (np.zeros(len(contents), np.bool_) for _ in range(3))
    is_embedded[seen] = find(contents[seen], embedded) >= 0
    is_unusable[seen] = find(contents[seen], unusable) >= 0
    is_unusable &= ~is_embedded
    is_pending[seen] = ~is_embedded[seen] & ~is_unusable[seen]
    pending, start = {}, 0
    for name, keys in zip(sources, files, strict=True):
        rows = first[start : start + len(keys)]
        pending[name] = len(np.unique(rows[is_pending[rows]]))
        start += len(keys)
    return Coverage(
        images=len(seen),
        files=int(is_embedded[first].sum()),
        embedded=int(is_embedded.sum()),
        quarantined=int(is_unusable.sum()),
        pending=pending,
    )


def reason_to_keep(store: Store, is_other: bool, space: VectorSpace, coverage: Coverage) -> str:
    """Say why a new index must not take over; "" if it may.

    Args:
        store: Tells whether people hold what answers.
        is_other: Whether what answers is of another vector space.
        space: That of the new index.
        coverage: How many images are embedded in it.
    """
    if store.held_file.exists():
        return "`retrieval use` holds it; `retrieval use --latest` lets new builds take over again"
    if not is_other:
        return ""
    pending = {name: count for name, count in coverage.pending.items() if count}
    if sum(pending.values()) <= MAY_BE_PENDING * coverage.images:
        return ""
    todo = ", ".join(f"{count:,} of {name}" for name, count in pending.items())
    return f"before {space.model} can take over, it has images to embed: {todo}"


def check_build(build: Build, coverage: Coverage, target: float) -> list[Check]:
    """Compare a build with the tables that it was made from, and measure its recall.

    Args:
        build: The build, not yet published.
        coverage: Counts of the tables of its sources.
        target: The recall at 10 that the settings ask for, 0 to 1.
    """
    files = pc.sum(pc.list_value_length(build.items["locations"])).as_py()
    return [check_counts(len(build), files, coverage), _check_recall(build, target)]


def check_counts(items: int, files: int, coverage: Coverage) -> Check:
    """Check that the index holds each embedded image of the manifests once, with all its files."""
    return Check(
        name="rows_agree",
        passed=(items, files) == (coverage.embedded, coverage.files),
        found=(
            f"the index holds {items:,} images in {files:,} files, the tables "
            f"{coverage.embedded:,} embedded images in {coverage.files:,} files"
        ),
    )


def _check_recall(build: Build, target: float) -> Check:
    """Check the recall of new segments with queries that their plans were not tuned with."""
    recall, how = 1.0, "a scan misses nothing"
    if not build.vector_index.is_scanned:
        how = "as measured before"
    entries = build.info.segments or [None]
    for entry, part in zip(entries, build.vector_index.parts, strict=True):
        if part.plan.kind == "scan":
            continue
        if entry is not None and not entry.is_new:
            # An earlier build was published with it: what finds enough once, always does.
            recall = min(recall, entry.recall_at_10)
            continue
        part.index.load_codes_for(part.plan)
        queries = make_sample_queries(part.index.matrices, build.vocabulary, QUERY_SEED)
        recall = min(recall, measure(part.index, queries, part.usable_plan).recall)
        how = f"with {len(queries.vectors)} fresh queries"
    least = target - RECALL_TOLERANCE
    return Check(
        name="recall_is_enough",
        passed=recall >= least,
        found=f"recall@10 is {recall:.3f} ({how}; at least {least:.3f})",
    )
