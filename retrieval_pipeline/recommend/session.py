"""Votes -> what to show next, and what a person will like: an RBF-kernel SVM on the full vectors.

Everything above `Session` works on arrays alone; `Session` joins it with a build and stored votes.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.errors import RecommendError
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.recommend.votes import (
    Judgement,
    add_judgements,
    read_judgements,
    undo_judgement,
    votes_that_count,
)
from retrieval_pipeline.search.searcher import Location, Query, Searcher
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors

Numbers = npt.NDArray[np.int64]
Flags = npt.NDArray[np.bool_]

# Votes of each kind before the first model, as in the original: "more than two of each".
LEAST_VOTES = 3
# Votes of each kind from which C and gamma are chosen; below, folds hold one or two and choose by
# chance.
TUNING_VOTES = 10
# They are chosen anew when there are this many times more votes, so that most votes cost one fit.
TUNING_GROWTH = 1.25
FOLDS = 5
C_GRID = (1.0, 10.0)
# Times scikit-learn's "scale", 1 / (components x variance).
GAMMA_GRID = (0.5, 1.0, 2.0)
SEED = 20
# Unseen items, drawn at random, among which the next one is looked for: with the vectors of a
# large model 6 MB, scored in a few milliseconds.
SAMPLE_ITEMS = 2_000
# Judged images whose neighbours are looked at before a random sample is.
ANCHORS = 8
# Neighbours of a judged image among which the next one is looked for: more than people judge near
# one image before they go on.
NEIGHBOURS = 300
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


@dataclass(frozen=True)
class Pool:
    """The items that may be shown.

    Attributes:
        unseen: Which may be, bool (items,); the judged ones may not.
        vectors: Returns the vectors of items, float32 (n, d).
        neighbours: Returns the items nearest to a vector (d,), nearest first.
    """

    unseen: Flags
    vectors: Callable[[Numbers], Vectors]
    neighbours: Callable[[Vectors], Numbers]

    def sample(self, rng: np.random.Generator) -> Numbers:
        """Return up to SAMPLE_ITEMS unseen items in random order."""
        unseen = np.flatnonzero(self.unseen)
        return rng.choice(unseen, min(SAMPLE_ITEMS, len(unseen)), replace=False)

    def unseen_near(self, vector: Vectors) -> Numbers:
        """Return the unseen among the neighbours of a vector, nearest first."""
        near = self.neighbours(vector)
        return near[self.unseen[near]]


def next_item(
    pool: Pool, votes: Votes, model: Model | None, strategy: str, rng: np.random.Generator
) -> int | None:
    """Return the unseen item to vote on next; None if there is none left.

    Until there is a model: diverse images, and neighbours of what is still missing.

    Args:
        pool: What may be shown.
        votes: So far.
        model: Trained on them.
        strategy: A key of STRATEGIES.
        rng: Where chance comes from.
    """
    if not pool.unseen.any():
        return None
    choose = explore if model is None else functools.partial(STRATEGIES[strategy], model=model)
    return choose(pool, votes, rng=rng)


def explore(pool: Pool, votes: Votes, rng: np.random.Generator) -> int:
    """Choose in turn an image far from all judged ones, and one near a vote of the scarcer kind.

    Far: drawn with a chance that grows with the squared distance to the nearest judged image, as
    k-means++ draws its centres (Arthur & Vassilvitskii 2007). As long as there is no vote of the
    scarcer kind, any image takes the second turn: tastes often lie where images are dense, which
    far ones alone would visit late.
    """
    likes = votes.liked.sum()
    scarce = np.flatnonzero(votes.liked == (2 * likes <= len(votes)))
    if len(votes) % 2 and len(scarce):
        near = pool.unseen_near(votes.vectors[rng.choice(scarce)])
        if len(near):
            return int(near[0])
    sample = pool.sample(rng)
    if len(votes) % 2 or not len(votes):
        return int(sample[0])
    nearest = (pool.vectors(sample) @ votes.vectors.T).max(axis=1)
    weights = np.maximum(1 - nearest.astype(np.float64), 0)
    if weights.sum() <= 0:
        return int(sample[0])
    return int(rng.choice(sample, p=weights / weights.sum()))


def alternating(pool: Pool, votes: Votes, rng: np.random.Generator, model: Model) -> int:
    """Choose in turn an image predicted positive and one predicted negative.

    It is the nearest such neighbour of a judged image taken at random, as in the original. If no
    neighbour fits, the most fitting one of a random sample.
    """
    wanted = len(votes) % 2 == 0
    for anchor in rng.permutation(len(votes))[:ANCHORS]:
        near = pool.unseen_near(votes.vectors[anchor])
        fitting = near[(model.scores(pool.vectors(near)) > 0) == wanted]
        if len(fitting):
            return int(fitting[0])
    sample = pool.sample(rng)
    scores = model.scores(pool.vectors(sample))
    return int(sample[np.argmax(scores if wanted else -scores)])


def uncertain(pool: Pool, votes: Votes, rng: np.random.Generator, model: Model) -> int:
    """Choose the image closest to the decision boundary.

    Among a random sample and the neighbours of some liked images: where few images are liked, a
    sample alone would hold none near the boundary.
    """
    anchors = rng.permutation(np.flatnonzero(votes.liked))[:ANCHORS]
    near = [pool.unseen_near(votes.vectors[anchor]) for anchor in anchors]
    candidates = np.unique(np.concatenate([pool.sample(rng), *near]))
    return int(candidates[np.argmin(np.abs(model.scores(pool.vectors(candidates))))])


STRATEGIES: dict[str, Callable[..., int]] = {"alternating": alternating, "uncertain": uncertain}


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


@dataclass(frozen=True)
class Picture:
    """An item to vote on, or one that a model recommends.

    Attributes:
        number: Of the item in the build.
        content_id: Identity of the image's bytes.
        path: Absolute path of `location`.
        location: Its first location in the session's sources.
        locations: Every file that holds this image.
        width: Pixels of the upright picture.
        height: Likewise.
        score: Decision score, above 0 for a predicted like; None before there is a model.
    """

    number: int
    content_id: str
    path: Place
    location: Location
    locations: tuple[Location, ...]
    width: int
    height: int
    score: float | None

    @property
    def other_locations(self) -> tuple[Location, ...]:
        """The other files that hold the same image."""
        return tuple(place for place in self.locations if place != self.location)


class Session:
    """One person's voting in one recommender, on the current build. Every vote is stored at once.

    Attributes:
        name: Of the recommender.
        build: What pictures are taken from.
        votes: Those on items of this build; the model is trained on them.
        gone: Number of judged images that are not in this build: kept, but of no use now.
        model: None until there are LEAST_VOTES of each kind.
    """

    votes: Votes
    gone: int
    model: Model | None

    def __init__(
        self,
        searcher: Searcher,
        name: str,
        *,
        strategy: str = "alternating",
        sources: Sequence[str] = (),
    ) -> None:
        """Take up the votes of `name`; show only images of `sources` (all, if empty).

        Raises:
            RecommendError: The name is not allowed.
            QueryError: A source is not in the index.
            StoreError: The judgements are damaged.
        """
        self.name = name
        self.strategy = strategy
        self.build = searcher.build
        self._path_of = searcher.path_of
        self._store = Store(searcher.settings.home)
        self._sources = tuple(sources)
        allowed = searcher.allowed(Query(sources=self._sources))
        self._allowed = np.ones(len(self.build), np.bool_) if allowed is None else allowed.copy()
        self._numbers: dict[str, int] = {}
        self._predicted: list[bool | None] = []
        self._trainer = Trainer()
        self._take(read_judgements(self._store, name))

    @property
    def right(self) -> list[bool]:
        """Whether each vote of this session that was predicted was predicted right."""
        return [right for right in self._predicted if right is not None]

    def next(self) -> Picture | None:
        """Return the picture to vote on next; None if there is none left."""
        build = self.build
        pool = Pool(self._unseen(), build.vectors, functools.partial(_neighbours, build))
        # Seeded by how far the session is, so that it goes on alike after a pause.
        rng = np.random.default_rng([SEED, len(self.votes), int(self._allowed.sum())])
        number = next_item(pool, self.votes, self.model, self.strategy, rng)
        return None if number is None else self._pictures(np.array([number]))[0]

    def picture(self, content_id: str) -> Picture | None:
        """Return an indexed picture with its present score; None if the index has none such."""
        number = self.build.number_of(content_id)
        return None if number is None else self._pictures(np.array([number]))[0]

    def vote(self, picture: Picture, liked: bool) -> None:
        """Store a vote; raises StoreError, and changes nothing, if that cannot be done."""
        self._take(add_judgements(self._store, self.name, [(picture.content_id, liked)]))
        self._predicted.append(None if picture.score is None else (picture.score > 0) == liked)

    def add(self, votes: Sequence[tuple[str, bool]]) -> None:
        """Store many votes, (content id, liked) each; raises StoreError."""
        self._take(add_judgements(self._store, self.name, votes))

    def undo(self) -> tuple[Judgement | None, Picture | None]:
        """Take the last vote back; return it and its picture, to be shown again.

        Both are None if there is no vote; the picture is, if it has gone. Raises StoreError.
        """
        judgement, left = undo_judgement(self._store, self.name)
        if judgement is None:
            return None, None
        self._take(left)
        if self._predicted:
            self._predicted.pop()
        number = self._numbers.get(judgement.content_id)
        return judgement, None if number is None else self._pictures(np.array([number]))[0]

    def refresh(self) -> None:
        """Take over votes that were stored by somebody else; raises StoreError."""
        self._take(read_judgements(self._store, self.name))

    def set_aside(self, picture: Picture) -> None:
        """Do not show this picture in this session: its file has gone, for example."""
        self._allowed[picture.number] = False

    def ranking(self, k: int) -> list[Picture]:
        """Return the `k` best pictures that are not judged, best first; fewer if there are fewer.

        Raises:
            RecommendError: There are too few votes; the message says how many are missing.
        """
        if self.model is None:
            raise RecommendError(
                f'recommender "{self.name}" cannot rank yet: {self.votes_text}. '
                f"Vote with `retrieval recommend --name {self.name}`"
            )
        numbers, scores = rank(self.model, self.build.vectors, self._unseen(), k)
        return self._pictures(numbers, scores)

    @property
    def likes(self) -> int:
        """Number of liked images of this build."""
        return int(self.votes.liked.sum())

    @property
    def dislikes(self) -> int:
        """Number of judged images of this build that are not liked."""
        return len(self.votes) - self.likes

    @property
    def votes_text(self) -> str:
        """Say how many votes there are, and how many are missing until there is a model."""
        text = f"{self.likes} liked, {self.dislikes} not"
        if self.gone:
            text += f" ({self.gone} more on images that are not in the index)"
        missing = [
            f"{count} {kind}"
            for count, kind in zip(self.votes.missing, ("liked", "not liked"), strict=True)
            if count
        ]
        return f"{text}; missing {' and '.join(missing)}" if missing else text

    def quality(self) -> Quality | None:
        """Return how well the votes are predicted; None if there are too few to tell."""
        return cross_validate(self.votes.vectors, self.votes.liked)

    def _unseen(self) -> Flags:
        unseen = self._allowed.copy()
        unseen[self.votes.numbers] = False
        return unseen

    def _take(self, judgements: Sequence[Judgement]) -> None:
        """Make these the votes and train on them."""
        counted = votes_that_count(judgements)
        self._locate([content_id for content_id in counted if content_id not in self._numbers])
        here = [content_id for content_id in counted if content_id in self._numbers]
        numbers = np.array([self._numbers[content_id] for content_id in here], np.int64)
        liked = np.array([counted[content_id] for content_id in here], np.bool_)
        self.votes = Votes(numbers, self.build.vectors(numbers), liked)
        self.gone = len(counted) - len(here)
        self.model = self._trainer.train(self.votes)

    def _locate(self, content_ids: Sequence[str]) -> None:
        """Remember the items of these content ids, as far as the build has them."""
        if content_ids:
            known = self.build.items["content_id"]
            numbers = np.flatnonzero(pc.is_in(known, pa.array(content_ids, pa.string())))
            found = known.take(pa.array(numbers)).to_pylist()
            self._numbers.update(zip(found, numbers.tolist(), strict=True))

    def _pictures(
        self, numbers: Numbers, scores: npt.NDArray[np.float32] | None = None
    ) -> list[Picture]:
        build = self.build
        if scores is None and self.model is not None:
            scores = self.model.scores(build.vectors(numbers))
        columns = ["content_id", "locations", "width", "height"]
        rows = build.items.select(columns).take(pa.array(numbers)).to_pylist()
        pictures = []
        for index, (number, row) in enumerate(zip(numbers.tolist(), rows, strict=True)):
            places = tuple(Location(place["source"], place["path"]) for place in row["locations"])
            # An image that was undone may be of another source.
            first = next((each for each in places if each.source in self._sources), places[0])
            pictures.append(
                Picture(
                    number=number,
                    content_id=row["content_id"],
                    path=self._path_of(first),
                    location=first,
                    locations=places,
                    width=row["width"],
                    height=row["height"],
                    score=None if scores is None else float(scores[index]),
                )
            )
        return pictures


def _neighbours(build: Build, vector: Vectors) -> Numbers:
    """Return the nearest items to a unit vector, nearest first."""
    return build.best(vector, NEIGHBOURS)[0]
