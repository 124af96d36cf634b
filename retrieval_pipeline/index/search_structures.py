"""A build's search structures: reduced vectors, Annoy's trees and codes, written, reused or opened.

Growing trees and comparing plans is most of the work on a build, so a build whose items are nearly
those of the previous one reuses what that one grew: its trees, with a note of which item each
vector in them is now, plus delta trees for the items that came since. A log-structured merge-tree
works like this (O'Neil et al., 1996, doi:10.1007/s002360050048).
"""

import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index.ann import TreeFacts, Trees, write_trees
from retrieval_pipeline.index.arrays import load_array
from retrieval_pipeline.index.autotune import (
    SCAN_ONLY_ITEMS,
    Calibration,
    Measurement,
    choose_plan,
    make_sample_queries,
    measure_reduced_scans,
    remeasure,
    with_safety_margin,
)
from retrieval_pipeline.index.knn import SCAN, VectorIndex, rows_of
from retrieval_pipeline.index.quantization import write_codes
from retrieval_pipeline.index.reduction import (
    REDUCED_DIMENSIONS,
    ReducedVectors,
    open_reduced,
    principal_components,
    write_reduced,
)
from retrieval_pipeline.progress import Progress
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.vectors import Numbers, Vectors

# Trees are reused as long as this share of the items, and of the vectors in the trees, is the same.
LEAST_IN_COMMON = 0.9

# Names of the files in a build's directory.
TREES_FILE = "vectors.annoy"
DELTA_TREES_FILE = "newcomers.annoy"
# The item that each vector in TREES_FILE belongs to, int32 (n,); -1 if that item is gone.
ITEM_NUMBERS_FILE = "places.npy"
BASIS_FILE = "basis.npy"
REDUCED_FILE = "projected.f32"
CODES_FILE = "codes.faiss"


@dataclass(frozen=True)
class SearchStructures:
    """What was written into a build's directory for the search.

    Attributes:
        trees: What each Annoy file must hold, by file name.
        tree_dimensions: Number of components of the vectors in the trees.
        calibration: The plan to search by, and what it was chosen from.
    """

    trees: dict[str, TreeFacts]
    tree_dimensions: int
    calibration: Calibration


@dataclass(frozen=True)
class PreviousBuild:
    """A build of the same vector space whose search structures the next one may reuse.

    Attributes:
        directory: Where its files are.
        hashes: The content id that each file must have, by file name.
        row_ids: What identifies each of its rows of vectors, in their order.
        structures: Its search structures.
    """

    directory: Path
    hashes: Mapping[str, str]
    row_ids: pa.Array
    structures: SearchStructures


def write_structures(
    directory: Path,
    matrices: Sequence[Vectors],
    texts: Vectors | None,
    recall: float,
    with_codes: bool,
    progress: Progress,
) -> SearchStructures:
    """Reduce the vectors, grow trees, and choose the fastest plan that finds enough.

    Args:
        directory: Of the new build.
        matrices: The full vectors, float32 (n, dim) each.
        texts: Vectors of the vocabulary, float32 (n, dim), or None.
        recall: The recall at 10 that the plan must reach.
        with_codes: Whether to write codes, and to try them. faiss must be installed.
        progress: Told about stages.

    Raises:
        BuildError: faiss cannot read its own codes.
        StoreError: The trees cannot be written.
    """
    count, dim = sum(map(len, matrices)), matrices[0].shape[1]
    np.save(directory / ITEM_NUMBERS_FILE, np.arange(count, dtype=np.int32))
    if count <= SCAN_ONLY_ITEMS:
        trees = {TREES_FILE: write_trees(directory / TREES_FILE, matrices, progress)}
        calibration = Calibration(target=recall, plan=SCAN, recall_at_10=1.0)
        return SearchStructures(trees, dim, calibration)
    queries = make_sample_queries(matrices, texts)
    indexed, files = matrices, set[str]()
    reduced: ReducedVectors | None = None
    reduced_scans: list[Measurement] = []
    if dim > REDUCED_DIMENSIONS:
        np.save(directory / BASIS_FILE, principal_components(matrices, REDUCED_DIMENSIONS))
        reduced = _write_reduced(directory, matrices)
        files = {BASIS_FILE, REDUCED_FILE}
        reduced_scans = measure_reduced_scans(VectorIndex(matrices, reduced), queries, recall)
        # If even a full scan of the reduced vectors finds too little, trees over them would too:
        # then the trees index the full vectors.
        if reduced_scans[-1].recall >= with_safety_margin(recall):
            indexed = [reduced.vectors]
    tree_dimensions = indexed[0].shape[1]
    trees = {TREES_FILE: write_trees(directory / TREES_FILE, indexed, progress)}
    if with_codes and reduced is not None:
        _write_codes(directory, reduced, progress)
        files.add(CODES_FILE)
    index = open_vector_index(directory, matrices, trees, tree_dimensions, files)
    progress.start("measuring the recall", None, "")
    calibration = choose_plan(index, queries, recall, reduced_scans)
    progress.finish()
    return SearchStructures(trees, tree_dimensions, calibration)


def reuse_structures(
    directory: Path,
    matrices: Sequence[Vectors],
    row_ids: pa.Array,
    texts: Vectors | None,
    previous: PreviousBuild,
    progress: Progress,
) -> SearchStructures | None:
    """Copy the structures of a build of mostly the same items, and measure its plan again.

    Args:
        directory: Of the new build. What is left there if nothing can be reused,
            `write_structures` writes anew.
        matrices: The full vectors of the items, float32 (n, dim) each.
        row_ids: What identifies each row of the vectors, as `views.row_ids` gives it.
        texts: Vectors of the vocabulary, float32 (n, dim), or None.
        previous: The other build, of the same vector space.
        progress: Told about stages.

    Returns:
        None if too few items are the same, a file of the previous build is damaged or unreadable,
        or its plan finds too little with these items.

    Raises:
        BuildError: faiss cannot read its own codes.
        StoreError: The delta trees cannot be written.
    """
    item_numbers = _reusable_item_numbers(directory, previous, row_ids)
    if item_numbers is None:
        return None
    np.save(directory / ITEM_NUMBERS_FILE, item_numbers)
    files = {TREES_FILE, BASIS_FILE} & previous.hashes.keys()
    if not _copy_if_sound(files, previous, directory):
        return None
    reduced = None
    if BASIS_FILE in files:
        reduced = _write_reduced(directory, matrices)
        files.add(REDUCED_FILE)
        if CODES_FILE in previous.hashes:
            _write_codes(directory, reduced, progress)
            files.add(CODES_FILE)
    tree_dimensions = previous.structures.tree_dimensions
    trees = {TREES_FILE: previous.structures.trees[TREES_FILE]}
    new_items = _missing_from(item_numbers, len(row_ids))
    if len(new_items):
        if reduced is not None and tree_dimensions == reduced.dimensions:
            vectors = reduced.vectors[new_items]
        else:
            vectors = rows_of(matrices, new_items)
        trees[DELTA_TREES_FILE] = write_trees(directory / DELTA_TREES_FILE, [vectors], progress)
    calibration: Calibration | None = previous.structures.calibration
    # If items were only renamed or reordered, they are found as well as before.
    if len(new_items) or item_numbers.min() < 0:
        index = open_vector_index(directory, matrices, trees, tree_dimensions, files)
        progress.start("measuring the recall", None, "")
        calibration = remeasure(index, texts, previous.structures.calibration, new_items)
        progress.finish()
    if calibration is None:
        (directory / DELTA_TREES_FILE).unlink(missing_ok=True)
        return None
    return SearchStructures(trees, tree_dimensions, calibration)


def open_vector_index(
    directory: Path,
    matrices: Sequence[Vectors],
    trees: Mapping[str, TreeFacts],
    tree_dimensions: int,
    files: Collection[str],
) -> VectorIndex:
    """Map the structures of a build into memory. The caller knows that the files are whole.

    Args:
        directory: Of the build.
        matrices: The full vectors, float32 (n, dim) each.
        trees: What each Annoy file must hold, by file name.
        tree_dimensions: Number of components of the vectors in the trees.
        files: The names of the files that belong to the build.

    Raises:
        BuildError: A file is not what build.json says.
    """
    count, dim = sum(map(len, matrices)), matrices[0].shape[1]
    reduced = None
    if {BASIS_FILE, REDUCED_FILE} <= set(files):
        reduced = open_reduced(directory / BASIS_FILE, directory / REDUCED_FILE, count)
    # With another number of components Annoy would misread its file, or crash.
    fits = reduced is None or len(reduced.basis) == dim
    if not fits or tree_dimensions not in (dim, reduced and reduced.dimensions):
        raise build_json_mismatch(directory / TREES_FILE)
    item_numbers = load_array(directory / ITEM_NUMBERS_FILE, np.int32, (None,))
    if item_numbers.max(initial=-1) >= count:
        raise build_json_mismatch(directory / ITEM_NUMBERS_FILE)
    indexed = {TREES_FILE: item_numbers}
    new_items = _missing_from(item_numbers, count)
    if len(new_items):
        indexed[DELTA_TREES_FILE] = new_items
    if trees.keys() != indexed.keys():
        raise build_json_mismatch(directory / TREES_FILE)
    return VectorIndex(
        matrices,
        reduced,
        [
            _open_trees(directory / name, tree_dimensions, facts, indexed[name])
            for name, facts in trees.items()
        ],
        trees_are_reduced=tree_dimensions < dim,
        codes_file=directory / CODES_FILE if reduced is not None and CODES_FILE in files else None,
    )


def _open_trees(file: Path, dim: int, facts: TreeFacts, item_numbers: Numbers) -> Trees:
    try:
        trees = Trees.open(file, dim, item_numbers)
    except OSError as error:
        # Annoy puts the system's error into the text: "Unable to mmap: No such device (19)".
        if code := re.fullmatch(r"Unable to .*\((\d+)\)", str(error)):
            raise OSError(int(code[1]), os.strerror(int(code[1])), str(file)) from error
        # The file is of another length than vectors of so many components make.
        raise build_json_mismatch(file) from None
    if trees.facts != facts or facts.vectors != len(item_numbers):
        raise build_json_mismatch(file)
    return trees


def build_json_mismatch(file: Path) -> BuildError:
    """Return the error that a file of a build is not what its build.json says."""
    return BuildError(f"{file}: not as build.json says: run `retrieval index`")


def _reusable_item_numbers(
    directory: Path, previous: PreviousBuild, row_ids: pa.Array
) -> Numbers | None:
    """Return which item of this build each vector in the previous one's trees belongs to.

    The result is int32 (vectors,), with -1 for items that are gone. It is None if too few items are
    the same, or if the previous build's item numbers are damaged or unreadable.
    """
    if not _copy_if_sound([ITEM_NUMBERS_FILE], previous, directory):
        return None
    then = np.load(directory / ITEM_NUMBERS_FILE)
    now = _renumbered(then, previous.row_ids, row_ids)
    count = len(row_ids)
    in_common = count - len(_missing_from(now, count))
    few = min(count, len(now)) <= SCAN_ONLY_ITEMS
    if few or in_common < LEAST_IN_COMMON * max(count, len(now)):
        return None
    return now


def _copy_if_sound(names: Iterable[str], previous: PreviousBuild, directory: Path) -> bool:
    """Copy files of the previous build; tell whether all could be read and have their hashes."""
    try:
        for name in names:
            shutil.copyfile(previous.directory / name, directory / name)
            if content_id_of_file(directory / name) != previous.hashes[name]:
                return False
    except OSError:
        return False
    return True


def _renumbered(item_numbers: Numbers, then: pa.Array, now: pa.Array) -> Numbers:
    """Replace item numbers of the previous build by those of the same items in this one.

    Args:
        item_numbers: For each vector in the trees, its item in the previous build; -1 for none.
        then: What identifies the rows of the previous build.
        now: What identifies the rows of this build.

    Returns:
        For each vector in the trees, its item in this build, int32; -1 for none.
    """
    moved = pc.fill_null(pc.index_in(then, value_set=now), -1).to_numpy()
    return np.where(item_numbers < 0, -1, moved[item_numbers]).astype(np.int32)


def _missing_from(item_numbers: Numbers, items: int) -> Numbers:
    """Return the numbers from 0 to `items` - 1 that are not in `item_numbers`, ascending."""
    missing = np.ones(items, np.bool_)
    missing[item_numbers[item_numbers >= 0]] = False
    return np.flatnonzero(missing)


def _write_reduced(directory: Path, matrices: Sequence[Vectors]) -> ReducedVectors:
    return write_reduced(directory / BASIS_FILE, directory / REDUCED_FILE, matrices)


def _write_codes(directory: Path, reduced: ReducedVectors, progress: Progress) -> None:
    progress.start("writing the codes", None, "")
    write_codes(directory / CODES_FILE, reduced.vectors)
    progress.finish()
