"""The page that asks for votes, one picture at a time."""

from http import HTTPStatus
from typing import Any, Literal
from urllib.parse import urlencode

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from retrieval_pipeline.recommend.votes import recommender_names
from retrieval_pipeline.web import voting
from retrieval_pipeline.web.api import library_of
from retrieval_pipeline.web.frame import (
    Form,
    parse_address,
    read_form,
    render_fragment,
    render_page,
    root_of,
)
from retrieval_pipeline.web.parameters import ContentId, RecommenderName

# Pictures that are shown as recommended.
RECOMMENDED = 12


class Ballot(Form, frozen=True):
    """What the form of the vote page sends.

    Attributes:
        name: Of the recommender.
        vote: y, n, or u to take the last vote back.
        content_id: What is voted on.
    """

    name: RecommenderName
    vote: Literal["y", "n", "u"]
    content_id: ContentId | None = None


class VoteAddress(BaseModel, extra="forbid", frozen=True):
    """Which recommender, and which picture to vote on.

    Attributes:
        name: Of the recommender.
        show: The picture to vote on, if not the next one.
    """

    name: RecommenderName = voting.DEFAULT_NAME
    show: ContentId | None = None


async def vote_page(request: Request) -> Response:
    """Show pictures to vote on, one after the other."""
    library = library_of(request)
    names = await library.run(recommender_names, library.store)
    return render_page(request, "vote", names=names, **await _vote(request))


async def take_ballot(request: Request) -> Response:
    """Take a vote from the form of the vote page, and show the next picture."""
    ballot = await read_form(request, Ballot)
    library = library_of(request)
    snapshot = library.snapshot
    shown = None
    if ballot.vote == "u":
        undone = await library.run(voting.undo, snapshot, ballot.name)
        shown = undone.content_id if undone.indexed else None
    elif ballot.content_id is not None:
        given = voting.Vote(
            name=ballot.name, content_id=ballot.content_id, liked=ballot.vote == "y"
        )
        await library.run(voting.vote, snapshot, given)
    query = {"name": ballot.name} | ({"show": shown} if shown else {})
    return RedirectResponse(f"{root_of(request)}/vote?{urlencode(query)}", HTTPStatus.SEE_OTHER)


async def vote_fragment(request: Request) -> Response:
    """Show the next picture to vote on."""
    return render_fragment(request, "_vote", **await _vote(request))


async def _vote(request: Request) -> dict[str, Any]:
    asked = parse_address(request, VoteAddress)
    library = library_of(request)
    snapshot = library.snapshot
    following = await library.run(voting.next_picture, snapshot, asked.name, asked.show)
    ranking = await library.run(voting.ranking, snapshot, asked.name, RECOMMENDED)
    return {"following": following, "ranking": ranking.hits}
