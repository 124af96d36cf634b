import numpy as np
import pytest

from retrieval_pipeline.index.score_statistics import (
    Background,
    Spread,
    measure_background,
    noise_of,
)
from retrieval_pipeline.search.query_vectors import Mixture
from retrieval_pipeline.search.relevance import (
    JUDGED_TOGETHER,
    Judge,
    ranks_to_judge,
    relevance_of,
    relevant_ranks,
)
from retrieval_pipeline.vectors import Values
from synthetic.tables import random_vectors

NOTHING = np.empty(0)


def ranked(count: int, seed: int, *related: float) -> Values:
    """Surpluses of unrelated pictures and of these related ones, best first."""
    unrelated = np.random.default_rng(seed).standard_normal(count)
    return -np.sort(-np.concatenate([unrelated, related]))


def test_the_best_of_unrelated_pictures_is_rarely_judged_relevant() -> None:
    best = [
        relevance_of(ranked(1000, seed)[:JUDGED_TOGETHER], 1000, NOTHING)[0] for seed in range(300)
    ]
    assert np.mean(np.array(best) > 0.9) == pytest.approx(0.1, abs=0.05)


def test_pictures_that_stand_out_are_relevant_and_the_rest_is_not() -> None:
    relevance = relevance_of(ranked(1000, 1, 6, 6.5, 7)[:JUDGED_TOGETHER], 1003, NOTHING)
    assert (relevance[:3] > 0.99).all()
    assert (relevance[10:] < 0.5).all()


def test_many_good_hits_support_each_other() -> None:
    alone = relevance_of(ranked(10_000, 2, 3.6)[:JUDGED_TOGETHER], 10_001, NOTHING)
    many = relevance_of(ranked(10_000, 2, *[3.6] * 100)[:JUDGED_TOGETHER], 10_100, NOTHING)
    assert alone[0] < 0.7
    assert (many[:80] > 0.9).all()


def test_more_good_hits_than_are_looked_at_are_counted_by_the_sample() -> None:
    everything = ranked(900_000, 3, *[3.5] * 100_000)
    top, sample = everything[:JUDGED_TOGETHER], everything[::1000]
    assert relevance_of(top, len(everything), NOTHING)[-1] < 0.5
    assert relevance_of(top, len(everything), sample)[-1] > 0.99


def test_a_hit_is_judged_by_its_own_surplus_and_not_by_its_rank() -> None:
    relevance = relevance_of(np.array([5.0, 0.0, 6.0]), 50, NOTHING)
    assert relevance[2] >= relevance[0] > 0.99
    assert relevance[1] < 0.5


def test_relevance_does_not_depend_on_the_page() -> None:
    surplus = ranked(2000, 3, *np.linspace(2, 6, 40))
    relevance = relevance_of(surplus[: 3 * JUDGED_TOGETHER], 2040, surplus[::2])
    assert ((relevance >= 0) & (relevance <= 1)).all()
    np.testing.assert_array_equal(
        relevance_of(surplus[:JUDGED_TOGETHER], 2040, surplus[::2]), relevance[:JUDGED_TOGETHER]
    )


def test_the_list_ends_where_a_whole_block_is_irrelevant() -> None:
    relevance = np.zeros(4 * JUDGED_TOGETHER)
    relevance[[0, 5, 2 * JUDGED_TOGETHER]] = 0.9
    ranks, goes_on = relevant_ranks(relevance, 0.5)
    assert (ranks.tolist(), goes_on) == ([0, 5], False)
    ranks, goes_on = relevant_ranks(relevance[:JUDGED_TOGETHER], 0.5)
    assert (ranks.tolist(), goes_on) == ([0, 5], True)


def test_more_ranks_are_judged_than_are_shown_in_whole_blocks() -> None:
    counts = (1, JUDGED_TOGETHER - 1, JUDGED_TOGETHER)
    assert [ranks_to_judge(count) // JUDGED_TOGETHER for count in counts] == [1, 1, 2]


def test_the_background_is_how_words_and_pictures_score_on_other_pictures() -> None:
    sample, words = random_vectors(200, 64), random_vectors(50, 64, seed=1)
    background = measure_background(sample, words)
    assert background.words is not None
    for spread in (background.words, background.pictures):
        assert spread.mean == pytest.approx(0, abs=0.02)
        assert spread.deviation == pytest.approx(1 / 8, abs=0.01)
    assert measure_background(sample, None).words is None
    assert measure_background(sample[:1], words).pictures.deviation > 0


def test_a_picture_does_not_judge_itself_and_few_others_count_little() -> None:
    items = random_vectors(3, 64)
    prior = Spread(mean=0.5, deviation=0.2)
    few, many = noise_of(items, items, prior), noise_of(items, random_vectors(2000, 64, 1), prior)
    assert few.mean == pytest.approx(10 / 12 * 0.5, abs=0.05)
    assert many.mean == pytest.approx(0, abs=0.02)
    assert many.deviation == pytest.approx(1 / 8, abs=0.02)


def test_a_picture_that_is_close_to_all_words_needs_a_higher_score() -> None:
    words = random_vectors(500, 64)
    hub = words.mean(axis=0)
    items = np.stack([hub / np.linalg.norm(hub), random_vectors(1, 64, seed=2)[0]])
    judge = Judge(items, words, measure_background(items, words))
    mixture = Mixture((1.0,), (), Spread(mean=0, deviation=1))
    close, far = judge.surplus(np.array([0.3, 0.3], np.float32), items, mixture)
    assert far > close
    own = (items @ words.T).mean(axis=1)
    assert judge.surplus(own, items, mixture) == pytest.approx([0, 0], abs=0.1)


def test_what_was_added_up_is_expected_to_score_as_its_parts() -> None:
    sample, words = random_vectors(300, 64), random_vectors(300, 64, seed=1)
    judge = Judge(sample, words, measure_background(sample, words))
    both = Mixture((0.6,), (0.8,), Spread(mean=0, deviation=1))
    scores = sample @ (0.6 * words[0] + 0.8 * random_vectors(1, 64, seed=2)[0])
    surplus = judge.surplus_of_sample(scores, both)
    assert surplus.mean() == pytest.approx(0, abs=0.2)
    assert surplus.std() == pytest.approx(1, abs=0.2)
    np.testing.assert_array_equal(judge.surplus(scores, sample, both), surplus)


def test_without_a_vocabulary_the_query_says_how_words_score() -> None:
    items = random_vectors(2, 64)
    judge = Judge(items, None, Background(words=None, pictures=Spread(mean=0, deviation=1)))
    mixture = Mixture((2.0,), (), Spread(mean=0.1, deviation=0.05))
    scores = np.array([0.2, 0.5], np.float32)
    assert judge.surplus(scores, items, mixture) == pytest.approx([0, 3], abs=1e-5)
