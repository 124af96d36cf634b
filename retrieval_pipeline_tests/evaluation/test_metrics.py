import numpy as np
import pytest
from sklearn.metrics import (
    average_precision_score,
    label_ranking_average_precision_score,
    ndcg_score,
    top_k_accuracy_score,
)

from retrieval_pipeline.evaluation.metrics import NAMES, intervals, metrics_of


def ranking(seed: int, items: int, right: int) -> tuple[dict[str, float], list[float], list[bool]]:
    """Metrics of a random ranking, with its scores and labels."""
    generator = np.random.default_rng(seed)
    scores = generator.permutation(items) / items
    labels = np.zeros(items, bool)
    labels[generator.choice(items, right, replace=False)] = True
    ranks = np.flatnonzero(labels[np.argsort(-scores)])
    return (
        dict(zip(NAMES, metrics_of(ranks).tolist(), strict=True)),
        scores.tolist(),
        labels.tolist(),
    )


@pytest.mark.parametrize(("items", "right"), [(12, 1), (50, 3), (400, 60)])
def test_metrics_equal_those_of_scikit_learn(items: int, right: int) -> None:
    for seed in range(20):
        metrics, scores, labels = ranking(seed, items, right)
        assert metrics["mAP"] == pytest.approx(average_precision_score(labels, scores))
        assert metrics["nDCG@10"] == pytest.approx(ndcg_score([labels], [scores], k=10))
        if right == 1:
            expected = label_ranking_average_precision_score([labels], [scores])
            assert metrics["MRR"] == pytest.approx(expected)
            for k in (1, 5, 10):
                found = top_k_accuracy_score(
                    [labels.index(True)], [scores], k=k, labels=np.arange(items)
                )
                assert metrics[f"recall@{k}"] == found


def test_intervals_hold_the_truth_and_are_the_same_every_time() -> None:
    samples = [np.random.default_rng(seed).normal(0.5, 0.2, (80, 1)) for seed in range(40)]
    found = [intervals(values)[0] for values in samples]
    assert 34 <= sum(metric.low <= 0.5 <= metric.high for metric in found) < 40
    assert found[0] == intervals(samples[0])[0]
