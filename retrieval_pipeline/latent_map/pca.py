"""The PCA basis of a map: fitted in bounded memory, and turned to lie as the last map did.

A map has three coordinates; pictures and pages in two dimensions show the first two.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.errors import MapError
from retrieval_pipeline.vectors import Vectors, check_vectors

COMPONENTS = 3
# Two points always lie on a line: below this there is nothing to see.
SMALLEST_MAP = 3
# Turning the map towards the former one may cost its first two axes this share of their variance.
ALIGNMENT_COST = 0.05

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Basis:
    """Orthonormal axes through the mean of the vectors.

    Attributes:
        mean: float64 (dim,), the origin.
        components: float64 (COMPONENTS, dim), a row an axis.
        explained: float64 (COMPONENTS,), share of the total variance along each axis, 0 to 1.
    """

    mean: Matrix
    components: Matrix
    explained: Matrix

    def project(self, vectors: Vectors) -> Vectors:
        """Return the coordinates, float32 (n, COMPONENTS), of vectors (n, dim)."""
        axes = self.components.T.astype(np.float32)
        offset = (self.mean @ self.components.T).astype(np.float32)
        coordinates: Vectors = vectors @ axes - offset
        return coordinates

    def turned(self, rotation: Matrix) -> "Basis":
        """Return the basis whose coordinates are this one's times `rotation` (orthogonal)."""
        return replace(
            self,
            components=rotation.T @ self.components,
            # Along the principal axes the covariance is diagonal.
            explained=np.square(rotation).T @ self.explained,
        )


def fit_basis(batches: Iterable[Vectors], dim: int) -> Basis:
    """Fit the principal axes of unit vectors that come in batches, float32 (n, dim) each.

    The covariance is summed up batch by batch, so that memory grows with `dim` squared and not
    with the number of vectors; its eigenvectors are those of scikit-learn's exact PCA. Each axis
    points where its largest loading is positive.

    Raises:
        MapError: There are fewer than SMALLEST_MAP vectors.
        VectorError: One of them is not finite or not of unit length.
    """
    count = 0
    total = np.zeros(dim)
    products = np.zeros((dim, dim))
    shift: Vectors | None = None
    for batch in batches:
        vectors = check_vectors(batch, dim, "vector of the map")
        # Sums around a point near the mean lose no digits to it.
        shift = vectors.mean(axis=0) if shift is None else shift
        centred = vectors - shift
        count += len(vectors)
        total += centred.sum(axis=0, dtype=np.float64)
        products += centred.T @ centred
    if shift is None or count < SMALLEST_MAP:
        raise MapError(f"a map needs at least {SMALLEST_MAP} images; here are {count}")
    offset = total / count
    covariance = products / count - np.outer(offset, offset)
    variances, axes = np.linalg.eigh(covariance)
    order = np.argsort(-variances, kind="stable")[:COMPONENTS]
    components = axes[:, order].T
    largest = np.argmax(np.abs(components), axis=1)
    components *= np.sign(components[np.arange(len(components)), largest])[:, None]
    everything = max(float(np.trace(covariance)), np.finfo(np.float64).tiny)
    return Basis(
        mean=shift + offset,
        components=components,
        explained=np.maximum(variances[order], 0) / everything,
    )


def alignment(explained: Matrix, now: Vectors, before: Vectors) -> Matrix:
    """Return the rotation (or reflection) that brings coordinates nearest to their former places.

    Orthogonal Procrustes (Schoenemann 1966) on the images that both maps hold. Where variances are
    nearly equal, a little new data turns the principal axes freely among themselves, and the
    rotation turns them back. A rotation in three dimensions mixes the third axis into the first
    two, which then show less variance; it is taken if that costs them at most ALIGNMENT_COST.
    Otherwise the rotation stays in the plane of the first two axes, which costs them nothing.

    Args:
        explained: float64 (COMPONENTS,), variance along each axis of `now`.
        now: float32 (n, COMPONENTS), along principal axes.
        before: float32 (n, COMPONENTS), the same images in the former map.

    Returns:
        float64 (COMPONENTS, COMPONENTS), orthogonal; multiply coordinates by it from the right.
    """
    from scipy.linalg import orthogonal_procrustes

    here = now.astype(np.float64) - now.mean(axis=0, dtype=np.float64)
    there = before.astype(np.float64) - before.mean(axis=0, dtype=np.float64)
    free, _ = orthogonal_procrustes(here, there)
    kept = (np.square(free).T @ explained)[:2].sum()
    if kept >= (1 - ALIGNMENT_COST) * explained[:2].sum():
        return np.asarray(free)
    rotation = np.eye(COMPONENTS)
    rotation[:2, :2], _ = orthogonal_procrustes(here[:, :2], there[:, :2])
    rotation[2, 2] = 1 if here[:, 2] @ there[:, 2] >= 0 else -1
    return rotation


def drift(now: Vectors, before: Vectors) -> float:
    """Return how far images moved between two maps, as a share of the former map's size.

    Root mean square of the moves in the first two coordinates, over the root mean square distance
    of the former places from their mean: 0 is unmoved, and two unrelated maps come out above 1.

    Args:
        now: float32 (n, 2 or more), coordinates of the images that both maps hold.
        before: float32 (n, 2 or more), coordinates of the same images in the former map.
    """
    here, there = now[:, :2].astype(np.float64), before[:, :2].astype(np.float64)
    moved = np.square(here - there).sum(axis=1).mean()
    size = np.square(there - there.mean(axis=0)).sum(axis=1).mean()
    return float(np.sqrt(moved / max(size, np.finfo(np.float64).tiny)))
