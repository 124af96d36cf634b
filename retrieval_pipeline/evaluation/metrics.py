"""Metrics of ranked retrieval, from the ranks of the right answers, and their intervals.

Relevance is yes or no here. The definitions are those of Manning, Raghavan and Schütze,
Introduction to Information Retrieval (2008), chapter 8. Recall@k is what papers on text-to-image
retrieval report: the share of queries that have a right answer among their first k.
"""

from dataclasses import dataclass

import numpy as np

from retrieval_pipeline.vectors import Numbers, Values

NAMES = ("recall@1", "recall@5", "recall@10", "MRR", "nDCG@10", "mAP")
# Draws for an interval: its ends are known to within a few hundredths of its width.
DRAWS = 1_000
# Rows that are drawn at a time: 12 MB of six metrics.
ROWS_DRAWN = 250_000
# Half of what lies outside of an interval of 95 %, in percent.
TAIL = 2.5


def metrics_of(ranks: Numbers) -> Values:
    """Return the metrics NAMES of one query, float64 (6,).

    Args:
        ranks: Ranks of all its right answers, from 0, ascending, int64 (n,), n > 0.
    """
    places = np.arange(1, len(ranks) + 1)
    gains = (1 / np.log2(ranks[ranks < 10] + 2)).sum()
    ideal = (1 / np.log2(np.arange(min(len(ranks), 10)) + 2)).sum()
    return np.array(
        [
            *(float(ranks[0] < count) for count in (1, 5, 10)),
            1 / (ranks[0] + 1),
            gains / ideal,
            (places / (ranks + 1)).mean(),
        ]
    )


@dataclass(frozen=True)
class Metric:
    """The mean of a metric over the queries, and its 95 % bootstrap interval."""

    mean: float
    low: float
    high: float


def intervals(values: Values, seed: int = 0) -> list[Metric]:
    """Return the mean of each column with its interval, by resampling the rows (queries).

    The percentile bootstrap (Efron, 1979, doi:10.1214/aos/1176344552).

    Args:
        values: float64 (queries, metrics), at least one query.
        seed: Of the resampling: the same values give the same intervals.
    """
    generator = np.random.default_rng(seed)
    # As many draws at a time as take some megabytes.
    together = max(ROWS_DRAWN // len(values), 1)
    means = np.concatenate(
        [
            values[generator.integers(len(values), size=(draws, len(values)))].mean(axis=1)
            for draws in (min(together, DRAWS - start) for start in range(0, DRAWS, together))
        ]
    )
    low, high = np.percentile(means, [TAIL, 100 - TAIL], axis=0)
    return [Metric(*map(float, each)) for each in zip(values.mean(axis=0), low, high, strict=True)]
