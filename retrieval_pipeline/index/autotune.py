"""Autotune: choose a segment's plan by measuring how much each plan finds, and how fast.

Two kinds of queries are tried, since trees that are good at one can be bad at the other: pictures
lie among the items, texts lie apart from all of them (the modality gap; Liang et al., 2022,
arXiv:2203.02053).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from retrieval_pipeline.concurrency import one_blas_thread
from retrieval_pipeline.index.knn import SCAN, Plan, VectorIndex, largest
from retrieval_pipeline.index.matrices import Matrix, in_float32, rows_of
from retrieval_pipeline.storage.stored_model import StoredModel
from retrieval_pipeline.vectors import Vectors, normalise

# Up to this many items only an exact scan is considered: it takes some tenths of a millisecond.
SCAN_ONLY_ITEMS = 2_000
# Queries of each kind. With 2,000 true neighbours a recall of 0.99 is known to within 0.003.
QUERIES_PER_KIND = 200
# Recall is measured at 10: how many of a query's 10 nearest items are found.
TRUE_NEIGHBOURS = 10
# How far a recall that is measured with QUERIES_PER_KIND other queries may lie below the target
# that the calibration reached: three standard errors at a recall of 0.9, more above it.
RECALL_TOLERANCE = 0.03
# An exact scan is timed on fewer queries, since it takes the same time for each.
SCAN_QUERIES = 10
# How many candidates to try. The least is above the number of hits whose relevance is judged
# together (search.relevance.JUDGED_TOGETHER), with some to spare for pictures that are left out.
CANDIDATE_COUNTS = (1_000, 3_000, 10_000)
# The search_k of the trees that is tried first.
FIRST_SEARCH_K = 1_000
# More trees than there ever are.
MAX_TREES = 100
# Safety margin: trees and codes may use only half of the permitted recall loss. A plan that just
# reached the target with some queries would fall below it with others, and with more items.
SAFETY_MARGIN = 0.5
# How many times faster than a scan trees or codes must be. A scan misses less.
MIN_SPEEDUP = 1.3
QUERY_SEED = 4
# Rows that are multiplied at a time: the scores of a whole matrix would take 100 MB.
PRODUCT_ROWS = 8_192


class Measurement(StoredModel):
    """What one plan found, and how long a query took.

    Attributes:
        plan: How the queries were run.
        recall_image: Mean share of the true ten nearest items among the candidates, for queries
            like pictures.
        recall_text: The same for texts; None if no texts were tried.
        p50_ms: Median processor time of a query in milliseconds. It is not wall-clock time, so that
            other work on the machine does not decide which plan is chosen.
    """

    plan: Plan
    recall_image: float
    recall_text: float | None
    p50_ms: float

    @property
    def recall(self) -> float:
        """The recall at 10 for the kind of query that fares worse."""
        return min(self.recall_image, 1.0 if self.recall_text is None else self.recall_text)


class Calibration(StoredModel):
    """The plan that a segment is searched by, and the measurements that it was chosen from.

    Attributes:
        target: The recall at 10 that was asked for.
        plan: The fastest plan that reached the target.
        recall_at_10: What the plan finds of the true ten nearest items, for the kind of query that
            fares worse.
        image_queries: How many queries like pictures were tried; 0 if nothing was measured because
            the segment is small.
        text_queries: How many texts were tried.
        measured: All measurements.
    """

    target: float
    plan: Plan
    recall_at_10: float
    image_queries: int = 0
    text_queries: int = 0
    measured: tuple[Measurement, ...] = ()


@dataclass(frozen=True)
class SampleQueries:
    """Queries, and the score that makes an item one of a query's true nearest.

    Attributes:
        vectors: Queries like pictures, then texts: float32 (n, dim).
        images: How many of the queries are like pictures.
        least: Score of the last of the TRUE_NEIGHBOURS items nearest to each query, float32 (n,).
    """

    vectors: Vectors
    images: int
    least: Vectors


def make_sample_queries(
    matrices: Sequence[Matrix], texts: Vectors | None, seed: int = QUERY_SEED
) -> SampleQueries:
    """Make queries, and find the scores of their true nearest items by an exact scan.

    Args:
        matrices: The vectors, float16 or float32 (n, dim) each.
        texts: Vectors of texts, float32 (n, dim), some of which become queries; None for no texts.
        seed: Of the random choice; another seed gives other queries.
    """
    rng = np.random.default_rng(seed)
    images = _like_pictures(matrices, rng)
    vectors = images
    if texts is not None:
        chosen = rng.choice(len(texts), min(QUERIES_PER_KIND, len(texts)), replace=False)
        vectors = np.concatenate([images, texts[chosen]])
    least = _best_scores(matrices, vectors)[:, TRUE_NEIGHBOURS - 1]
    return SampleQueries(vectors, len(images), least)


def _like_pictures(matrices: Sequence[Matrix], rng: "np.random.Generator") -> Vectors:
    """Return vectors that could be further pictures of the collection, and are not.

    An item itself would be too easy a query: it leads each tree to its own leaf. So each query is
    an item that is moved as far as its nearest neighbour is, in the direction in which two random
    items differ.
    """
    count = sum(map(len, matrices))
    start, one, other = (
        rows_of(matrices, rng.choice(count, QUERIES_PER_KIND, replace=count < QUERIES_PER_KIND))
        for _ in range(3)
    )
    cosine = np.clip(_best_scores(matrices, start)[:, 1:2], 0, 1)
    direction = one - other
    direction -= (direction * start).sum(axis=1, keepdims=True) * start
    length = np.linalg.norm(direction, axis=1, keepdims=True)
    direction /= np.maximum(length, np.finfo(np.float32).tiny)
    return normalise(cosine * start + np.sqrt(1 - cosine**2) * direction)


def _best_scores(matrices: Sequence[Matrix], vectors: Vectors) -> Vectors:
    """Return the scores of each vector's TRUE_NEIGHBOURS + 1 nearest items, best first."""
    wanted = TRUE_NEIGHBOURS + 1
    best = np.full((len(vectors), wanted), -np.inf, np.float32)
    for rows in in_float32(matrices, PRODUCT_ROWS):
        scores = vectors @ rows.T
        # Most queries find nothing better in the later parts.
        better = np.flatnonzero(scores.max(axis=1) > best.min(axis=1))
        both = np.concatenate([best[better], scores[better]], axis=1)
        best[better] = np.partition(both, both.shape[1] - wanted, axis=1)[:, -wanted:]
    return -np.sort(-best, axis=1)


@one_blas_thread()
def measure(index: VectorIndex, queries: SampleQueries, plan: Plan) -> Measurement:
    """Run the queries by `plan`, and compare its candidates with the true nearest items.

    Raises:
        ValueError: The plan needs a structure that the index lacks or has not loaded.
    """
    if plan.kind == "scan":
        return _time_scan(index, queries)
    recalls, seconds = [], []
    for vector, least in zip(queries.vectors, queries.least, strict=True):
        started = time.thread_time()
        scores = index.scores_of(vector, index.candidates(vector, plan))
        seconds.append(time.thread_time() - started)
        # The same score is rounded differently in products of different shapes.
        found = int((scores >= least - 1e-6).sum())
        recalls.append(min(found, TRUE_NEIGHBOURS) / TRUE_NEIGHBOURS)
    texts = recalls[queries.images :]
    return Measurement(
        plan=plan,
        recall_image=_rounded(np.mean(recalls[: queries.images])),
        recall_text=_rounded(np.mean(texts)) if texts else None,
        p50_ms=_rounded(1000 * np.median(seconds)),
    )


def _time_scan(index: VectorIndex, queries: SampleQueries) -> Measurement:
    """Measure the exact scan, whose recall is 1 by definition."""
    seconds = []
    for vector in queries.vectors[:SCAN_QUERIES]:
        started = time.thread_time()
        largest(index.scan(vector), TRUE_NEIGHBOURS)
        seconds.append(time.thread_time() - started)
    return Measurement(
        plan=SCAN,
        recall_image=1.0,
        recall_text=1.0 if queries.images < len(queries.vectors) else None,
        p50_ms=_rounded(1000 * np.median(seconds)),
    )


def with_safety_margin(target: float) -> float:
    """Return the recall that an approximate plan has to reach when it is measured."""
    return target + SAFETY_MARGIN * (1 - target)


def measure_reduced_scans(
    index: VectorIndex, queries: SampleQueries, target: float
) -> list[Measurement]:
    """Scan the reduced vectors for more and more candidates until the safety margin is kept.

    Returns:
        One measurement for each number of candidates that was tried, ascending.
    """
    measured: list[Measurement] = []
    for candidates in CANDIDATE_COUNTS:
        measured.append(measure(index, queries, Plan(kind="projected", candidates=candidates)))
        if measured[-1].recall >= with_safety_margin(target):
            break
    return measured


def tune_search_k(
    index: VectorIndex, queries: SampleQueries, plan: Plan, least_recall: float, limit_ms: float
) -> list[Measurement]:
    """Double the plan's search_k until it finds `least_recall` or takes longer than `limit_ms`.

    If the recall is reached by doubling, a search_k half-way back (on a logarithmic scale) is tried
    too. Doubling also ends where a larger search_k has nothing more to look at: each tree holds
    each item once.

    Returns:
        All measurements, in the order in which they were made.
    """
    everything = MAX_TREES * len(index)
    measured = [measure(index, queries, plan)]
    while (
        measured[-1].recall < least_recall
        and measured[-1].p50_ms <= limit_ms
        and measured[-1].plan.search_k < everything
    ):
        measured.append(measure(index, queries, _scale_search_k(measured[-1].plan, 2)))
    if measured[-1].recall >= least_recall and len(measured) > 1:
        measured.append(measure(index, queries, _scale_search_k(measured[-1].plan, 0.5**0.5)))
    return measured


def _scale_search_k(plan: Plan, factor: float) -> Plan:
    return plan.model_copy(update={"search_k": round(factor * plan.search_k)})


def choose_plan(
    index: VectorIndex,
    queries: SampleQueries,
    target: float,
    reduced_scans: Sequence[Measurement],
) -> Calibration:
    """Measure the exact scan, and trees and codes if there are any; choose the fastest with enough.

    Scans have to reach `target`. Trees and codes have to keep the safety margin and be MIN_SPEEDUP
    times as fast as the fastest scan. An exact scan always qualifies.

    Args:
        index: With trees, codes, or both; codes are loaded here.
        queries: What to measure with.
        target: The recall at 10 that was asked for.
        reduced_scans: What `measure_reduced_scans` returned; empty without reduced vectors.

    Raises:
        BuildError: The codes cannot be read.
    """
    exact_scan = measure(index, queries, SCAN)
    enough = [exact_scan, *(each for each in reduced_scans if each.recall >= target)]
    fastest_scan = min(enough, key=lambda each: each.p50_ms)
    limit_ms = fastest_scan.p50_ms / MIN_SPEEDUP
    least_recall = with_safety_margin(target)
    candidates = reduced_scans[-1].plan.candidates if reduced_scans else CANDIDATE_COUNTS[0]
    starts = []
    if index.trees is not None:
        starts.append(Plan(kind="trees", candidates=candidates, search_k=FIRST_SEARCH_K))
    # Codes find at most what a scan of the reduced vectors finds.
    if index.codes_file is not None and reduced_scans and reduced_scans[-1].recall >= least_recall:
        starts.append(Plan(kind="codes", candidates=candidates, search_k=2 * candidates))
        index.load_codes_for(starts[-1])
    approximate = [
        each
        for plan in starts
        for each in tune_search_k(index, queries, plan, least_recall, limit_ms)
    ]
    good = [each for each in approximate if each.recall >= least_recall and each.p50_ms <= limit_ms]
    chosen = min([*good, fastest_scan], key=lambda each: each.p50_ms)
    return Calibration(
        target=target,
        plan=chosen.plan,
        recall_at_10=chosen.recall,
        image_queries=queries.images,
        text_queries=len(queries.vectors) - queries.images,
        measured=(exact_scan, *reduced_scans, *approximate),
    )


def _rounded(value: np.floating) -> float:
    return round(float(value), 4)
