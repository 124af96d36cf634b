"""A recommender: stored votes and an index, what to show next, and what a person will like.

The model is in `svm`, the choice of the next picture in `active_learning`: both know arrays alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.errors import RecommendError
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.recommend.active_learning import Pool, next_item
from retrieval_pipeline.recommend.pictures import pictures_of
from retrieval_pipeline.recommend.svm import (
    SEED,
    Model,
    Quality,
    Trainer,
    Votes,
    cross_validate,
    rank,
)
from retrieval_pipeline.recommend.votes import (
    Judgement,
    add_judgements,
    read_judgements,
    retract_judgements,
    undo_judgement,
    votes_that_count,
)
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Flags, Numbers


@dataclass(frozen=True)
class Candidate:
    """An item to vote on, or one that a model recommends.

    Attributes:
        number: Of the picture in this recommender.
        content_id: Identity of the image's bytes.
        path: Absolute path of `location`.
        location: Its first location in the recommender's sources.
        locations: Every file that holds this image.
        width: Pixels of the upright picture.
        height: Pixels of the upright picture.
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


class Recommender:
    """One person's voting in one recommender, on the current build. Every vote is stored at once.

    Attributes:
        name: Of the recommender.
        index: What pictures are taken from.
        note: Says so if not all pictures of the index are looked at; "" if they are.
        votes: Those on pictures of this index; the model is trained on them.
        gone: Number of judged images that are not in this index: kept, but of no use now.
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
        self.index = searcher.index
        self._path_of = searcher.path_of
        self._store = Store(searcher.settings.home)
        self._sources = tuple(sources)
        judgements = read_judgements(self._store, name)
        self._choices, self.note = pictures_of(
            searcher, Query(sources=self._sources), {*votes_that_count(judgements)}
        )
        self._aside: set[int] = set()
        self._numbers: dict[str, int] = {}
        self._predicted: list[bool | None] = []
        self._trainer = Trainer()
        self._take(judgements)

    @property
    def right(self) -> list[bool]:
        """Whether each vote of this recommender that was predicted was predicted right."""
        return [right for right in self._predicted if right is not None]

    def next(self) -> Candidate | None:
        """Return the picture to vote on next; None if there is none left."""
        choices = self._choices
        pool = Pool(self._unseen(), choices.vectors, choices.neighbours)
        # Seeded by how far the recommender is, so that it goes on alike after a pause.
        rng = np.random.default_rng([SEED, len(self.votes), int(self._allowed().sum())])
        number = next_item(pool, self.votes, self.model, self.strategy, rng)
        return None if number is None else self._pictures(np.array([number]))[0]

    def picture(self, content_id: str) -> Candidate | None:
        """Return an indexed picture with its present score; None if the index has none such."""
        number = self._choices.find([content_id]).get(content_id)
        return None if number is None else self._pictures(np.array([number]))[0]

    def vote(self, picture: Candidate, liked: bool) -> None:
        """Store a vote at once.

        Raises:
            StoreError: It cannot be stored; nothing has changed.
        """
        self._take(add_judgements(self._store, self.name, [(picture.content_id, liked)]))
        self._predicted.append(None if picture.score is None else (picture.score > 0) == liked)

    def add(self, votes: Sequence[tuple[str, bool]]) -> None:
        """Store many votes, each (content id, liked).

        Raises:
            StoreError: They cannot be stored; nothing has changed.
        """
        self._take(add_judgements(self._store, self.name, votes))

    def undo(self) -> tuple[Judgement | None, Candidate | None]:
        """Take the last vote back; return the vote and its picture, to be shown again.

        Both are None if there is no vote. The picture is None if it left the index.

        Raises:
            StoreError: The vote cannot be taken back; nothing has changed.
        """
        judgement, left = undo_judgement(self._store, self.name)
        if judgement is None:
            return None, None
        self._take(left)
        if self._predicted:
            self._predicted.pop()
        number = self._numbers.get(judgement.content_id)
        return judgement, None if number is None else self._pictures(np.array([number]))[0]

    def retract(self, *content_ids: str) -> None:
        """Take back every vote on these pictures, as if nobody had voted on them.

        Raises:
            StoreError: The votes cannot be taken back; nothing has changed.
        """
        self._take(retract_judgements(self._store, self.name, content_ids))

    def refresh(self) -> None:
        """Read the votes anew: another program may have stored some.

        Raises:
            StoreError: The judgements are damaged.
        """
        self._take(read_judgements(self._store, self.name))

    def set_aside(self, picture: Candidate) -> None:
        """Do not show this picture in this recommender: its file has gone, for example."""
        self._aside.add(picture.number)

    def ranking(self, k: int) -> list[Candidate]:
        """Return the `k` best pictures that are not judged, best first; fewer if there are fewer.

        Raises:
            RecommendError: There are too few votes; the message says how many are missing.
        """
        if self.model is None:
            raise RecommendError(
                f'recommender "{self.name}" cannot rank yet: {self.votes_text}. '
                f"Vote with `retrieval recommend --name {self.name}`"
            )
        numbers, scores = rank(self.model, self._choices.vectors, self._unseen(), k)
        return self._pictures(numbers, scores)

    @property
    def likes(self) -> int:
        """Number of liked images of this index."""
        return int(self.votes.liked.sum())

    @property
    def dislikes(self) -> int:
        """Number of judged images of this index that are not liked."""
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

    def _allowed(self) -> Flags:
        allowed = self._choices.allowed.copy()
        allowed[[*self._aside]] = False
        return allowed

    def _unseen(self) -> Flags:
        unseen = self._allowed()
        unseen[self.votes.numbers] = False
        return unseen

    def _take(self, judgements: Sequence[Judgement]) -> None:
        """Make these the votes and train on them."""
        counted = votes_that_count(judgements)
        new = [content_id for content_id in counted if content_id not in self._numbers]
        self._numbers.update(self._choices.find(new))
        here = [content_id for content_id in counted if content_id in self._numbers]
        numbers = np.array([self._numbers[content_id] for content_id in here], np.int64)
        liked = np.array([counted[content_id] for content_id in here], np.bool_)
        self._choices.look_near(numbers)
        self.votes = Votes(numbers, self._choices.vectors(numbers), liked)
        self.gone = len(counted) - len(here)
        self.model = self._trainer.train(self.votes)

    def _pictures(
        self, numbers: Numbers, scores: npt.NDArray[np.float32] | None = None
    ) -> list[Candidate]:
        choices = self._choices
        if scores is None and self.model is not None:
            scores = self.model.scores(choices.vectors(numbers))
        pictures = []
        records = choices.records(numbers)
        for index, (number, item) in enumerate(zip(numbers.tolist(), records, strict=True)):
            places = item.locations
            # An image that was undone may be of another source.
            first = next((each for each in places if each.source in self._sources), places[0])
            pictures.append(
                Candidate(
                    number=number,
                    content_id=item.content_id,
                    path=self._path_of(first),
                    location=first,
                    locations=places,
                    width=item.width,
                    height=item.height,
                    score=None if scores is None else float(scores[index]),
                )
            )
        return pictures
