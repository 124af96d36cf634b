"""Checks of a new build before it is published: it is complete, and its recall is enough."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow.compute as pc

from retrieval_pipeline.facts.grouped_files import read_grouped_files
from retrieval_pipeline.images.errors import Reason
from retrieval_pipeline.index.autotune import RECALL_TOLERANCE, make_sample_queries, measure
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.index.build_info import Check
from retrieval_pipeline.ingest.embed import embedded_ids
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_quarantine
from retrieval_pipeline.vectors import VectorSpace

# Another number than autotune.QUERY_SEED: other queries than the build was calibrated with.
QUERY_SEED = 5


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
    embedded = embedded_ids(store, space)
    manifests = {
        name: read_grouped_files(store, space, name).files["content_id"] for name in sources
    }
    contents = {name: set(column.to_pylist()) for name, column in manifests.items()}
    quarantined = {
        row["content_id"]
        for name in sources
        for row in read_quarantine(store, space, name).to_pylist()
        # Unreadable images count as pending and are tried again: their disk may be away.
        if row["reason"] != Reason.UNREADABLE
    } - embedded
    images = set().union(*contents.values())
    return Coverage(
        images=len(images),
        files=sum(
            content in embedded for column in manifests.values() for content in column.to_pylist()
        ),
        embedded=len(images & embedded),
        quarantined=len(images & quarantined),
        pending={name: len(found - embedded - quarantined) for name, found in contents.items()},
    )


def check_build(build: Build, coverage: Coverage, target: float) -> list[Check]:
    """Compare a build with the tables that it was made from, and measure its recall.

    Args:
        build: The build, not yet published.
        coverage: Counts of the tables of its sources.
        target: The recall at 10 that the settings ask for, 0 to 1.
    """
    return [_check_rows(build, coverage), _check_recall(build, target)]


def _check_rows(build: Build, coverage: Coverage) -> Check:
    """Check that the index holds each embedded image of the manifests once, with all its files."""
    files = pc.sum(pc.list_value_length(build.items["locations"])).as_py()
    return Check(
        name="rows_agree",
        passed=(len(build), files) == (coverage.embedded, coverage.files),
        found=(
            f"the index holds {len(build):,} images in {files:,} files, the tables "
            f"{coverage.embedded:,} embedded images in {coverage.files:,} files"
        ),
    )


def _check_recall(build: Build, target: float) -> Check:
    """Check the recall of new segments with queries that their plans were not tuned with."""
    build.load_codes()
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
        queries = make_sample_queries(part.index.matrices, build.vocabulary, QUERY_SEED)
        recall = min(recall, measure(part.index, queries, part.usable_plan).recall)
        how = f"with {len(queries.vectors)} fresh queries"
    least = target - RECALL_TOLERANCE
    return Check(
        name="recall_is_enough",
        passed=recall >= least,
        found=f"recall@10 is {recall:.3f} ({how}; at least {least:.3f})",
    )
