"""The smaller pages, and the addresses of all pages and of the fragments that scripts ask for."""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from retrieval_pipeline.latent_map.fact_groups import known_facts
from retrieval_pipeline.search.duplicate_plan import LEFT_ALBUM
from retrieval_pipeline.web import album_page, api, assets, search_page, vote_page
from retrieval_pipeline.web.api import library_of, may_reveal
from retrieval_pipeline.web.api_models import FailuresOf
from retrieval_pipeline.web.api_routes import OPERATIONS
from retrieval_pipeline.web.duplicates import PlanAddress, planned, script_of
from retrieval_pipeline.web.frame import (
    Form,
    parse_address,
    read_form,
    render_fragment,
    render_page,
    shown,
)
from retrieval_pipeline.web.news import events
from retrieval_pipeline.web.openapi import openapi
from retrieval_pipeline.web.operations import Nothing
from retrieval_pipeline.web.parameters import ContentId, Search, SearchPage, parse
from retrieval_pipeline.web.selection import SELECTION_BYTES, Selected, archive

# Pictures like one that are shown beside it.
SIMILAR = 12
# Groups of duplicates, and failed files, on a page.
ON_A_PAGE = 60


class PictureAddress(Search):
    """One picture, and the search by which it was found."""

    content_id: ContentId


class Download(Form, frozen=True):
    """What the page sends for a zip file of what is selected.

    Attributes:
        content_ids: Of the pictures, with commas between them.
    """

    content_ids: str


async def picture_page(request: Request) -> Response:
    """Show one picture."""
    return render_page(request, "picture", **await _picture(request))


async def picture_fragment(request: Request) -> Response:
    """Show one picture inside of another page."""
    return render_fragment(request, "_picture", **await _picture(request))


async def _picture(request: Request) -> dict[str, Any]:
    asked = parse_address(request, PictureAddress)
    library = library_of(request)
    details = await library.run(library.snapshot.pictures.details, asked.content_id, asked.query())
    page = SearchPage(like=[asked.content_id], k=SIMILAR)
    _, answer = await library.search(page)
    return {"details": details, "similar": answer.hits, "may_reveal": may_reveal(request)}


async def download(request: Request) -> Response:
    """Give the files of what is selected: the browser writes what it is sent straight to a file."""
    form = await read_form(request, Download, SELECTION_BYTES)
    selected = parse(Selected, [("content_ids", each) for each in form.content_ids.split(",")], {})
    return await archive(request, selected)


async def map_page(request: Request) -> Response:
    """Show the map."""
    asked = parse_address(request, Search)
    snapshot = library_of(request).snapshot
    at = snapshot.mapped()
    return render_page(
        request,
        "map",
        has_neighbours=at.neighbours is not None,
        facts=known_facts(at.corpus),
        search=asked,
        count=len(snapshot.index),
    )


async def duplicates_page(request: Request) -> Response:
    """Show what is there more than once, what of it stays, and what could go."""
    asked = parse_address(request, PlanAddress)
    asked = asked.model_copy(update={"k": min(asked.k, ON_A_PAGE)})
    library = library_of(request)
    future = library.duplicates()
    found = None
    if future.done():
        found = await library.run(planned, library.snapshot, future.result(), asked)
    sources = library.settings.source_names
    return render_page(
        request,
        "duplicates",
        found=found,
        asked=asked,
        page=asked,
        sources=sources,
        album=LEFT_ALBUM,
    )


async def duplicates_script(request: Request) -> Response:
    """Give the script that does with duplicates what their page proposes."""
    asked = parse_address(request, PlanAddress)
    library = library_of(request)
    groups = await library.duplicates()
    script = await library.run(script_of, library.snapshot, groups, asked)
    headers = {"content-disposition": 'attachment; filename="duplicates.sh"'}
    return Response(script, media_type="application/x-sh", headers=headers)


async def quarantine_page(request: Request) -> Response:
    """Show the files that could not be used."""
    asked = parse_address(request, FailuresOf)
    found = await api.quarantine(request, asked)
    return render_page(request, "quarantine", found=found, asked=asked)


async def status_page(request: Request) -> Response:
    """Show what is indexed, and how fresh it is."""
    state = await api.status(request, Nothing())
    return render_page(request, "status", state=state, dagster_url=request.app.state.dagster_url)


async def api_page(request: Request) -> Response:
    """Show the documentation of the API."""
    return render_page(request, "api", document=openapi(OPERATIONS))


async def api_document(request: Request) -> Response:
    """Give the OpenAPI document."""
    return JSONResponse(openapi(OPERATIONS))


ROUTES = [
    Route("/", shown(search_page.search_page)),
    Route("/fragments/search", shown(search_page.search_fragment)),
    Route("/fragments/cards", shown(search_page.cards_fragment)),
    Route("/picture/{content_id}", shown(picture_page)),
    Route("/fragments/picture/{content_id}", shown(picture_fragment)),
    Route("/vote", shown(vote_page.vote_page)),
    Route("/vote", shown(vote_page.take_ballot), methods=["POST"]),
    Route("/fragments/vote", shown(vote_page.vote_fragment)),
    Route("/zip", shown(download), methods=["POST"]),
    Route("/albums", shown(album_page.albums_page)),
    Route("/albums", shown(album_page.change_album), methods=["POST"]),
    Route("/map", shown(map_page)),
    Route("/duplicates", shown(duplicates_page)),
    Route("/duplicates/script", shown(duplicates_script)),
    Route("/quarantine", shown(quarantine_page)),
    Route("/status", shown(status_page)),
    Route("/api", api_page),
    Route("/api/openapi.json", api_document),
    Route("/events", shown(events)),
    *assets.ROUTES,
]
