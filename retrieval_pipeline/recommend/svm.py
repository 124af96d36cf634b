"""A taste as a support vector machine: training, tuning, cross-validation, ranking."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.vectors import Flags, Numbers, Vectors

# Votes of each kind before the first model, as in the original: "more than two of each".
LEAST_VOTES = 3
# Votes of each kind from which C and gamma are chosen; below, folds hold one or two and choose by
# chance.
TUNING_VOTES = 10
# C and gamma are chosen anew when there are this many times more votes: most votes cost one fit.
TUNING_GROWTH = 1.25
FOLDS = 5
C_GRID = (1.0, 10.0)
# Factors on scikit-learn's gamma="scale", which is 1 / (dim x variance of all numbers).
GAMMA_GRID = (0.5, 1.0, 2.0)
SEED = 20
# Rows scored at once: 50 MB of vectors at 768 dimensions, and as much of kernel at 750 votes.
CHUNK_ROWS = 16_384


@dataclass(frozen=True)
class Votes:
    """Judged items, in the order of the votes.

    Attributes:
        numbers: Of the items, int64 (n,).
        vectors: Of unit length, float32 (n, d).
        liked: bool (n,).
    """

    numbers: Numbers
    vectors: Vectors
    liked: Flags

    def __len__(self) -> int:
        return len(self.numbers)

    @property
    def missing(self) -> tuple[int, int]:
        """How many likes and dislikes are missing until there can be a model."""
        likes = int(self.liked.sum())
        return max(LEAST_VOTES - likes, 0), max(LEAST_VOTES - (len(self) - likes), 0)


@dataclass(frozen=True)
class Parameters:
    """C and gamma of an SVM."""

    c: float
    gamma: float


@dataclass(frozen=True)
class Model:
    """A trained SVM; a score above 0 predicts a like.

    Attributes:
        support: Support vectors, float32 (s, d).
        weights: Their signed weights, float32 (s,).
        intercept: Added to every score.
        parameters: What it was trained with.
    """

    support: Vectors
    weights: npt.NDArray[np.float32]
    intercept: float
    parameters: Parameters

    def scores(self, vectors: Vectors) -> npt.NDArray[np.float32]:
        """Return the decision function of unit vectors, float32 (n,), from (n, d).

        It is scikit-learn's, but by one matrix product, which is some ten times faster.
        """
        kernel = _rbf(vectors, self.support, self.parameters.gamma)
        scores: npt.NDArray[np.float32] = kernel @ self.weights + np.float32(self.intercept)
        return scores


@dataclass(frozen=True)
class Quality:
    """How well votes are predicted by a model that has not seen them.

    Attributes:
        accuracy: Share of the votes predicted right.
        average_precision: Of the votes ordered by score; the share of likes is what chance gives.
    """

    accuracy: float
    average_precision: float


def _rbf(a: Vectors, b: Vectors, gamma: float) -> npt.NDArray[np.float32]:
    """Return exp(-gamma |x - y|^2) of unit vectors, float32 (len(a), len(b))."""
    kernel = a @ b.T
    kernel -= 1
    kernel *= 2 * gamma
    np.exp(kernel, out=kernel)
    return kernel


def train(vectors: Vectors, liked: Flags, parameters: Parameters | None = None) -> Model | None:
    """Train on votes; None if there are fewer than LEAST_VOTES of a kind.

    Without `parameters` they are C = 1 and scikit-learn's "scale".
    """
    if min(liked.sum(), (~liked).sum()) < LEAST_VOTES:
        return None
    parameters = parameters or Parameters(1.0, _scale(vectors))
    svm = _svm(parameters.c, kernel="rbf", gamma=parameters.gamma).fit(vectors, liked)
    return Model(
        support=vectors[svm.support_],
        weights=svm.dual_coef_[0].astype(np.float32),
        intercept=float(svm.intercept_[0]),
        parameters=parameters,
    )


def _svm(c: float, **options: object):  # type: ignore[no-untyped-def]
    # scikit-learn takes a second to import, which the first model may, but not the command line.
    from sklearn.svm import SVC

    return SVC(C=c, class_weight="balanced", **options)


def _scale(vectors: Vectors) -> float:
    variance = float(vectors.var())
    return 1 / (vectors.shape[1] * variance) if variance > 1e-12 else 1.0


def tune(vectors: Vectors, liked: Flags) -> Parameters | None:
    """Choose C and gamma by the average precision of votes held out in FOLDS folds.

    Of equal ones the first of the grids is taken, so that the result is stable. None if there are
    fewer than TUNING_VOTES of a kind.
    """
    if min(liked.sum(), (~liked).sum()) < TUNING_VOTES:
        return None
    from sklearn.metrics import average_precision_score

    folds = _folds(liked)
    best, best_precision = None, -1.0
    for gamma in (factor * _scale(vectors) for factor in GAMMA_GRID):
        kernel = _rbf(vectors, vectors, gamma)
        for c in C_GRID:
            scores = np.empty(len(liked))
            for fit, held in folds:
                svm = _svm(c, kernel="precomputed").fit(kernel[np.ix_(fit, fit)], liked[fit])
                scores[held] = svm.decision_function(kernel[np.ix_(held, fit)])
            precision = average_precision_score(liked, scores)
            if precision > best_precision:
                best, best_precision = Parameters(c, gamma), precision
    return best


def tuning_size(liked: Flags) -> int:
    """Return from how many of the first votes C and gamma are chosen; 0: not at all yet.

    It grows in steps of TUNING_GROWTH: between them the choice, the slow part, stays valid.
    """
    rarer = np.minimum(np.cumsum(liked), np.cumsum(~liked))
    size = int(np.searchsorted(rarer, TUNING_VOTES)) + 1
    if size > len(liked):
        return 0
    while (larger := int(np.ceil(size * TUNING_GROWTH))) <= len(liked):
        size = larger
    return size


class Trainer:
    """Trains on growing votes with C and gamma chosen now and then, from the first votes.

    What it returns depends on the votes alone; it only remembers its last choice.
    """

    def __init__(self) -> None:
        self._first = b""
        self._parameters: Parameters | None = None

    def train(self, votes: Votes) -> Model | None:
        """Return the model of these votes; None if there are too few."""
        size = tuning_size(votes.liked)
        first = votes.numbers[:size].tobytes() + votes.liked[:size].tobytes()
        if first != self._first:
            self._first = first
            self._parameters = tune(votes.vectors[:size], votes.liked[:size]) if size else None
        return train(votes.vectors, votes.liked, self._parameters)


def cross_validate(vectors: Vectors, liked: Flags) -> Quality | None:
    """Predict each vote by a model trained, and tuned, on the other folds' votes.

    None if the training folds would hold fewer than LEAST_VOTES of a kind.
    """
    folds = _folds(liked) if min(liked.sum(), (~liked).sum()) > LEAST_VOTES else []
    scores = np.empty(len(liked), np.float32)
    for fit, held in folds:
        model = train(vectors[fit], liked[fit], tune(vectors[fit], liked[fit]))
        if model is None:
            return None
        scores[held] = model.scores(vectors[held])
    if not folds:
        return None
    from sklearn.metrics import average_precision_score

    return Quality(
        accuracy=float(np.mean((scores > 0) == liked)),
        average_precision=float(average_precision_score(liked, scores)),
    )


def _folds(liked: Flags) -> list[tuple[Numbers, Numbers]]:
    from sklearn.model_selection import StratifiedKFold

    splits = min(FOLDS, int(liked.sum()), int((~liked).sum()))
    folds = StratifiedKFold(splits, shuffle=True, random_state=SEED)
    return list(folds.split(np.zeros(len(liked)), liked))


def rank(
    model: Model, vectors: Callable[[Numbers], Vectors], wanted: Flags, k: int
) -> tuple[Numbers, npt.NDArray[np.float32]]:
    """Return the `k` best of the `wanted` items, best first, and their scores; all if fewer.

    Scored in chunks, so that memory stays bounded. Ties are in the order of the items.
    """
    numbers = np.flatnonzero(wanted)
    scores = np.concatenate(
        [np.empty(0, np.float32), *(model.scores(vectors(rows)) for rows in _chunks(numbers))]
    )
    order = np.lexsort((numbers, -scores))[:k]
    return numbers[order], scores[order]


def _chunks(numbers: Numbers) -> Iterator[Numbers]:
    for start in range(0, len(numbers), CHUNK_ROWS):
        yield numbers[start : start + CHUNK_ROWS]
