"""What makes a build fast to search: a projection, Annoy's trees, and the plan to use them by.

Growing trees and comparing plans is most of the work on a build. While nearly all items stay, they
are taken over from the build before: its trees, with a note of which items they mean by now, and
other trees for the items that came since, as in a log-structured merge-tree (O'Neil et al., 1996,
doi:10.1007/s002360050048).
"""

import os
import re
import shutil
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from annoy import AnnoyIndex
from pydantic import BaseModel, ConfigDict

from retrieval_pipeline.errors import BuildError, StoreError
from retrieval_pipeline.index.autotune import (
    SMALL,
    Calibration,
    choose_plan,
    measure_again,
    measure_projected,
    prepare_trial,
    with_headroom,
)
from retrieval_pipeline.index.items import one_chunk
from retrieval_pipeline.index.knn import (
    COMPONENTS,
    SCAN,
    Nearest,
    Projection,
    Trees,
    principal_components,
    rows_of,
)
from retrieval_pipeline.index.quantization import Codes, write_codes
from retrieval_pipeline.progress import Progress
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.vectors import Numbers, Vectors

# Builds take over what others have made with these: who changes one raises index.FORMAT.
METRIC: Final = "dot"  # On unit vectors the dot product is the cosine.
TREES = 64
SEED = 20  # Any fixed number: the same vectors give the same file.
# Trees are grown anew when fewer of the items, or of what they hold, are the same.
MOST = 0.9

ANNOY = "vectors.annoy"
NEWCOMERS = "newcomers.annoy"
PLACES = "places.npy"
BASIS = "basis.npy"
PROJECTED = "projected.f32"
CODES = "codes.faiss"


class TreeFacts(BaseModel):
    """How many trees over how many vectors an Annoy file must have."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    trees: int
    vectors: int


@dataclass(frozen=True)
class Structures:
    """What was written for a build.

    Attributes:
        trees: What each Annoy file must be.
        components: Of the vectors in the trees.
        calibration: How to search, and what that finds.
    """

    trees: dict[str, TreeFacts]
    components: int
    calibration: Calibration


@dataclass(frozen=True)
class Former:
    """A build whose structures the next one may take over.

    Attributes:
        directory: Of its files.
        hashes: What each of them must hash to.
        content_ids: Of its items.
        structures: What was written for it.
    """

    directory: Path
    hashes: Mapping[str, str]
    content_ids: pa.ChunkedArray
    structures: Structures


def write_structures(
    directory: Path,
    matrices: Sequence[Vectors],
    texts: Vectors | None,
    recall: float,
    codes: bool,
    progress: Progress,
) -> Structures:
    """Project the vectors, grow trees, and choose the plan that reaches `recall` soonest.

    Raises:
        BuildError: `codes` are wanted, and faiss is not installed.
    """
    count, dim = sum(map(len, matrices)), matrices[0].shape[1]
    np.save(directory / PLACES, np.arange(count, dtype=np.int32))
    if count <= SMALL:
        trees = {ANNOY: _write_trees(directory / ANNOY, matrices, progress)}
        return Structures(trees, dim, Calibration(target=recall, plan=SCAN, recall_at_10=1.0))
    trial = prepare_trial(matrices, texts)
    nearest, measured = Nearest(matrices), []
    if dim > COMPONENTS:
        np.save(directory / BASIS, principal_components(matrices, COMPONENTS))
        nearest = Nearest(matrices, _write_projection(directory, matrices))
        measured = measure_projected(nearest, trial, recall)
    # Trees over a projection that even a scan of it cannot find everything in would not either.
    short = bool(measured) and measured[-1].recall >= with_headroom(recall)
    indexed = [nearest.projection.vectors] if short and nearest.projection else matrices
    components = indexed[0].shape[1]
    trees = {ANNOY: _write_trees(directory / ANNOY, indexed, progress)}
    files = {BASIS, PROJECTED} if nearest.projection else set()
    if codes and nearest.projection:
        _write_codes(directory, nearest.projection, progress)
        files.add(CODES)
    nearest = map_nearest(directory, matrices, trees, components, files)
    progress.start("measuring the recall", None, "")
    calibration = choose_plan(nearest, trial, recall, measured)
    progress.finish()
    return Structures(trees, components, calibration)


def take_over(
    directory: Path,
    matrices: Sequence[Vectors],
    content_ids: pa.Array,
    texts: Vectors | None,
    former: Former,
    progress: Progress,
) -> Structures | None:
    """Use the structures of a build of mostly the same items, measured again.

    Args:
        directory: Where to write, until `write_structures` does.
        matrices: The vectors of the items.
        content_ids: Of the items.
        texts: Vectors of the vocabulary.
        former: The other build, of the same vector space.
        progress: Told about stages.

    Returns:
        None if too little is the same, a file is damaged or too little would be found.
    """
    count, dim = sum(map(len, matrices)), matrices[0].shape[1]
    if not _copy_sound([PLACES], former, directory):
        return None
    places = _places_now(np.load(directory / PLACES), former.content_ids, content_ids)
    newcomers = _missing_from(places, count)
    few = min(count, len(places)) <= SMALL
    if few or count - len(newcomers) < MOST * max(count, len(places)):
        return None
    np.save(directory / PLACES, places)
    files = {ANNOY, BASIS} & former.hashes.keys()
    if not _copy_sound(files, former, directory):
        return None
    projection = None
    if BASIS in files:
        projection = _write_projection(directory, matrices)
        files.add(PROJECTED)
        if CODES in former.hashes:
            _write_codes(directory, projection, progress)
            files.add(CODES)
    components, trees = former.structures.components, {ANNOY: former.structures.trees[ANNOY]}
    if len(newcomers):
        if projection is not None and components < dim:
            vectors = projection.vectors[newcomers]
        else:
            vectors = rows_of(matrices, newcomers)
        trees[NEWCOMERS] = _write_trees(directory / NEWCOMERS, [vectors], progress)
    calibration: Calibration | None = former.structures.calibration
    # The same vectors under other names are found as well as before.
    if len(newcomers) or places.min() < 0:
        nearest = map_nearest(directory, matrices, trees, components, files)
        progress.start("measuring the recall", None, "")
        calibration = measure_again(nearest, texts, former.structures.calibration, newcomers)
        progress.finish()
    if calibration is None:
        (directory / NEWCOMERS).unlink(missing_ok=True)
        return None
    return Structures(trees, components, calibration)


def _copy_sound(names: Iterable[str], former: Former, directory: Path) -> bool:
    """Copy files of another build; tell whether all could be read and are as they must be."""
    try:
        for name in names:
            shutil.copyfile(former.directory / name, directory / name)
            if content_id_of_file(directory / name) != former.hashes[name]:
                return False
    except OSError:
        return False
    return True


def _places_now(places: Numbers, then: pa.ChunkedArray, now: pa.Array) -> Numbers:
    """Return which item each vector is among the content ids of now, -1 for one that is gone."""
    moved = one_chunk(pc.fill_null(pc.index_in(then, value_set=now), -1)).to_numpy()
    return np.where(places < 0, -1, moved[places]).astype(np.int32)


def _missing_from(places: Numbers, items: int) -> Numbers:
    """Return which of so many items are not among `places`, ascending."""
    missing = np.ones(items, np.bool_)
    missing[places[places >= 0]] = False
    return np.flatnonzero(missing)


def map_nearest(
    directory: Path,
    matrices: Sequence[Vectors],
    trees: Mapping[str, TreeFacts],
    components: int,
    files: Collection[str],
) -> Nearest:
    """Map the structures of a build whose files are known to be whole.

    Args:
        directory: Of the files.
        matrices: The full vectors.
        trees: What each Annoy file must be.
        components: Of the vectors in the trees.
        files: The names of those that belong to the build.

    Raises:
        BuildError: A file is not what it must be.
        OSError: A file cannot be opened or mapped.
    """
    count, dim = sum(map(len, matrices)), matrices[0].shape[1]
    projection = _map_projection(directory, count) if {BASIS, PROJECTED} <= set(files) else None
    # Annoy would take another length of vectors for another file, or crash.
    if components not in (dim, projection and projection.basis.shape[1]):
        raise not_as_said(directory / ANNOY)
    places = np.load(directory / PLACES)
    if places.dtype != np.int32 or places.ndim != 1 or places.max(initial=-1) >= count:
        raise not_as_said(directory / PLACES)
    newcomers = _missing_from(places, count)
    numbers = {ANNOY: places} | ({NEWCOMERS: newcomers} if len(newcomers) else {})
    if trees.keys() != numbers.keys():
        raise not_as_said(directory / ANNOY)
    opened = []
    for name, facts in trees.items():
        annoy = AnnoyIndex(components, METRIC)
        try:
            annoy.load(str(file := directory / name))
        except OSError as error:
            # Annoy puts the system's error into the text: "Unable to mmap: No such device (19)".
            if code := re.search(r"\((\d+)\)$", str(error)):
                raise OSError(int(code[1]), os.strerror(int(code[1])), str(file)) from error
            # The file is of another length than vectors of so many components make.
            raise not_as_said(directory / name) from None
        found = TreeFacts(trees=annoy.get_n_trees(), vectors=annoy.get_n_items())
        if found != facts or found.vectors != len(numbers[name]):
            raise not_as_said(directory / name)
        opened.append(Trees(annoy, numbers[name]))
    codes = Codes(directory / CODES) if projection is not None and CODES in files else None
    return Nearest(matrices, projection, opened, components < dim, codes)


def _map_projection(directory: Path, count: int) -> Projection:
    basis = np.load(directory / BASIS)
    shape = (basis.shape[1], count)
    mapped = np.asarray(np.memmap(directory / PROJECTED, np.float32, "r", shape=shape))
    return Projection(basis, mapped.T)


def _write_projection(directory: Path, matrices: Sequence[Vectors]) -> Projection:
    """Write the vectors along the columns of the basis, one component after the other; map them.

    A scan of that order takes two thirds of the time that one item after the other takes.
    """
    basis = np.load(directory / BASIS)
    projected = np.empty((basis.shape[1], sum(map(len, matrices))), np.float32)
    start = 0
    for matrix in matrices:
        short = matrix @ basis
        # A vector at right angles to all components stays what it is: nothing.
        short /= np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-6)
        projected[:, start : start + len(matrix)] = short.T
        start += len(matrix)
    with (directory / PROJECTED).open("wb") as file:
        for component in projected:
            file.write(component.tobytes())
    return _map_projection(directory, start)


def _write_codes(directory: Path, projection: Projection, progress: Progress) -> None:
    progress.start("writing the codes", None, "")
    write_codes(directory / CODES, projection.vectors)
    progress.finish()


def _write_trees(file: Path, matrices: Sequence[Vectors], progress: Progress) -> TreeFacts:
    """Build and save Annoy's trees; return what it says they are.

    In memory, not with on_disk_build: that writes through a mapping, where a full disk is a crash.
    """
    annoy = AnnoyIndex(matrices[0].shape[1], METRIC)
    annoy.set_seed(SEED)
    progress.start("growing the trees", None, "")
    number = 0
    for matrix in matrices:
        for start in range(0, len(matrix), 8_192):
            for vector in matrix[start : start + 8_192].tolist():
                annoy.add_item(number, vector)
                number += 1
    annoy.build(TREES, n_jobs=1)
    if not annoy.save(str(file)):
        raise StoreError(f"{file}: Annoy could not write its file")
    # A fresh load says what every later one must see; of a handful of items Annoy counts other
    # trees than it was asked for.
    annoy.unload()
    annoy.load(str(file))
    progress.finish()
    return TreeFacts(trees=annoy.get_n_trees(), vectors=annoy.get_n_items())


def not_as_said(file: Path) -> BuildError:
    """Return the error of a file that is not what build.json says."""
    return BuildError(f"{file}: not as build.json says: run `retrieval index`")
