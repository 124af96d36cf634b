"""The search structures of a segment: reduced vectors, Annoy's trees, codes; writing, opening."""

import os
import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index.ann import TreeFacts, Trees, write_trees
from retrieval_pipeline.index.autotune import (
    CANDIDATE_COUNTS,
    SCAN_ONLY_ITEMS,
    Calibration,
    Measurement,
    SampleQueries,
    choose_plan,
    make_sample_queries,
    measure,
    measure_reduced_scans,
    with_safety_margin,
)
from retrieval_pipeline.index.knn import SCAN, Plan, VectorIndex
from retrieval_pipeline.index.matrices import Matrix
from retrieval_pipeline.index.quantization import write_codes
from retrieval_pipeline.index.reduction import (
    REDUCED_DIMENSIONS,
    ReducedVectors,
    open_reduced,
    principal_components,
    write_reduced,
)
from retrieval_pipeline.progress import Progress
from retrieval_pipeline.vectors import Vectors

# Names of the files in a segment's directory.
TREES_FILE = "vectors.annoy"
BASIS_FILE = "basis.npy"
REDUCED_FILE = "projected.f32"
CODES_FILE = "codes.faiss"

# Up to so many vectors a scan takes as long as asking the reduced ones does.
FEW_ROWS = 256
# Up to so many reduced vectors are scanned in about a millisecond: beside a larger segment, with
# which they share the candidates that are compared in full, they need no trees or codes.
POOLED_ROWS = 50_000
# The least number of candidates that reduced vectors of a small segment are measured with.
FEW_CANDIDATES = 50


@dataclass(frozen=True)
class SearchStructures:
    """What was written into a segment's directory for the search.

    Attributes:
        trees: What the Annoy file must hold; None if there is none.
        tree_dimensions: Number of components of the vectors in the trees.
        calibration: The plan to search by, and what it was chosen from.
    """

    trees: TreeFacts | None
    tree_dimensions: int
    calibration: Calibration


def write_structures(
    directory: Path,
    matrix: Matrix,
    basis: Vectors | None,
    texts: Vectors | None,
    recall: float,
    with_codes: bool,
    progress: Progress,
) -> SearchStructures:
    """Reduce the vectors, and choose the fastest plan that finds enough: by codes, or by trees.

    Up to POOLED_ROWS vectors are only reduced, if there is a basis that serves. Up to
    SCAN_ONLY_ITEMS without one, and up to FEW_ROWS, they are scanned and get nothing.

    Args:
        directory: Of the new segment.
        matrix: The full vectors, float16 or float32 (n, dim).
        basis: That of a larger segment, float32 (dim, n). Segments with a common basis are searched
            together (see `segmented_index`); None if there is none.
        texts: Vectors of the vocabulary, float32 (n, dim), or None.
        recall: The recall at 10 that the plan must reach.
        with_codes: Whether to write codes, and to try them. faiss must be installed.
        progress: Told about stages.

    Raises:
        BuildError: faiss cannot read its own codes.
        StoreError: The trees cannot be written.
    """
    count, dim = matrix.shape
    scanned = SearchStructures(None, dim, Calibration(target=recall, plan=SCAN, recall_at_10=1.0))
    if count <= FEW_ROWS or (count <= SCAN_ONLY_ITEMS and basis is None):
        return scanned
    queries = make_sample_queries([matrix], texts)
    indexed, files = matrix, set[str]()
    reduced: ReducedVectors | None = None
    reduced_scans: list[Measurement] = []
    if basis is not None:
        reduced = _reduce(directory, matrix, basis)
        index = VectorIndex([matrix], reduced)
        if count <= POOLED_ROWS and (pooled := _of_few(index, queries, recall)) is not None:
            return pooled
        if count <= SCAN_ONLY_ITEMS:
            return _without_reduced(directory, scanned)
        reduced_scans = measure_reduced_scans(index, queries, recall)
    if dim > REDUCED_DIMENSIONS and (
        not reduced_scans or reduced_scans[-1].recall < with_safety_margin(recall)
    ):
        basis = principal_components([matrix], REDUCED_DIMENSIONS)
        reduced = _reduce(directory, matrix, basis)
        reduced_scans = measure_reduced_scans(VectorIndex([matrix], reduced), queries, recall)
    if reduced is not None:
        files |= {BASIS_FILE, REDUCED_FILE}
        # If even a full scan of the reduced vectors finds too little, trees over them would too:
        # then the trees index the full vectors.
        if reduced_scans[-1].recall >= with_safety_margin(recall):
            indexed = reduced.vectors
    if with_codes and reduced is not None:
        progress.start("writing the codes", None, "")
        write_codes(directory / CODES_FILE, reduced.vectors)
        progress.finish()
        files.add(CODES_FILE)
        index = open_vector_index(directory, matrix, None, dim, files)
        calibration = _choose(index, queries, recall, reduced_scans, progress)
        # Where codes win, trees would be grown and stored for nothing: without faiss, a scan of
        # the reduced vectors answers in their place.
        if calibration.plan.kind == "codes":
            return SearchStructures(None, dim, calibration)
    trees = write_trees(directory / TREES_FILE, [indexed], progress)
    files.add(TREES_FILE)
    index = open_vector_index(directory, matrix, trees, indexed.shape[1], files)
    calibration = _choose(index, queries, recall, reduced_scans, progress)
    return SearchStructures(trees, indexed.shape[1], calibration)


def _choose(
    index: VectorIndex,
    queries: SampleQueries,
    recall: float,
    reduced_scans: Sequence[Measurement],
    progress: Progress,
) -> Calibration:
    progress.start("measuring the recall", None, "")
    calibration = choose_plan(index, queries, recall, reduced_scans)
    progress.finish()
    return calibration


def _reduce(directory: Path, matrix: Matrix, basis: Vectors) -> ReducedVectors:
    for file in (directory / BASIS_FILE, directory / REDUCED_FILE):
        file.unlink(missing_ok=True)  # It may be mapped into memory, so it is not written over.
    np.save(directory / BASIS_FILE, basis)
    return write_reduced(directory / BASIS_FILE, directory / REDUCED_FILE, [matrix])


def _of_few(index: VectorIndex, queries: SampleQueries, recall: float) -> SearchStructures | None:
    """Return the structures of few reduced vectors; None if the reduction loses too much.

    Alone a thousand would be candidates. Beside a larger segment only the best of them are, so that
    a tenth of so few has to find enough.
    """
    most = min(max(len(index) // 10, FEW_CANDIDATES), CANDIDATE_COUNTS[0])
    share = Plan(kind="projected", candidates=most)
    found = measure(index, queries, share)
    if found.recall < with_safety_margin(recall):
        return None
    calibration = Calibration(
        target=recall,
        plan=Plan(kind="projected", candidates=CANDIDATE_COUNTS[0]),
        recall_at_10=found.recall,
        image_queries=queries.images,
        text_queries=len(queries.vectors) - queries.images,
        measured=(found,),
    )
    return SearchStructures(None, index.matrices[0].shape[1], calibration)


def _without_reduced(directory: Path, structures: SearchStructures) -> SearchStructures:
    for name in (BASIS_FILE, REDUCED_FILE):
        (directory / name).unlink()
    return structures


def open_vector_index(
    directory: Path,
    matrix: Matrix,
    trees: TreeFacts | None,
    tree_dimensions: int,
    files: Collection[str],
) -> VectorIndex:
    """Map the structures of a segment into memory. The caller knows that the files are whole.

    Args:
        directory: Of the segment.
        matrix: The full vectors, float16 or float32 (n, dim).
        trees: What the Annoy file must hold; None if there is none.
        tree_dimensions: Number of components of the vectors in the trees.
        files: The names of the files that belong to the segment.

    Raises:
        BuildError: A file is not what segment.json says.
    """
    count, dim = matrix.shape
    reduced = None
    if {BASIS_FILE, REDUCED_FILE} <= set(files):
        reduced = open_reduced(directory / BASIS_FILE, directory / REDUCED_FILE, count)
    # With another number of components Annoy would misread its file, or crash.
    fits = reduced is None or len(reduced.basis) == dim
    if not fits or tree_dimensions not in (dim, reduced and reduced.dimensions):
        raise mismatch(directory / TREES_FILE)
    if (trees is not None) != (TREES_FILE in files):
        raise mismatch(directory / TREES_FILE)
    return VectorIndex(
        [matrix],
        reduced,
        None
        if trees is None
        else _open_trees(directory / TREES_FILE, tree_dimensions, trees, count),
        trees_are_reduced=tree_dimensions < dim,
        codes_file=directory / CODES_FILE if reduced is not None and CODES_FILE in files else None,
    )


def _open_trees(file: Path, dim: int, facts: TreeFacts, count: int) -> Trees:
    try:
        trees = Trees.open(file, dim)
    except OSError as error:
        # Annoy puts the system's error into the text: "Unable to mmap: No such device (19)".
        if code := re.fullmatch(r"Unable to .*\((\d+)\)", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(file)) from error
        # The file is of another length than vectors of so many components make.
        raise mismatch(file) from None
    if trees.facts != facts or facts.vectors != count:
        raise mismatch(file)
    return trees


def mismatch(file: Path) -> BuildError:
    """Return the error that a file of an index is not what its description says."""
    return BuildError(f"{file}: not as its description says: run `retrieval index`")
