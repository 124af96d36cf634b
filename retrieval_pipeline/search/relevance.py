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

from retrieval_pipeline.index.score_statistics import Background, Noise, Spread, noise_of
from retrieval_pipeline.vectors import Values, Vectors

# Ranks that are judged together; a fixed number, so that a hit is judged the same on every page.
BLOCK = 300


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
