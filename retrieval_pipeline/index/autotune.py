"""Choose how a build is searched, by measuring: what does each way find, and how fast?

Two kinds of queries, since trees that are good at one can be bad at the other: pictures lie among
the items, texts apart from all of them (the modality gap; Liang et al., 2022, arXiv:2203.02053).
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from pydantic import BaseModel, ConfigDict

from retrieval_pipeline.concurrency import one_blas_thread
from retrieval_pipeline.index.knn import SCAN, Nearest, Plan, largest, rows_of
from retrieval_pipeline.vectors import Numbers, Vectors, normalise

# Up to here a scan takes some tenths of a millisecond: nothing can be gained.
SMALL = 2_000
# Queries of a kind: 2,000 true neighbours, a recall of 0.99 is known to within 0.003.
QUERIES = 200
NEIGHBOURS = 10
# How far a recall that is measured with QUERIES others may lie below the target that the
# calibration reached: three standard errors at a recall of 0.9, more above it.
MARGIN = 0.03
# A scan is timed on fewer: it always takes the same.
SCAN_QUERIES = 10
# At least what is judged together (JUDGED_TOGETHER in search/relevance.py), and some to spare for
# pictures left out.
CANDIDATES = (1_000, 3_000, 10_000)
FIRST_SEARCH_K = 1_000
# More than there are in any build.
MOST_TREES = 100
# Share of what may be missed that trees and codes have to leave: a plan that is taken since it just
# reached the target with some queries would fall below it with others, and with more items.
HEADROOM = 0.5
# What trees or codes must gain to be preferred to a scan, which misses less and depends less on the
# builds before.
WORTHWHILE = 1.3
SEED = 4


class Measured(BaseModel):
    """What one plan found, and how long a query took.

    `p50_ms` is a median of processor time: what else the machine does should not decide.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    plan: Plan
    recall_image: float
    recall_text: float | None
    p50_ms: float

    @property
    def recall(self) -> float:
        """Share of the true ten nearest that were found, for the kind of query that fares worse."""
        return min(self.recall_image, 1.0 if self.recall_text is None else self.recall_text)


class Calibration(BaseModel):
    """How a build is searched and what that was chosen from.

    Attributes:
        target: The recall that was asked for.
        plan: The fastest that reached it, of this build or of one that it takes over from.
        recall_at_10: Of the plan, for the kind of query that fares worse.
        image_queries: How many queries like pictures were tried; 0 where only a scan makes sense.
        text_queries: How many texts.
        measured: Everything that was tried; of what was taken over, the plan alone is new.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: float
    plan: Plan
    recall_at_10: float
    image_queries: int = 0
    text_queries: int = 0
    measured: tuple[Measured, ...] = ()


@dataclass(frozen=True)
class Trial:
    """Queries with the score that an item must reach to be among their true nearest.

    Attributes:
        vectors: Queries like pictures, then texts: float32 (n, dim).
        images: How many of them are like pictures.
        least: Score of the last of the NEIGHBOURS true nearest, float32 (n,).
    """

    vectors: Vectors
    images: int
    least: Vectors


def prepare_trial(
    matrices: Sequence[Vectors],
    texts: Vectors | None,
    seed: int = SEED,
    among: Numbers | None = None,
) -> Trial:
    """Make queries and find by a scan what is true of them.

    Args:
        matrices: The vectors of all items.
        texts: Some of these (n, dim) are queries too.
        seed: Of what is left to chance.
        among: The items that the queries like pictures are like; default: all.
    """
    rng = np.random.default_rng(seed)
    images = _like_pictures(matrices, rng, among)
    vectors = images
    if texts is not None:
        chosen = rng.choice(len(texts), min(QUERIES, len(texts)), replace=False)
        vectors = np.concatenate([images, texts[chosen]])
    return Trial(vectors, len(images), _best_scores(matrices, vectors)[:, NEIGHBOURS - 1])


def _like_pictures(
    matrices: Sequence[Vectors], rng: np.random.Generator, among: Numbers | None
) -> Vectors:
    """Return vectors that could be further pictures of the collection, and are not.

    An item itself would be too easy: it leads each tree to its own leaf. So each query is an item
    moved, in the direction in which two random items differ, as far as its nearest neighbour is.
    """
    count = sum(map(len, matrices))
    models = np.arange(count) if among is None else among
    start, one, other = (
        rows_of(matrices, rng.choice(numbers, QUERIES, replace=len(numbers) < QUERIES))
        for numbers in (models, np.arange(count), np.arange(count))
    )
    cosine = np.clip(_best_scores(matrices, start)[:, 1:2], 0, 1)
    direction = one - other
    direction -= (direction * start).sum(axis=1, keepdims=True) * start
    length = np.linalg.norm(direction, axis=1, keepdims=True)
    direction /= np.maximum(length, np.finfo(np.float32).tiny)
    return normalise(cosine * start + np.sqrt(1 - cosine**2) * direction)


def _best_scores(matrices: Sequence[Vectors], vectors: Vectors) -> Vectors:
    """Return the scores of each vector's NEIGHBOURS + 1 nearest items, best first."""
    wanted = NEIGHBOURS + 1
    best = np.full((len(vectors), wanted), -np.inf, np.float32)
    for matrix in matrices:
        # A part at a time: the scores of a whole matrix would take 100 MB.
        for part in np.array_split(matrix, -(-len(matrix) // 8_192)):
            scores = vectors @ part.T
            # Later parts have nothing to add for most queries.
            better = np.flatnonzero(scores.max(axis=1) > best.min(axis=1))
            both = np.concatenate([best[better], scores[better]], axis=1)
            best[better] = np.partition(both, both.shape[1] - wanted, axis=1)[:, -wanted:]
    return -np.sort(-best, axis=1)


@one_blas_thread()
def measure(nearest: Nearest, trial: Trial, plan: Plan) -> Measured:
    """Run the trial's queries by `plan`, which proposes candidates."""
    recalls, seconds = [], []
    for vector, least in zip(trial.vectors, trial.least, strict=True):
        started = time.thread_time()
        scores = nearest.scores_of(vector, nearest.candidates(vector, plan))
        seconds.append(time.thread_time() - started)
        # Rounding differs with the shape of a product.
        recalls.append(min(int((scores >= least - 1e-6).sum()), NEIGHBOURS) / NEIGHBOURS)
    texts = recalls[trial.images :]
    return Measured(
        plan=plan,
        recall_image=_rounded(np.mean(recalls[: trial.images])),
        recall_text=_rounded(np.mean(texts)) if texts else None,
        p50_ms=_rounded(1000 * np.median(seconds)),
    )


def measure_projected(nearest: Nearest, trial: Trial, target: float) -> list[Measured]:
    """Scan the projection with more and more candidates until the recall has its headroom."""
    measured: list[Measured] = []
    for candidates in CANDIDATES:
        measured.append(measure(nearest, trial, Plan(kind="projected", candidates=candidates)))
        if measured[-1].recall >= with_headroom(target):
            break
    return measured


def with_headroom(target: float) -> float:
    """Return the recall that a plan which is tried for its speed has to reach."""
    return target + HEADROOM * (1 - target)


def measure_deeper(
    nearest: Nearest, trial: Trial, aim: float, plan: Plan, limit_ms: float
) -> list[Measured]:
    """Double the plan's search_k until the recall is `aim` or it takes longer than `limit_ms`.

    Or until there is nothing more to look at: each of the trees holds each item once. Where the
    recall was reached, a value half-way is tried too.
    """
    everything = MOST_TREES * sum(map(len, nearest.matrices))
    measured = [measure(nearest, trial, plan)]
    while (
        measured[-1].recall < aim
        and measured[-1].p50_ms <= limit_ms
        and measured[-1].plan.search_k < everything
    ):
        measured.append(measure(nearest, trial, _deeper(measured[-1].plan, 2)))
    if measured[-1].recall >= aim and len(measured) > 1:
        measured.append(measure(nearest, trial, _deeper(measured[-1].plan, 0.5**0.5)))
    return measured


def _deeper(plan: Plan, factor: float) -> Plan:
    return plan.model_copy(update={"search_k": round(factor * plan.search_k)})


def choose_plan(
    nearest: Nearest, trial: Trial, target: float, projected: Sequence[Measured]
) -> Calibration:
    """Measure the scan, the trees and the codes too, and take the fastest that reaches the target.

    A scan of the full vectors misses nothing, so there always is one.
    """
    exact = [measure_scan(nearest, trial)]
    exact += [each for each in projected if each.recall >= target]
    best = min(exact, key=lambda each: each.p50_ms)
    candidates = projected[-1].plan.candidates if projected else CANDIDATES[0]
    limit = best.p50_ms / WORTHWHILE
    aim = with_headroom(target)
    deeper = [Plan(kind="trees", candidates=candidates, search_k=FIRST_SEARCH_K)]
    # Codes find what a scan of the components finds, at most.
    if nearest.codes is not None and projected and projected[-1].recall >= aim:
        deeper += [Plan(kind="codes", candidates=candidates, search_k=2 * candidates)]
        nearest.load_for(deeper[-1])
    tried = [each for plan in deeper for each in measure_deeper(nearest, trial, aim, plan, limit)]
    good = [each for each in tried if each.recall >= aim and each.p50_ms <= limit]
    best = min([*good, best], key=lambda each: each.p50_ms)
    return Calibration(
        target=target,
        plan=best.plan,
        recall_at_10=best.recall,
        image_queries=trial.images,
        text_queries=len(trial.vectors) - trial.images,
        measured=(exact[0], *projected, *tried),
    )


def measure_again(
    nearest: Nearest, texts: Vectors | None, former: Calibration, newcomers: Numbers
) -> Calibration | None:
    """Keep the plan of another build's calibration, with the recall that it has by now.

    None if that is less than the target, or if what is like the newcomers, items that the other
    build did not have, is found less often: they may be of a kind that its plan does not suit.
    """
    if former.plan.kind == "scan":
        return former
    nearest.load_for(former.plan)
    now = measure(nearest, prepare_trial(nearest.matrices, texts), former.plan)
    if now.recall < former.target:
        return None
    if len(newcomers):
        trial = prepare_trial(nearest.matrices, None, among=newcomers)
        if measure(nearest, trial, former.plan).recall < former.target - MARGIN:
            return None
    measured = tuple(now if each.plan == now.plan else each for each in former.measured)
    return former.model_copy(update={"recall_at_10": now.recall, "measured": measured})


@one_blas_thread()
def measure_scan(nearest: Nearest, trial: Trial) -> Measured:
    """Measure a scan of the full vectors, which misses nothing."""
    seconds = []
    for vector in trial.vectors[:SCAN_QUERIES]:
        started = time.thread_time()
        largest(nearest.scan(vector), NEIGHBOURS)
        seconds.append(time.thread_time() - started)
    return Measured(
        plan=SCAN,
        recall_image=1.0,
        recall_text=1.0 if trial.images < len(trial.vectors) else None,
        p50_ms=_rounded(1000 * np.median(seconds)),
    )


def _rounded(value: np.floating) -> float:
    return round(float(value), 4)
