import numpy as np
import pytest

from retrieval_pipeline.relevance import BLOCK, Spread, measure_background, relevance_of
from retrieval_pipeline_tests.library import random_vectors

NOISE = Spread(mean=0.2, deviation=0.05)


def ranked(count: int, seed: int, *related: float) -> np.ndarray:
    scores = np.random.default_rng(seed).normal(NOISE.mean, NOISE.deviation, count)
    return -np.sort(-np.concatenate([scores, related]).astype(np.float32))


def test_the_best_of_unrelated_pictures_is_rarely_judged_relevant() -> None:
    best = [relevance_of(ranked(1000, seed)[:BLOCK], NOISE, 1000)[0] for seed in range(300)]
    assert np.mean(np.array(best) > 0.9) == pytest.approx(0.1, abs=0.05)


def test_pictures_that_stand_out_are_relevant_and_the_rest_is_not() -> None:
    relevance = relevance_of(ranked(1000, 1, 0.5, 0.52, 0.54)[:BLOCK], NOISE, 1003)
    assert (relevance[:3] > 0.99).all()
    assert (relevance[10:] < 0.5).all()


def test_many_good_hits_support_each_other() -> None:
    alone = relevance_of(ranked(10_000, 2, 0.38)[:BLOCK], NOISE, 10_001)
    many = relevance_of(ranked(10_000, 2, *[0.38] * 100)[:BLOCK], NOISE, 10_100)
    assert alone[0] < 0.7
    assert (many[:80] > 0.9).all()


def test_relevance_never_rises_and_does_not_depend_on_the_page() -> None:
    scores = ranked(2000, 3, *np.linspace(0.3, 0.5, 40))
    relevance = relevance_of(scores[: 3 * BLOCK], NOISE, 2040)
    assert (np.diff(relevance) <= 0).all()
    assert relevance.min() >= 0
    np.testing.assert_array_equal(relevance_of(scores[:BLOCK], NOISE, 2040), relevance[:BLOCK])


def test_the_background_is_how_words_and_pictures_score_on_other_pictures() -> None:
    sample, words = random_vectors(200, 64), random_vectors(50, 64, seed=1)
    background = measure_background(sample, words)
    assert background.words is not None
    for spread in (background.words, background.pictures):
        assert spread.mean == pytest.approx(0, abs=0.02)
        assert spread.deviation == pytest.approx(1 / 8, abs=0.01)
    assert measure_background(sample, None).words is None
    assert measure_background(sample[:1], words).pictures.deviation > 0
