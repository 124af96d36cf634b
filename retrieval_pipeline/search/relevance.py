"""How sure it is that a hit has to do with its query: its score against those of unrelated things.

A raw cosine says little: CLIP gives a text and a picture that match 0.25 and two that do not 0.15,
and some pictures are close to all words. So a score is compared with the scores that other words
(of the vocabulary), or other pictures, have on the same picture. Speaker verification calls it test
normalisation (Auckenthaler et al., 2000, doi:10.1006/dspr.1999.0360). It needs no other pictures,
so that it works in a collection of ten as in one of a million. A word that is near to all words, as
"animal" is, would score high on every picture: what such a word has in common with all is left out
of its score (`Judge`).

Relevance descends with the rank. How often hits of a given relevance are right is measured in
docs/benchmarks.md, "Relevance".
"""

import functools
import math

import numpy as np

from retrieval_pipeline.index.score_statistics import (
    SAME_PICTURE_COSINE,
    Background,
    Noise,
    noise_of,
)
from retrieval_pipeline.search.query_vectors import QueryVectors
from retrieval_pipeline.search.vector_index import Ranking, Selection, VectorIndex
from retrieval_pipeline.vectors import Numbers, Values, Vectors

# From this relevance on, a hit is called likely. Of queries by a word for what no picture shows,
# one in ten or fewer has a likely hit (docs/benchmarks.md, "Relevance").
LIKELY = 0.5
# Ranks that are judged together; a fixed number, so that a hit is judged the same on every page.
JUDGED_TOGETHER = 300
# Hits whose vectors are in memory at a time while they are judged: 10 MB at 768 dimensions.
ROWS_IN_MEMORY = 10 * JUDGED_TOGETHER
# Least sum of squares of the generalities of a vocabulary that a line can be drawn through.
MIN_SPREAD = 1e-6


class Judge:
    """Tells how often unrelated queries score as high on pictures as a query does.

    Words have a generality, their mean cosine with the vocabulary, which says much about their mean
    score on any picture: on 349 photographs the two correlate by 0.81 (model `offline`). On each
    picture the scores of the vocabulary make a line over generality (least squares), whose slope is
    a linear function of the picture's vector. So a query that is more general than the average word
    loses what the line adds for that, and one that is less general gains nothing: phrases such as
    "a dog" are less general than single words, and no surer for it.
    """

    def __init__(self, sample: Vectors, words: Vectors | None, background: Background) -> None:
        """Judge by a sample of pictures, float32 (n, dim), and words (m, dim), or None."""
        self._sample = sample
        self._words = words
        self._background = background

    def chances(self, items: Vectors, query_vectors: QueryVectors) -> Values:
        """Return for each item the chance that an unrelated query scores as high.

        A query of several parts is tried as a whole and part by part: a dog on grass is half an
        answer to "a dog" + "snow", but it has to do with the query. The smallest chance counts,
        times the number of tries (Bonferroni's correction).

        Args:
            items: Vectors of pictures, float32 (n, dim).
            query_vectors: What is asked.

        Returns:
            float64 (n,), 0 to 1.
        """
        mixture = query_vectors.mixture
        words = self._noise_of_words(items) if mixture.words else None
        pictures = self._noise_of_pictures(items) if mixture.pictures else None
        owed = self._owed(items, query_vectors)
        return _chances(items, query_vectors, owed, words, pictures)

    def chances_of_sample(self, query_vectors: QueryVectors) -> Values:
        """Return what `chances` does for the pictures of the sample."""
        mixture = query_vectors.mixture
        words = self._words_on_sample if mixture.words else None
        pictures = self._pictures_on_sample if mixture.pictures else None
        owed = self._owed(self._sample, query_vectors)
        return _chances(self._sample, query_vectors, owed, words, pictures)

    def _owed(self, items: Vectors, query_vectors: QueryVectors) -> Values:
        """Return how much of its score each part owes to being general, float64 (parts, n)."""
        texts = query_vectors.parts[: len(query_vectors.mixture.words)]
        owed = np.zeros((len(query_vectors.parts), len(items)))
        if self._words is not None and len(texts):
            general, slope = self._generality_of_words
            excess = np.maximum(_generality(texts, self._words) - general, 0)
            owed[: len(texts)] = np.outer(excess, np.maximum(items @ slope, 0))
        return owed

    @functools.cached_property
    def _generality_of_words(self) -> tuple[float, Vectors]:
        """The mean generality of the vocabulary, and a vector, float32 (dim,).

        The product of that vector and a picture's is the slope of the line of that picture.
        """
        assert self._words is not None
        general = _generality(self._words, self._words)
        centred = general - general.mean()
        slope = centred @ self._words / max(float(centred @ centred), MIN_SPREAD)
        return float(general.mean()), slope.astype(np.float32)

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


def _generality(texts: Vectors, words: Vectors) -> Values:
    """Return the mean cosine of texts with the words of the vocabulary, float64 (n,).

    A text that is itself one of the words is not compared with that word.
    """
    cosines = texts @ words.T
    others = cosines < SAME_PICTURE_COSINE
    means: Values = cosines.sum(axis=1, where=others, dtype=np.float64) / np.maximum(
        others.sum(axis=1), 1
    )
    return means


def _chances(
    items: Vectors,
    query_vectors: QueryVectors,
    owed: Values,
    words: Noise | None,
    pictures: Noise | None,
) -> Values:
    mixture = query_vectors.mixture
    # A build without a vocabulary has one mean and deviation for all pictures.
    unrelated = mixture.unrelated
    words = words or Noise(np.array([unrelated.mean]), np.array([unrelated.deviation]))
    noises = [words] * len(mixture.words) + [pictures or words] * len(mixture.pictures)
    # Of each part, by how many standard deviations it exceeds unrelated ones, float64 (parts, n).
    surplus = np.stack(
        [
            (items @ part - less - noise.mean) / noise.deviation
            for part, less, noise in zip(query_vectors.parts, owed, noises, strict=True)
        ]
    )
    best, tries = surplus.max(axis=0), 1
    if len(noises) > 1:
        # The same of the whole: a weighted sum of independent scores.
        weights = np.array([*mixture.words, *mixture.pictures])[:, None]
        weights = weights * np.stack(
            [np.broadcast_to(noise.deviation, len(items)) for noise in noises]
        )
        whole = (weights * surplus).sum(axis=0) / np.linalg.norm(weights, axis=0)
        best, tries = np.maximum(whole, best), 1 + len(noises)
    tail = [0.5 * math.erfc(value / math.sqrt(2)) for value in best.tolist()]
    chances: Values = np.minimum(tries * np.array(tail), 1)
    return chances


class RankingJudge:
    """Judges the rankings of an index."""

    def __init__(self, index: VectorIndex) -> None:
        self._index = index

    @functools.cached_property
    def _judge(self) -> Judge:
        index = self._index
        return Judge(index.sample, index.vocabulary, index.info.background)

    def relevance(
        self, query_vectors: QueryVectors, ranking: Ranking, allowed: Selection | None
    ) -> Values:
        """Return the relevance of each hit of a ranking, float64 (n,), 0 to 1, descending.

        Args:
            query_vectors: What was ranked by.
            ranking: The hits.
            allowed: The items that were ranked; None for all.
        """
        sample = self._judge.chances_of_sample(query_vectors)
        if allowed is not None:
            sample = sample[self._index.sample_passing(allowed)]
        chances = [np.empty(0)]
        shown = [np.empty(0, np.float32)]
        for start in range(0, len(ranking.rows), ROWS_IN_MEMORY):
            items = self._index.vectors(ranking.rows[start : start + ROWS_IN_MEMORY])
            chances.append(self._judge.chances(items, query_vectors))
            shown.append(query_vectors.unwanted_shown(items @ query_vectors.vectors.T))
        relevance = relevance_of(np.concatenate(chances), ranking.among_rows, sample)
        return in_order_of_rank(relevance * (1 - np.concatenate(shown)))


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


def relevance_of(chances: Values, items: int, sample: Values) -> Values:
    """Return the relevance, 0 to 1, of ranked hits, each by its own chance.

    It is the product of two answers, both about the hits that are at least as good as this one.

    How many of them are related? One minus the false discovery rate (Storey, 2002,
    doi:10.1111/1467-9868.00346): if all `items` were unrelated, `items` times the chance of this
    hit would be so good. If as many are, the hits are chance; if ten times as many are, nine out of
    ten are related.

    Could it be that all are chance? That so many of n are so good has at most the probability
    exp(-L), L = n KL(share found, share expected) (Chernoff's bound). Such a p-value p speaks
    against chance by odds of no more than 1 to -e p ln p (Sellke, Bayarri and Berger, 2001,
    doi:10.1198/000313001300339950). The best of a dozen unrelated pictures has a p-value of 0.3 in
    one collection of three: read as "70 % relevant" it would deceive. With every further hit the
    second answer may become surer: `in_order_of_rank` shares that with the hits before.

    Args:
        chances: Of each hit in order of rank, float64 (n,): how often unrelated queries score as
            high on it.
        items: How many items were ranked.
        sample: The chances of some of the items, which say how many of all are so good.
    """
    relevance = np.empty(len(chances))
    ascending = np.sort(sample)
    for start in range(0, len(chances), JUDGED_TOGETHER):
        block = chances[start : start + JUDGED_TOGETHER]
        ranks = np.searchsorted(np.sort(block), block, side="right")
        sampled = np.searchsorted(ascending, block, side="right")
        there = np.maximum(items * sampled / max(len(sample), 1), ranks)
        rate = np.minimum(items * block / there, 1)
        against = np.maximum(
            _evidence(ranks / items, block, items),
            _evidence(sampled / max(len(sample), 1), block, len(sample)),
        )
        # The smallest odds of chance that the evidence allows; 1 if it says nothing.
        odds = np.where(against > 1, against * np.exp(1 - against), 1)
        relevance[start : start + JUDGED_TOGETHER] = (1 - rate) * (1 - odds) / (1 + odds)
    return relevance


def _evidence(share: Values, chances: Values, count: int) -> Values:
    """Return `count` times the Kullback-Leibler divergence of shares from what chance expects."""
    above = np.minimum(share, 1)
    expected = np.clip(chances, 1e-300, 1 - 1e-9)
    rest = np.where(above < 1, (1 - above) * np.log((1 - above + (above == 1)) / (1 - expected)), 0)
    divergence = above * np.log(np.maximum(above, 1e-300) / expected) + rest
    return np.where(above > expected, count * divergence, 0)


def in_order_of_rank(relevance: Values) -> Values:
    """Make relevance descend with the rank, float64 (n,): hits that contradict share their mean.

    This is isotonic regression by pooling adjacent violators (Ayer et al., 1955,
    doi:10.1214/aoms/1177728423), of each block of JUDGED_TOGETHER ranks by itself, so that a hit is
    judged the same on every page.
    """
    result = np.empty(len(relevance))
    least = 1.0
    for start in range(0, len(relevance), JUDGED_TOGETHER):
        pools: list[tuple[float, int]] = []  # Mean and size.
        for value in relevance[start : start + JUDGED_TOGETHER].tolist():
            mean, size = value, 1
            while pools and pools[-1][0] < mean:
                before, count = pools.pop()
                mean, size = (mean * size + before * count) / (size + count), size + count
            pools.append((mean, size))
        means, sizes = zip(*pools, strict=True)
        block = np.minimum(np.repeat(means, sizes), least)
        result[start : start + len(block)] = block
        least = block[-1]
    return result
