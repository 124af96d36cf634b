"""What a query asks for, as vectors."""

from dataclasses import dataclass

import numpy as np

from retrieval_pipeline.index.items import Location as Location
from retrieval_pipeline.search.query import Query as Query
from retrieval_pipeline.search.relevance import Mixture
from retrieval_pipeline.vectors import Vectors


@dataclass(frozen=True)
class Meaning:
    """A query as vectors: towards `wanted` (dim,), away from each row of `unwanted` (n, dim).

    An item loses, for each unwanted thing, `weights` times that by which its cosine with the thing
    exceeds that of unrelated pairs. A difference of vectors would also reward what is
    as unlike the thing as possible, whether it shows what is wanted or not.

    Attributes:
        wanted: The sum of the wanted parts, unit length.
        unwanted: One unit vector each.
        weights: Of the unwanted, float32 (n,).
        mixture: What `wanted` was added up from.
    """

    wanted: Vectors
    unwanted: Vectors
    weights: Vectors
    mixture: Mixture

    @property
    def vectors(self) -> Vectors:
        """All vectors, float32 (1 + n, dim)."""
        return np.concatenate([self.wanted[None], self.unwanted])

    def scores(self, cosines: Vectors) -> Vectors:
        """Return the scores of items, (m,), from their cosines with `vectors`, (m, 1 + n)."""
        surplus = np.maximum(cosines[:, 1:] - np.float32(self.mixture.unrelated.mean), 0)
        scores: Vectors = cosines[:, 0] - surplus @ self.weights
        return scores
