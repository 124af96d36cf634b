"""Vectors: float32, finite, of unit length, and each in one named vector space."""

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.errors import VectorError

Vectors = npt.NDArray[np.float32]
# Indices of items in a build, or of rows.
Numbers = npt.NDArray[np.int64]
# One bool for each item or row.
Flags = npt.NDArray[np.bool_]
# Float64, for scores.
Values = npt.NDArray[np.float64]
# n texts -> vectors, float32 (n, dim), of unit length.
EncodeTexts = Callable[[Sequence[str]], Vectors]

UNIT_TOLERANCE = 1e-3


@dataclass(frozen=True)
class VectorSpace:
    """Two vectors can be compared only if they have the same vector space.

    Attributes:
        model: Name of the encoder, as in the settings.
        revision: Identifies its weights: a hub commit, a hash of local files, or package versions.
        dim: Number of components of each vector.
        preprocessing: Fingerprint of how an image becomes the encoder's input.
    """

    model: str
    revision: str
    dim: int
    preprocessing: str

    @property
    def key(self) -> str:
        """Directory name: the model's name and a hash of all four attributes."""
        slug = re.sub(r"[^A-Za-z0-9_.-]+", "--", self.model).strip("-.")[-80:] or "model"
        identity = "\0".join((self.model, self.revision, str(self.dim), self.preprocessing))
        return f"{slug}@{hashlib.sha256(identity.encode()).hexdigest()[:8]}"


def normalise(vectors: npt.NDArray[np.floating]) -> Vectors:
    """Return the rows of `vectors` (n, d), or one vector (d,), at unit length: float32 (n, d).

    Raises:
        VectorError: A row is zero or not finite, so that it has no direction.
    """
    rows = np.atleast_2d(np.asarray(vectors, dtype=np.float32))
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    bad = ~np.isfinite(lengths[:, 0]) | (lengths[:, 0] <= 0)
    if bad.any():
        raise VectorError(
            f"vector {int(np.argmax(bad))} is zero or not finite: it has no direction"
        )
    unit: Vectors = rows / lengths
    return unit


def check_vectors(vectors: npt.NDArray[np.floating], dim: int, what: str = "vector") -> Vectors:
    """Return `vectors` as float32 (n, dim) if each row is finite and of unit length.

    The length may differ from 1 by UNIT_TOLERANCE.

    Raises:
        VectorError: The shape is another, or a row is not; the message names the first such row,
            as `what` and its number.
    """
    rows = np.asarray(vectors, dtype=np.float32)
    if rows.ndim != 2 or rows.shape[1] != dim:
        raise VectorError(f"{what}: expected the shape (n, {dim}), found {rows.shape}")
    lengths = np.linalg.norm(rows, axis=1)
    bad = ~(np.abs(lengths - 1) <= UNIT_TOLERANCE)
    if bad.any():
        row = int(np.argmax(bad))
        raise VectorError(f"{what} {row} has length {lengths[row]:.4g}, not 1: refused")
    return rows
