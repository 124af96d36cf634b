"""How unrelated texts and pictures score: the means and deviations that relevance is judged by.

A score is the cosine of two vectors. `search.relevance` compares a query's scores with these.
"""

from dataclasses import dataclass

import numpy as np

from retrieval_pipeline.storage.stored_model import StoredModel
from retrieval_pipeline.vectors import Values, Vectors

# Their pairs are enough to know a mean and a deviation to within a percent.
SAMPLE_PICTURES = 1_000
# From this cosine on, two vectors are of the same picture, or the same text: it is not unrelated to
# itself.
SAME_PICTURE_COSINE = 0.9999
# The mean and deviation over all pictures count as much as so many scores on one picture.
PRIOR_SCORES = 10


class Spread(StoredModel):
    """Mean and standard deviation of the scores of unrelated pairs."""

    mean: float
    deviation: float


class Background(StoredModel):
    """How unrelated things score on a build's pictures.

    Attributes:
        words: The scores of the vocabulary; None if the build has no vectors of it.
        pictures: The scores of other pictures.
    """

    words: Spread | None
    pictures: Spread


@dataclass(frozen=True)
class Noise:
    """How unrelated things score on each of n items.

    Attributes:
        mean: Mean of their scores, float64 (n,).
        deviation: Standard deviation of their scores, float64 (n,).
    """

    mean: Values
    deviation: Values


def measure_background(sample: Vectors, words: Vectors | None) -> Background:
    """Measure how unrelated things score on a sample of pictures.

    Args:
        sample: Vectors of the pictures, float32 (n, dim).
        words: Vectors of words, float32 (m, dim), or None.
    """
    pairs = (sample @ sample.T)[~np.eye(len(sample), dtype=np.bool_)]
    return Background(
        words=None if words is None else spread_of(sample @ words.T),
        # A single picture makes no pairs. With many dimensions, unrelated is nearly orthogonal.
        pictures=spread_of(pairs) if pairs.size else Spread(mean=0.0, deviation=0.1),
    )


def spread_of(scores: Vectors) -> Spread:
    """Return the mean and standard deviation of scores, rounded to six decimals.

    The deviation is at least 1e-6, about what float32 can tell apart.
    """
    mean, deviation = float(np.mean(scores, dtype=np.float64)), float(np.std(scores))
    return Spread(mean=round(mean, 6), deviation=max(round(deviation, 6), 1e-6))


def noise_of(items: Vectors, others: Vectors, prior: Spread) -> Noise:
    """Measure how other things score on each item; the item itself, if among them, is left out.

    Args:
        items: Vectors of the items, float32 (n, dim).
        others: Vectors of the other things, float32 (m, dim).
        prior: The scores on all pictures. It is averaged in with the weight of PRIOR_SCORES scores,
            which matters if there are few others.
    """
    cosines = items @ others.T
    other = cosines < SAME_PICTURE_COSINE
    count = other.sum(axis=1) + PRIOR_SCORES
    mean = (cosines.sum(axis=1, where=other) + PRIOR_SCORES * prior.mean) / count
    squares = np.square(cosines - mean[:, None]).sum(axis=1, where=other)
    deviation = np.sqrt((squares + PRIOR_SCORES * prior.deviation**2) / count)
    return Noise(mean.astype(np.float64), deviation.astype(np.float64))
