"""Which picture to ask about next."""

import functools
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from retrieval_pipeline.recommend.svm import Model, Votes
from retrieval_pipeline.vectors import Flags, Numbers, Vectors

# Unseen items, drawn at random, among which the next one is looked for: with the vectors of a
# large model 6 MB, scored in a few milliseconds.
SAMPLE_ITEMS = 2_000
# Judged images whose neighbours are looked at before a random sample is.
ANCHORS = 8


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

    The far image is drawn with a chance that grows with its squared distance to the nearest judged
    image, as k-means++ draws its centres (Arthur & Vassilvitskii 2007). As long as there is no vote
    of the scarcer kind, any image takes the second turn: tastes often lie where images are dense,
    and far images alone would get there late.
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

    The choice is the nearest neighbour, with the wanted prediction, of a judged image taken at
    random, as in the original. If no neighbour has it, the image of a random sample with the
    highest (or lowest) score.
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

    Candidates are a random sample and the neighbours of some liked images: where few images are
    liked, a sample alone would hold none near the boundary.
    """
    anchors = rng.permutation(np.flatnonzero(votes.liked))[:ANCHORS]
    near = [pool.unseen_near(votes.vectors[anchor]) for anchor in anchors]
    candidates = np.unique(np.concatenate([pool.sample(rng), *near]))
    return int(candidates[np.argmin(np.abs(model.scores(pool.vectors(candidates))))])


STRATEGIES: dict[str, Callable[..., int]] = {"alternating": alternating, "uncertain": uncertain}
