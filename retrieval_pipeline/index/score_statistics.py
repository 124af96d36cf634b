"""How the scores of a collection are spread: means and deviations that relevance is judged by."""

from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from retrieval_pipeline.vectors import Values, Vectors

# Pictures and pairs enough to know a mean and a deviation to within a percent.
SAMPLE_PICTURES = 1_000
# Cosine from which on two vectors are of the same picture, which then does not judge itself.
SAME = 0.9999
# What is known of all pictures counts like so many scores on the picture itself.
PRIOR_SCORES = 10


class Spread(BaseModel):
    """Mean and standard deviation of the scores of unrelated pairs."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    mean: float
    deviation: float


class Background(BaseModel):
    """How words (None: the build knows none) and pictures score on a build's pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    words: Spread | None
    pictures: Spread


@dataclass(frozen=True)
class Noise:
    """How unrelated things score on each of n items: float64 (n,) each."""

    mean: Values
    deviation: Values


def measure_background(sample: Vectors, words: Vectors | None) -> Background:
    """Measure how words (m, dim) and a sample of pictures (n, dim) score on that sample."""
    pairs = (sample @ sample.T)[~np.eye(len(sample), dtype=np.bool_)]
    return Background(
        words=None if words is None else spread_of(sample @ words.T),
        # Of a single picture nothing can be learnt: in many dimensions unrelated is orthogonal.
        pictures=spread_of(pairs) if pairs.size else Spread(mean=0.0, deviation=0.1),
    )


def spread_of(scores: Vectors) -> Spread:
    """Return mean and deviation of scores, the latter at least what float32 can tell apart."""
    mean, deviation = float(np.mean(scores, dtype=np.float64)), float(np.std(scores))
    return Spread(mean=round(mean, 6), deviation=max(round(deviation, 6), 1e-6))


def noise_of(items: Vectors, others: Vectors, prior: Spread) -> Noise:
    """Measure how `others` (m, dim) score on each of `items` (n, dim), themselves left out.

    What they say is averaged with `prior`, which matters where they are few.
    """
    cosines = items @ others.T
    other = cosines < SAME
    count = other.sum(axis=1) + PRIOR_SCORES
    mean = (cosines.sum(axis=1, where=other) + PRIOR_SCORES * prior.mean) / count
    squares = np.square(cosines - mean[:, None]).sum(axis=1, where=other)
    deviation = np.sqrt((squares + PRIOR_SCORES * prior.deviation**2) / count)
    return Noise(mean.astype(np.float64), deviation.astype(np.float64))
