"""Reduced vectors: those of a collection along its principal components, for a faster search.

They only propose candidates; the full vectors decide (see `knn`). The map of the collection has a
reduction of its own, to three dimensions, in `latent_map.pca`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index.arrays import load_array
from retrieval_pipeline.index.matrices import Matrix, in_float32
from retrieval_pipeline.vectors import Vectors

# At a million items, a scan of so many components reads a sixth of what 768 dimensions take, and
# Annoy's file is a sixth as large.
REDUCED_DIMENSIONS = 128
# How many vectors the basis is computed from: its directions settle well below this number.
BASIS_ROWS = 100_000
# Rows that are converted and multiplied at a time.
BATCH_ROWS = 8_192


@dataclass(frozen=True)
class ReducedVectors:
    """The vectors of all items along the principal components of their collection.

    Attributes:
        basis: The components as orthonormal columns, float32 (dim, reduced dimensions).
        vectors: The reduced vectors, each scaled to unit length, float32 (items, reduced
            dimensions); in memory, one component of all items follows the other.
    """

    basis: Vectors
    vectors: Vectors

    @property
    def dimensions(self) -> int:
        """Number of components of a reduced vector."""
        return int(self.basis.shape[1])

    def reduce(self, vector: Vectors) -> Vectors:
        """Return a query (dim,) along the basis, float32 (reduced dimensions,).

        It is not scaled to unit length: that would not change the order of its scores.
        """
        reduced: Vectors = vector @ self.basis
        return reduced


def principal_components(matrices: Sequence[Matrix], count: int) -> Vectors:
    """Return the directions that hold most of the vectors' length, float32 (dim, count).

    They are the eigenvectors of the second moment, not of the covariance: the search needs inner
    products to be kept, not differences (Eckart and Young, 1936, doi:10.1007/BF02288367).

    Args:
        matrices: The vectors, float16 or float32 (n, dim) each.
        count: How many directions to return, at most dim.
    """
    step = -(-sum(map(len, matrices)) // BASIS_ROWS)
    dim = matrices[0].shape[1]
    moment = np.zeros((dim, dim))
    for matrix in matrices:
        for rows in in_float32([matrix[::step]], BATCH_ROWS):
            moment += rows.T @ rows
    directions = np.linalg.eigh(moment)[1]
    return np.ascontiguousarray(directions[:, : -count - 1 : -1], np.float32)


def write_reduced(basis_file: Path, file: Path, matrices: Sequence[Matrix]) -> ReducedVectors:
    """Write the reduced vectors of `matrices` to `file`, and open them.

    Component after component, not item after item: a scan in this order takes two thirds of the
    time.

    Args:
        basis_file: The basis, saved by `numpy.save`.
        file: What to write: raw float32 (reduced dimensions, items).
        matrices: The vectors, float16 or float32 (n, dim) each.
    """
    basis = load_array(basis_file, np.float32, (None, None))
    reduced = np.empty((basis.shape[1], sum(map(len, matrices))), np.float32)
    start = 0
    for rows in in_float32(matrices, BATCH_ROWS):
        short = rows @ basis
        # A vector at right angles to all components stays zero.
        short /= np.maximum(np.linalg.norm(short, axis=1, keepdims=True), 1e-6)
        reduced[:, start : start + len(rows)] = short.T
        start += len(rows)
    with file.open("wb") as handle:
        for component in reduced:
            handle.write(component.tobytes())
    return open_reduced(basis_file, file, start)


def open_reduced(basis_file: Path, file: Path, items: int) -> ReducedVectors:
    """Map the reduced vectors of so many items, written by `write_reduced`, into memory.

    Raises:
        BuildError: A file does not hold what `write_reduced` wrote.
    """
    basis = load_array(basis_file, np.float32, (None, None))
    shape = (basis.shape[1], items)
    if file.stat().st_size != 4 * shape[0] * shape[1]:
        raise BuildError(f"{file}: does not fit {basis_file.name}: run `retrieval index`")
    mapped = np.asarray(np.memmap(file, np.float32, "r", shape=shape))
    return ReducedVectors(basis, mapped.T)
