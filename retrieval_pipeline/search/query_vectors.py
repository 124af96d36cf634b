"""A query as vectors, and what they say of items. Knows no index."""

from dataclasses import dataclass

import numpy as np

from retrieval_pipeline.index.score_statistics import Spread
from retrieval_pipeline.vectors import Vectors

# Surplus, in standard deviations, up to which a picture does not show a thing. Of pictures without
# the thing fewer than one in a hundred exceeds it (docs/benchmarks.md, "Something unwanted").
SHOWN_FROM = 2.0


@dataclass(frozen=True)
class Mixture:
    """What a query was added up from: the weight of each of its words and pictures.

    Attributes:
        words: A weight for each text.
        pictures: A weight for each picture.
        unrelated: How words score on unrelated pictures.
    """

    words: tuple[float, ...]
    pictures: tuple[float, ...]
    unrelated: Spread


@dataclass(frozen=True)
class QueryVectors:
    """A query as vectors: towards `wanted`, away from each row of `unwanted`.

    An unwanted thing lowers the score of the items that show it and leaves the others where they
    are. Whether an item shows it is told by its surplus: by how many standard deviations the thing
    fits the item better than the vocabulary's words do on average. Subtracting the thing's vector
    from the query would also reward items for being unlike the thing, whether they show what is
    wanted or not.

    Attributes:
        wanted: The sum of the wanted parts, each without what is typical of its kind if there are
            several; float32 (dim,), unit length.
        parts: The wanted parts, one unit vector each: words first, then pictures; float32 (p, dim).
        unwanted: One unit vector each, float32 (n, dim).
        weights: Of the unwanted, float32 (n,).
        mixture: What `wanted` was added up from.
        typical: The mean of the vocabulary's vectors, float32 (dim,); None if the index has none.
            Its product with an item is the mean score of words on the item.
    """

    wanted: Vectors
    parts: Vectors
    unwanted: Vectors
    weights: Vectors
    mixture: Mixture
    typical: Vectors | None = None

    @property
    def vectors(self) -> Vectors:
        """All that scores are made of, float32 (m, dim): wanted, unwanted, and what is typical."""
        needed = [] if self.typical is None or not len(self.unwanted) else [self.typical[None]]
        return np.concatenate([self.wanted[None], self.unwanted, *needed])

    def scores(self, cosines: Vectors) -> Vectors:
        """Return the scores of items, (n,), from their products with `vectors`, (n, m).

        What shows an unwanted thing is lowered by twice as much as the thing fits it better than
        words do on average, times the weight of the thing. Twice, so that a picture that shows both
        what is wanted and what is not falls below those that show only a part of what is wanted.
        """
        if not len(self.unwanted):
            return cosines[:, 0]
        surplus = self._surplus(cosines)
        twice = np.float32(2 * self.mixture.unrelated.deviation)
        lowered: Vectors = _shown(surplus) * surplus * twice
        scores: Vectors = cosines[:, 0] - lowered @ self.weights
        return scores

    def unwanted_shown(self, cosines: Vectors) -> Vectors:
        """Return how far items show something unwanted, 0 (not) to 1, float32 (n,).

        The items are given by their products with `vectors`, (n, m).
        """
        if not len(self.unwanted):
            return np.zeros(len(cosines), np.float32)
        shown: Vectors = _shown(self._surplus(cosines)).max(axis=1)
        return shown

    def _surplus(self, cosines: Vectors) -> Vectors:
        """Return the surplus of each unwanted thing, in standard deviations, float32 (n, u)."""
        unrelated = self.mixture.unrelated
        mean = np.float32(unrelated.mean) if self.typical is None else cosines[:, -1:]
        surplus: Vectors = (cosines[:, 1 : 1 + len(self.unwanted)] - mean) / np.float32(
            unrelated.deviation
        )
        return surplus


def _shown(surplus: Vectors) -> Vectors:
    """Return how far a thing is shown, 0 to 1, by its surplus in standard deviations.

    Not at all up to SHOWN_FROM, and certainly from one standard deviation more.
    """
    shown: Vectors = np.clip(surplus - np.float32(SHOWN_FROM), 0, 1)
    return shown
