import numpy as np
import pytest

from retrieval_pipeline.index.knn import VectorIndex, evenly_spaced, largest
from retrieval_pipeline.vectors import Vectors
from synthetic.tables import random_vectors


def scores_of_kind(kind: str) -> Vectors:
    scores = np.random.default_rng(0).standard_normal(5_000).astype(np.float32)
    return {
        "mixed": scores,
        "rising": np.sort(scores),
        "falling": -np.sort(-scores),
        "equal": np.zeros_like(scores),
        "few values": np.round(scores),
        "peak between the samples": np.where(np.arange(5_000) % 16 == 1, scores, -9),
    }[kind].astype(np.float32)


@pytest.mark.parametrize(
    "kind", ["mixed", "rising", "falling", "equal", "few values", "peak between the samples"]
)
@pytest.mark.parametrize("count", [0, 1, 10, 400, 4_999, 5_000, 9_000])
def test_the_largest_are_those_of_a_stable_sort(kind: str, count: int) -> None:
    scores = scores_of_kind(kind)
    expected = np.argsort(-scores, kind="stable")[:count]
    np.testing.assert_array_equal(largest(scores, count), expected)


@pytest.mark.parametrize("count", [3, 200])
def test_scores_of_some_items_are_those_of_a_scan(count: int) -> None:
    rows = random_vectors(250, 16)
    found = VectorIndex([rows[:100], rows[100:200], rows[200:]])
    queries = random_vectors(3, 16, seed=1)
    numbers = np.random.default_rng(2).permutation(250)[:count]
    np.testing.assert_allclose(
        found.scores_of(queries, numbers), rows[numbers] @ queries.T, atol=1e-6
    )
    np.testing.assert_allclose(
        found.scores_of(queries[0], numbers), rows[numbers] @ queries[0], atol=1e-6
    )


def test_spread_items_reach_from_the_first_to_the_last() -> None:
    assert evenly_spaced(100, 4).tolist() == [0, 33, 66, 99]
    assert evenly_spaced(3, 10).tolist() == [0, 1, 2]
    assert evenly_spaced(1, 10).tolist() == [0]
