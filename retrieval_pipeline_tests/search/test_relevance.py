import math

import numpy as np
import pytest

from retrieval_pipeline.index.score_statistics import (
    Background,
    Spread,
    measure_background,
    noise_of,
)
from retrieval_pipeline.search.query_vectors import Mixture, QueryVectors
from retrieval_pipeline.search.relevance import (
    JUDGED_TOGETHER,
    LIKELY,
    Judge,
    in_order_of_rank,
    ranks_to_judge,
    relevance_of,
    relevant_ranks,
)
from retrieval_pipeline.vectors import Values, Vectors, normalise
from synthetic.tables import random_vectors

NOTHING = np.empty(0)


def chances_of(surplus: Values) -> Values:
    """Chances of standard normal scores."""
    return np.array([0.5 * math.erfc(value / math.sqrt(2)) for value in surplus])


def ranked(count: int, seed: int, *related: float) -> Values:
    """Chances of unrelated pictures and of related ones with these surpluses, best first."""
    unrelated = np.random.default_rng(seed).standard_normal(count)
    return chances_of(-np.sort(-np.concatenate([unrelated, related])))


@pytest.mark.parametrize("pictures", [12, 1000])
def test_the_best_of_unrelated_pictures_is_rarely_judged_likely(pictures: int) -> None:
    best = []
    for seed in range(300):
        chances = ranked(pictures, seed)
        best.append(relevance_of(chances[:JUDGED_TOGETHER], pictures, chances)[0])
    assert np.mean(np.array(best) >= LIKELY) < 0.1
    assert np.mean(np.array(best) >= 0.9) < 0.02


def test_pictures_that_stand_out_are_relevant_and_the_rest_is_not() -> None:
    relevance = relevance_of(ranked(1000, 1, 6, 6.5, 7)[:JUDGED_TOGETHER], 1003, NOTHING)
    assert (relevance[:3] > 0.99).all()
    assert (relevance[10:] < 0.5).all()


def test_many_good_hits_support_each_other() -> None:
    alone = relevance_of(ranked(10_000, 2, 3.6)[:JUDGED_TOGETHER], 10_001, NOTHING)
    many = relevance_of(ranked(10_000, 2, *[3.6] * 100)[:JUDGED_TOGETHER], 10_100, NOTHING)
    assert in_order_of_rank(alone)[0] < 0.5
    assert (in_order_of_rank(many)[:80] > 0.9).all()


def test_a_collection_of_one_kind_is_relevant_although_no_picture_stands_out() -> None:
    chances = chances_of(np.linspace(2.5, 1, 20))
    relevance = in_order_of_rank(relevance_of(chances, 20, chances))
    assert (relevance[:10] > 0.7).all()


def test_more_good_hits_than_are_looked_at_are_counted_by_the_sample() -> None:
    everything = ranked(900_000, 3, *[3.5] * 100_000)
    top, sample = everything[:JUDGED_TOGETHER], everything[::1000]
    assert relevance_of(top, len(everything), NOTHING)[-1] < 0.5
    assert relevance_of(top, len(everything), sample)[-1] > 0.99


def test_relevance_does_not_depend_on_the_page() -> None:
    chances = ranked(2000, 3, *np.linspace(2, 6, 40))
    raw = relevance_of(chances[: 3 * JUDGED_TOGETHER], 2040, chances[::2])
    relevance = in_order_of_rank(raw)
    assert ((relevance >= 0) & (relevance <= 1)).all()
    first = relevance_of(chances[:JUDGED_TOGETHER], 2040, chances[::2])
    np.testing.assert_array_equal(in_order_of_rank(first), relevance[:JUDGED_TOGETHER])


def test_hits_that_contradict_their_rank_share_their_mean() -> None:
    relevance = in_order_of_rank(np.array([0.9, 0.2, 0.6, 0.4, 0.1, 0.0]))
    np.testing.assert_allclose(relevance, [0.9, 0.4, 0.4, 0.4, 0.1, 0.0])
    blocks = np.zeros(2 * JUDGED_TOGETHER)
    blocks[JUDGED_TOGETHER] = 1
    assert not in_order_of_rank(blocks).any()


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


def asked(*parts: Vectors, words: int, spread: Spread) -> QueryVectors:
    """A query of these parts of weight 1, the first `words` of them words."""
    nothing = np.empty((0, parts[0].shape[-1]), np.float32)
    mixture = Mixture((1.0,) * words, (1.0,) * (len(parts) - words), spread)
    wanted = normalise(np.sum(parts, axis=0, dtype=np.float32))[0]
    return QueryVectors(wanted, np.stack(parts), nothing, np.empty(0, np.float32), mixture)


NORMAL = Spread(mean=0, deviation=1)


def test_a_picture_that_is_close_to_all_words_needs_a_higher_score() -> None:
    words = random_vectors(500, 64)
    hub = normalise(words.mean(axis=0))[0]
    query = random_vectors(1, 64, seed=2)[0]
    # Two pictures that score the same with the query.
    cosine = query @ hub
    items = np.stack([hub, cosine * query + np.sqrt(1 - cosine**2) * _across(query)])
    judge = Judge(items, words, measure_background(items, words))
    close, far = judge.chances(items, asked(query, words=1, spread=NORMAL))
    assert close > far


def test_a_word_that_is_near_to_all_words_fits_no_picture_for_that() -> None:
    common = random_vectors(1, 64, seed=3)[0]
    shares = np.linspace(0, 1, 500, dtype=np.float32)[:, None]
    words = normalise(random_vectors(500, 64) + shares * common)
    sample = normalise(random_vectors(300, 64, seed=1) + 0.5 * common)
    judge = Judge(sample, words, measure_background(sample, words))
    animal = normalise(random_vectors(1, 64, seed=2) + common)[0]
    chances = judge.chances_of_sample(asked(animal, words=1, spread=NORMAL))
    assert np.mean(chances <= 0.1) < 0.2
    # The picture that it is about still stands out.
    own = normalise(animal + 0.2 * random_vectors(1, 64, seed=4)[0])
    assert judge.chances(own, asked(animal, words=1, spread=NORMAL))[0] < chances.min()


def _across(vector: Vectors) -> Vectors:
    """Return a unit vector at a right angle."""
    other = random_vectors(1, len(vector), seed=9)[0]
    return normalise(other - (other @ vector) * vector)[0]


def test_unrelated_queries_of_several_parts_have_the_chances_of_chance() -> None:
    sample, words = random_vectors(300, 64), random_vectors(300, 64, seed=1)
    judge = Judge(sample, words, measure_background(sample, words))
    queries = random_vectors(90, 64, seed=2).reshape(30, 3, 64)
    for words_of_them in (3, 1):
        chances = np.concatenate(
            [
                judge.chances_of_sample(asked(*parts, words=words_of_them, spread=NORMAL))
                for parts in queries
            ]
        )
        for chance in (0.01, 0.1):
            assert np.mean(chances <= chance) == pytest.approx(chance, rel=0.35)
    query = asked(*queries[0], words=1, spread=NORMAL)
    np.testing.assert_allclose(
        judge.chances(sample, query), judge.chances_of_sample(query), rtol=1e-5
    )


def test_one_part_that_fits_is_enough() -> None:
    sample, words = random_vectors(300, 64), random_vectors(300, 64, seed=1)
    judge = Judge(sample, words, measure_background(sample, words))
    parts = random_vectors(3, 64, seed=2)
    parts[2] = normalise(sample[0] + 0.3 * parts[2])[0]
    assert judge.chances(sample[:1], asked(*parts, words=3, spread=NORMAL))[0] < 1e-9


def test_without_a_vocabulary_the_query_says_how_words_score() -> None:
    query = random_vectors(1, 64)[0]
    items = np.stack([0.2 * query, 0.5 * query])
    judge = Judge(items, None, Background(words=None, pictures=NORMAL))
    chances = judge.chances(items, asked(query, words=1, spread=Spread(mean=0.2, deviation=0.1)))
    assert chances == pytest.approx(chances_of(np.array([0, 3])), rel=1e-3)
