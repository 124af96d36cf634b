"""The search structures of a segment: reduced vectors, Annoy's trees, codes; writing, opening."""

import os
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index.ann import TreeFacts, Trees, write_trees
from retrieval_pipeline.index.autotune import (
    SCAN_ONLY_ITEMS,
    Calibration,
    Measurement,
    choose_plan,
    make_sample_queries,
    measure_reduced_scans,
    with_safety_margin,
)
from retrieval_pipeline.index.knn import SCAN, VectorIndex
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
    texts: Vectors | None,
    recall: float,
    with_codes: bool,
    progress: Progress,
) -> SearchStructures:
    """Reduce the vectors, grow trees, and choose the fastest plan that finds enough.

    Few vectors are scanned, and get nothing.

    Args:
        directory: Of the new segment.
        matrix: The full vectors, float16 or float32 (n, dim).
        texts: Vectors of the vocabulary, float32 (n, dim), or None.
        recall: The recall at 10 that the plan must reach.
        with_codes: Whether to write codes, and to try them. faiss must be installed.
        progress: Told about stages.

    Raises:
        BuildError: faiss cannot read its own codes.
        StoreError: The trees cannot be written.
    """
    count, dim = matrix.shape
    if count <= SCAN_ONLY_ITEMS:
        return SearchStructures(None, dim, Calibration(target=recall, plan=SCAN, recall_at_10=1.0))
    queries = make_sample_queries([matrix], texts)
    indexed, files = matrix, {TREES_FILE}
    reduced: ReducedVectors | None = None
    reduced_scans: list[Measurement] = []
    if dim > REDUCED_DIMENSIONS:
        np.save(directory / BASIS_FILE, principal_components([matrix], REDUCED_DIMENSIONS))
        reduced = write_reduced(directory / BASIS_FILE, directory / REDUCED_FILE, [matrix])
        files |= {BASIS_FILE, REDUCED_FILE}
        reduced_scans = measure_reduced_scans(VectorIndex([matrix], reduced), queries, recall)
        # If even a full scan of the reduced vectors finds too little, trees over them would too:
        # then the trees index the full vectors.
        if reduced_scans[-1].recall >= with_safety_margin(recall):
            indexed = reduced.vectors
    tree_dimensions = indexed.shape[1]
    trees = write_trees(directory / TREES_FILE, [indexed], progress)
    if with_codes and reduced is not None:
        progress.start("writing the codes", None, "")
        write_codes(directory / CODES_FILE, reduced.vectors)
        progress.finish()
        files.add(CODES_FILE)
    index = open_vector_index(directory, matrix, trees, tree_dimensions, files)
    progress.start("measuring the recall", None, "")
    calibration = choose_plan(index, queries, recall, reduced_scans)
    progress.finish()
    return SearchStructures(trees, tree_dimensions, calibration)


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
