"""How sure it is that a hit has to do with its query: its score against those of unrelated things.

A raw cosine says little: CLIP gives a text and a picture that match 0.25 and two that do not 0.15,
and some pictures are close to all words. So a score is compared with the scores that other words
(of the vocabulary), or other pictures, have on the same picture. Speaker verification calls it test
normalisation (Auckenthaler et al., 2000, doi:10.1006/dspr.1999.0360). It needs no other pictures,
so that it works in a collection of ten as in one of a million.
"""

import functools
import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from retrieval_pipeline.vectors import Vectors

# Pictures and pairs enough to know a mean and a deviation to within a percent.
SAMPLE_PICTURES = 1_000
# Ranks that are judged together; a fixed number, so that a hit is judged the same on every page.
BLOCK = 300
# Cosine from which on two vectors are of the same picture, which then does not judge itself.
SAME = 0.9999
# What is known of all pictures counts like so many scores on the picture itself.
PRIOR_SCORES = 10

Values = npt.NDArray[np.float64]


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


class Judge:
    """Tells how far the scores of pictures lie above those that unrelated queries have on them."""

    def __init__(self, sample: Vectors, words: Vectors | None, background: Background) -> None:
        """Judge by a sample of pictures, float32 (n, dim), and words (m, dim), or None."""
        self._sample = sample
        self._words = words
        self._background = background

    def surplus(self, scores: Vectors, items: Vectors, mixture: Mixture) -> Values:
        """Return by how many deviations the scores (n,) of items (n, dim) exceed the expected."""
        words = self._noise_of_words(items) if mixture.words else None
        pictures = self._noise_of_pictures(items) if mixture.pictures else None
        return _standardised(scores, mixture, words, pictures)

    def surplus_of_sample(self, scores: Vectors, mixture: Mixture) -> Values:
        """Return the same for the sample."""
        words = self._words_on_sample if mixture.words else None
        pictures = self._pictures_on_sample if mixture.pictures else None
        return _standardised(scores, mixture, words, pictures)

    def _noise_of_words(self, items: Vectors) -> Noise | None:
        if self._words is None or self._background.words is None:
            return None
        return noise_of(items, self._words, self._background.words)

    def _noise_of_pictures(self, items: Vectors) -> Noise:
        return noise_of(items, self._sample, self._background.pictures)

    @functools.cached_property
    def _words_on_sample(self) -> Noise | None:
        return self._noise_of_words(self._sample)

    @functools.cached_property
    def _pictures_on_sample(self) -> Noise:
        return self._noise_of_pictures(self._sample)


def _standardised(
    scores: Vectors, mixture: Mixture, words: Noise | None, pictures: Noise | None
) -> Values:
    """Subtract the mean of a weighted sum of independent scores, and divide by its deviation."""
    unrelated = mixture.unrelated
    words = words or Noise(np.array(unrelated.mean), np.array(unrelated.deviation))
    mean = sum(mixture.words) * words.mean
    variance = np.square(mixture.words).sum() * np.square(words.deviation)
    if pictures is not None:
        mean = mean + sum(mixture.pictures) * pictures.mean
        variance = variance + np.square(mixture.pictures).sum() * np.square(pictures.deviation)
    surplus: Values = (scores - mean) / np.sqrt(variance)
    return surplus


def relevance_of(surplus: Values, items: int, sample: Values) -> Values:
    """Return the relevance, 0..1, of ranked hits (n,).

    The share of the hits with at least this surplus that is expected to be related: one minus the
    false discovery rate (Storey, 2002, doi:10.1111/1467-9868.00346). Of `items` unrelated pictures,
    `items` times the normal tail at z reach a surplus of z. If that is as many as there are with
    that surplus, they mean nothing; if it is a tenth, nine out of ten are meant. How many there are
    is counted among the hits, and estimated for all items from a `sample` of their surpluses.
    """
    relevance = np.empty(len(surplus))
    ascending = np.sort(sample)
    for start in range(0, len(surplus), BLOCK):
        block = surplus[start : start + BLOCK]
        order = np.argsort(-block, kind="stable")
        best = block[order]
        tail = np.array([0.5 * math.erfc(value / math.sqrt(2)) for value in best.tolist()])
        above = len(ascending) - np.searchsorted(ascending, best)
        there = np.maximum(items * above / max(len(ascending), 1), np.arange(1, len(best) + 1))
        rate = np.minimum(items * tail / there, 1)
        # A hit is as good as the best cut at or below it (the q-value).
        relevance[start + order] = 1 - np.minimum.accumulate(rate[::-1])[::-1]
    return relevance
