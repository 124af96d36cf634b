"""How sure it is that a hit has to do with its query: its score against those of unrelated things.

A raw cosine says little: CLIP gives a text and a picture that match 0.25 and two that do not 0.15,
and some pictures are close to all words. So a score is compared with the scores that other words
(of the vocabulary), or other pictures, have on the same picture. Speaker verification calls it test
normalisation (Auckenthaler et al., 2000, doi:10.1006/dspr.1999.0360). It needs no other pictures,
so that it works in a collection of ten as in one of a million.
"""

import functools
import math

import numpy as np

from retrieval_pipeline.index.build import Build
from retrieval_pipeline.index.score_statistics import Background, Noise, noise_of
from retrieval_pipeline.search.query_vectors import Mixture, QueryVectors
from retrieval_pipeline.search.ranking import Ranking
from retrieval_pipeline.vectors import Flags, Numbers, Values, Vectors

# Ranks that are judged together; a fixed number, so that a hit is judged the same on every page.
JUDGED_TOGETHER = 300
# Hits whose vectors are in memory at a time while they are judged: 10 MB at 768 dimensions.
ROWS_IN_MEMORY = 10 * JUDGED_TOGETHER


class Judge:
    """Tells how far the scores of pictures lie above those that unrelated queries have on them."""

    def __init__(self, sample: Vectors, words: Vectors | None, background: Background) -> None:
        """Judge by a sample of pictures, float32 (n, dim), and words (m, dim), or None."""
        self._sample = sample
        self._words = words
        self._background = background

    def surplus(self, scores: Vectors, items: Vectors, mixture: Mixture) -> Values:
        """Return by how many standard deviations scores exceed those of unrelated queries.

        Args:
            scores: Of each item with the query, float32 (n,).
            items: Their vectors, float32 (n, dim).
            mixture: What the query was added up from.

        Returns:
            float64 (n,).
        """
        words = self._noise_of_words(items) if mixture.words else None
        pictures = self._noise_of_pictures(items) if mixture.pictures else None
        return _standardised(scores, mixture, words, pictures)

    def surplus_of_sample(self, scores: Vectors, mixture: Mixture) -> Values:
        """Return what `surplus` does for the items of the sample, whose scores are given (n,)."""
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


class RankingJudge:
    """Judges the rankings of a build."""

    def __init__(self, build: Build) -> None:
        self._build = build

    @functools.cached_property
    def _judge(self) -> Judge:
        build = self._build
        return Judge(build.sample, build.vocabulary, build.info.background)

    def relevance(
        self, query_vectors: QueryVectors, ranking: Ranking, allowed: Flags | None
    ) -> Values:
        """Return the relevance of each hit of a ranking, float64 (n,), 0 to 1.

        Args:
            query_vectors: What was ranked by.
            ranking: The hits.
            allowed: The items that were ranked, bool (items,), or None for all.
        """
        build, mixture = self._build, query_vectors.mixture
        scores = query_vectors.scores(build.sample @ query_vectors.vectors.T)
        sample = self._judge.surplus_of_sample(scores, mixture)
        if allowed is not None:
            sample = sample[allowed[build.sample_numbers]]
        surplus = [np.empty(0)]
        for start in range(0, len(ranking.numbers), ROWS_IN_MEMORY):
            rows = slice(start, start + ROWS_IN_MEMORY)
            items = build.vectors(ranking.rows[rows])
            surplus.append(self._judge.surplus(ranking.scores[rows], items, mixture))
        return relevance_of(np.concatenate(surplus), ranking.among_rows, sample)


def ranks_to_judge(count: int) -> int:
    """Return how many ranks to judge for `count` hits: whole blocks, and at least one more rank."""
    return JUDGED_TOGETHER * (1 + count // JUDGED_TOGETHER)


def relevant_ranks(relevance: Values, least: float) -> tuple[Numbers, bool]:
    """Return the ranks whose relevance is at least `least`, ascending, int64 (n,).

    The second value tells whether relevant hits may follow further down. The ranks end where
    JUDGED_TOGETHER hits in a row are irrelevant: then none is expected to follow.
    """
    relevant = relevance >= least
    for start in range(0, len(relevant), JUDGED_TOGETHER):
        if not relevant[start : start + JUDGED_TOGETHER].any():
            return np.flatnonzero(relevant[:start]), False
    return np.flatnonzero(relevant), True


def relevance_of(surplus: Values, items: int, sample: Values) -> Values:
    """Return the relevance, 0..1, of ranked hits (n,).

    Relevance is the share of the hits with at least this surplus that is expected to be related:
    one minus the false discovery rate (Storey, 2002, doi:10.1111/1467-9868.00346). If all `items`
    were unrelated, `items` times the normal tail at z of them would reach a surplus of z by chance.
    If as many do, the hits are chance; if ten times as many do, nine out of ten are related. How
    many do is counted among the hits, and estimated for all items from a `sample` of their
    surpluses.
    """
    relevance = np.empty(len(surplus))
    ascending = np.sort(sample)
    for start in range(0, len(surplus), JUDGED_TOGETHER):
        block = surplus[start : start + JUDGED_TOGETHER]
        order = np.argsort(-block, kind="stable")
        best = block[order]
        tail = np.array([0.5 * math.erfc(value / math.sqrt(2)) for value in best.tolist()])
        above = len(ascending) - np.searchsorted(ascending, best)
        there = np.maximum(items * above / max(len(ascending), 1), np.arange(1, len(best) + 1))
        rate = np.minimum(items * tail / there, 1)
        # A hit is as good as the best cut at or below it (the q-value).
        relevance[start + order] = 1 - np.minimum.accumulate(rate[::-1])[::-1]
    return relevance
