"""Votes on pictures into a named recommender, what it shows next and what it recommends."""

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, StrictBool

from retrieval_pipeline.recommend.recommender import Candidate, Recommender
from retrieval_pipeline.recommend.votes import read_judgements, votes_that_count
from retrieval_pipeline.web.indexed_pictures import not_indexed
from retrieval_pipeline.web.parameters import ContentId, RecommenderName
from retrieval_pipeline.web.pictures import FileLocation, Picture
from retrieval_pipeline.web.snapshot import Snapshot

DEFAULT_NAME = "favourites"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Named(_Model):
    """A recommender."""

    name: RecommenderName = Field(description="Name of the recommender.")


class Retraction(Named):
    """Which vote is taken back."""

    content_id: ContentId | None = Field(
        default=None, description="Take back the votes on this picture, not the last vote of all."
    )


class RankingOf(Named):
    """A recommender's ranking."""

    k: Annotated[int, Field(ge=1, le=600)] = Field(default=24, description="How many pictures.")


class Vote(Named):
    """A vote on one picture."""

    content_id: ContentId
    liked: StrictBool


class OnePicture(Named):
    """A picture in a recommender."""

    content_id: ContentId


class Tally(BaseModel):
    """How a recommender stands.

    Attributes:
        name: Of the recommender.
        liked: Votes for pictures of this index.
        not_liked: Votes against them.
        gone: Votes on pictures that are not in this index.
        missing_liked: Likes that are missing until it can rank.
        missing_not_liked: Dislikes, likewise.
        predicted: Votes since the server started that were predicted.
        right: How many of those were predicted right.
        note: Says so if it does not look at all pictures; "" if it does.
    """

    name: str
    liked: int
    not_liked: int
    gone: int
    missing_liked: int
    missing_not_liked: int
    predicted: int
    right: int
    note: str

    @property
    def missing(self) -> str:
        """What is missing until it can rank, in words."""
        kinds = [(self.missing_liked, "liked"), (self.missing_not_liked, "not liked")]
        return " and ".join(f"{count} more {kind}" for count, kind in kinds if count)


class Votes(Tally):
    """How a recommender stands, and its votes.

    Attributes:
        votes: Whether each picture that was voted on is liked.
    """

    votes: dict[str, bool]


class Next(Tally):
    """The picture to vote on next; none when all have been judged."""

    picture: Picture | None


class Undone(Tally):
    """The vote that was taken back; none if there was none.

    Attributes:
        content_id: What it was on.
        indexed: Whether that picture is in this index.
    """

    content_id: str | None
    indexed: bool


class Recommendations(Tally):
    """The best pictures that were not judged yet; none as long as votes are missing."""

    hits: list[Picture]


def tally(session: Recommender) -> dict[str, Any]:
    """Return the fields of a Tally."""
    missing_liked, missing_not_liked = session.votes.missing
    return {
        "name": session.name,
        "liked": session.likes,
        "not_liked": session.dislikes,
        "gone": session.gone,
        "note": session.note,
        "missing_liked": missing_liked,
        "missing_not_liked": missing_not_liked,
        "predicted": len(session.right),
        "right": sum(session.right),
    }


def votes(snapshot: Snapshot, name: str) -> Votes:
    """Return all votes of a recommender; none if nobody voted yet. Raises StoreError."""
    with snapshot.votes.session(name) as session:
        return _with_votes(snapshot, session)


def vote(snapshot: Snapshot, given: Vote) -> Votes:
    """Store a vote.

    Raises:
        RequestError: There is no such picture; 404.
        StoreError: The vote cannot be stored, and does not count.
    """
    with snapshot.votes.session(given.name) as session:
        picture = session.picture(given.content_id)
        if picture is None:
            raise not_indexed(given.content_id)
        session.vote(picture, given.liked)
        return _with_votes(snapshot, session)


def vote_on_several(
    snapshot: Snapshot, name: str, content_ids: Sequence[str], liked: bool | None
) -> Votes:
    """Store the same vote on several pictures, or take back the votes on them if `liked` is None.

    Raises:
        RequestError: One of them is not in the index; 404.
        StoreError: The votes cannot be stored, and do not count.
    """
    for content_id in content_ids:
        snapshot.pictures.item(content_id)
    with snapshot.votes.session(name) as session:
        if liked is None:
            session.retract(*content_ids)
        else:
            session.add([(content_id, liked) for content_id in content_ids])
        return _with_votes(snapshot, session)


def undo(snapshot: Snapshot, name: str) -> Undone:
    """Take the last vote back. Raises StoreError."""
    with snapshot.votes.session(name) as session:
        judgement, picture = session.undo()
        return Undone(
            content_id=judgement.content_id if judgement else None,
            indexed=picture is not None,
            **tally(session),
        )


def retract(snapshot: Snapshot, name: str, content_id: str) -> Undone:
    """Take back the votes on one picture. Raises StoreError."""
    with snapshot.votes.session(name) as session:
        session.retract(content_id)
        indexed = snapshot.pictures.has(content_id)
        return Undone(content_id=content_id, indexed=indexed, **tally(session))


def next_picture(snapshot: Snapshot, name: str, show: str | None = None) -> Next:
    """Return the picture to vote on: `show`, if that is one. Raises StoreError."""
    with snapshot.votes.session(name) as session:
        picture = session.picture(show) if show else None
        picture = picture or session.next()
        return Next(picture=None if picture is None else _told(snapshot, picture), **tally(session))


def set_aside(snapshot: Snapshot, name: str, content_id: str) -> None:
    """Do not show a picture in this session: its file has gone. Raises StoreError."""
    with snapshot.votes.session(name) as session:
        picture = session.picture(content_id)
        if picture is not None:
            session.set_aside(picture)


def ranking(snapshot: Snapshot, name: str, k: int) -> Recommendations:
    """Return what a recommender recommends. Raises StoreError."""
    with snapshot.votes.session(name) as session:
        pictures = session.ranking(k) if session.model else []
        return Recommendations(hits=[_told(snapshot, each) for each in pictures], **tally(session))


def _with_votes(snapshot: Snapshot, session: Recommender) -> Votes:
    counted = votes_that_count(read_judgements(snapshot.store, session.name))
    return Votes(votes=counted, **tally(session))


def _told(snapshot: Snapshot, picture: Candidate) -> Picture:
    return Picture(
        content_id=picture.content_id,
        source=picture.location.source,
        path=picture.location.path,
        score=None if picture.score is None else round(picture.score, 6),
        width=picture.width,
        height=picture.height,
        cluster=snapshot.cluster_of(picture.content_id),
        locations=[FileLocation.of(location) for location in picture.locations],
    )
