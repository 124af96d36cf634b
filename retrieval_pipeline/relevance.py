"""How sure it is that a hit has to do with its query: scores against those of unrelated pairs.

A raw cosine says little: CLIP gives a text and a picture that match 0.25 and two that do not 0.15.
So each build records how the words of the vocabulary score on a sample of its pictures, and how
pictures score on each other. Nearly all of these pairs are unrelated, which makes them the null
distribution, taken as normal, of the scores of a query.
"""

import math

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from retrieval_pipeline.vectors import Vectors

# Pictures and pairs enough to know a mean and a deviation to within a percent.
SAMPLE_PICTURES = 1_000
# Ranks that are judged together; a fixed number, so that a hit is judged the same on every page.
BLOCK = 300


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


def relevance_of(scores: Vectors, background: Spread, items: int) -> npt.NDArray[np.float64]:
    """Return the relevance, 0..1 and never rising, of ranked scores (n,).

    The share of the hits down to this rank that is expected to be related: one minus the false
    discovery rate (Storey, 2002, doi:10.1111/1467-9868.00346). Of `items` unrelated pictures, a
    score s is reached by `items` times the normal tail at s. If that is as many as there are hits
    down to s, they mean nothing; if it is a tenth, nine out of ten are meant.
    """
    tail = np.array(
        [
            0.5 * math.erfc((score - background.mean) / background.deviation / math.sqrt(2))
            for score in scores.tolist()
        ]
    )
    rate = items * tail / np.arange(1, len(scores) + 1)
    for start in range(0, len(rate), BLOCK):
        block = rate[start : start + BLOCK]
        # A hit is as good as the best cut at or below it (the q-value).
        block[:] = np.minimum.accumulate(block[::-1])[::-1]
    relevance: npt.NDArray[np.float64] = np.minimum.accumulate(1 - np.minimum(rate, 1))
    return relevance
