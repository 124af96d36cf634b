"""The HTML pages, and the fragments of them that the scripts ask for."""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from http import HTTPStatus
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal, TypeVar
from urllib.parse import parse_qsl, urlencode

from pydantic import BaseModel, Field
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from retrieval_pipeline.errors import BuildError, RetrievalError
from retrieval_pipeline.latent_map.html import MAP_SCRIPTS
from retrieval_pipeline.recommend.votes import recommender_names
from retrieval_pipeline.rendering.templating import environment, read_texts
from retrieval_pipeline.storage.content_id import content_id
from retrieval_pipeline.web import api, voting
from retrieval_pipeline.web.api import access_of, library_of, may_reveal
from retrieval_pipeline.web.api_models import FailuresOf
from retrieval_pipeline.web.api_routes import OPERATIONS
from retrieval_pipeline.web.browse import (
    FacetLinks,
    address,
    breadcrumbs,
    facet_links,
    folder_of,
    present_folder,
)
from retrieval_pipeline.web.duplicates import PlanAddress, planned, script_of
from retrieval_pipeline.web.files import GoneError
from retrieval_pipeline.web.news import events
from retrieval_pipeline.web.openapi import openapi
from retrieval_pipeline.web.operations import Nothing, as_request_error, read_limited
from retrieval_pipeline.web.parameters import (
    ContentId,
    RecommenderName,
    Search,
    SearchPage,
    parse,
)
from retrieval_pipeline.web.pictures import NARROWEST, WIDEST, AnswerPage, WordsRead
from retrieval_pipeline.web.problems import RequestError
from retrieval_pipeline.web.selection import SELECTION_BYTES, Selected, archive

PACKAGE = "retrieval_pipeline.web"
STATIC = files(PACKAGE) / "static"
# Names of clusters that are suggested to whoever has not asked anything yet.
SUGGESTIONS = 12
# Pictures like one that are shown beside it.
SIMILAR = 12
# How large pictures are, of which the third size needs no word, and that captions are hidden.
LOOKS = ("size1", "size2", "size4", "size5", "uncaptioned")
# Groups of duplicates, and failed files, on a page.
ON_A_PAGE = 60

M = TypeVar("M", bound=BaseModel)


class SearchAddress(SearchPage):
    """What the address of the search page may hold besides the search.

    Attributes:
        view: The picture that is shown large.
        refine: What was typed to add: "snow" or "+ snow", or "- people".
    """

    view: ContentId | None = None
    refine: str | None = Field(default=None, max_length=1_000)


class PictureAddress(Search):
    """One picture, and the search by which it was found."""

    content_id: ContentId


class Ballot(BaseModel, extra="forbid", frozen=True):
    """What the form of the vote page sends.

    Attributes:
        token: What only pages of this server can read.
        name: Of the recommender.
        vote: y, n, or u to take the last vote back.
        content_id: What is voted on.
    """

    token: str = ""
    name: RecommenderName
    vote: Literal["y", "n", "u"]
    content_id: ContentId | None = None


class Download(BaseModel, extra="forbid", frozen=True):
    """What the page sends for a zip file of what is selected.

    Attributes:
        token: What only pages of this server can read.
        content_ids: Of the pictures, with commas between them.
    """

    token: str = ""
    content_ids: str


class VoteAddress(BaseModel, extra="forbid", frozen=True):
    """Which recommender, and which picture to vote on.

    Attributes:
        name: Of the recommender.
        show: The picture to vote on, if not the next one.
    """

    name: RecommenderName = voting.DEFAULT_NAME
    show: ContentId | None = None


@dataclass(frozen=True)
class Chip:
    """A part of a search, and the address of the search without it.

    Attributes:
        text: What it says.
        kind: Name of its parameter.
        value: Of that.
        without: The address.
        picture: Address of its thumbnail.
    """

    text: str
    kind: str
    value: str
    without: str
    picture: str | None = None


@dataclass(frozen=True)
class Results:
    """A search and its first pictures, or why there are none.

    Attributes:
        search: What was asked.
        answer: The pictures.
        problem: Why there are none.
        chips: The parts of the search.
        filters: How many filters are set.
        suggestions: Words to look for.
        count: Pictures in the index.
        sources: Names of the sources in the index.
        without_cut: Address of the search without its least relevance.
        facets: What to choose from.
    """

    search: SearchPage
    answer: AnswerPage | None
    problem: RequestError | None
    chips: Sequence[Chip]
    filters: int
    suggestions: Sequence[str]
    count: int
    sources: Sequence[str]
    without_cut: str
    facets: Sequence[FacetLinks]

    @property
    def by_relevance(self) -> bool:
        """Whether the likely hits are the first ones."""
        return self.search.sort == "relevance"

    @property
    def listing(self) -> str:
        """What is shown where nothing is looked for, and in which order."""
        orders = {"oldest": "oldest first", "name": "by name"}
        return f"Pictures, {orders.get(self.search.sort, 'newest first')}"


def verdict(answer: AnswerPage) -> str:
    """Say how far the hits of a first page can be trusted."""
    if answer.likely is not None and answer.likely == len(answer.hits) and answer.more:
        return f"The first {answer.likely} are likely"
    return answer.verdict[:1].upper() + answer.verdict[1:]


def month_name(month: str) -> str:
    """Return what a month is called: "August 2019" for "2019-08"."""
    return f"{datetime.fromisoformat(f'{month}-01'):%B %Y}" if month else "Without a date"


def _chips(search: Search) -> list[Chip]:
    kinds = {
        "plus": "+ {}",
        "minus": "− {}",
        "source": "in {}",
        "path": "path {}",
        "after": "taken since {}",
        "before": "taken before {}",
        "on": "taken {}",
        "year": "taken in {}",
        "file_after": "changed since {}",
        "file_before": "changed before {}",
        "camera": "camera {}",
        "lens": "lens {}",
        "near": "near {}",
        "within": "within {}",
        "country": "in {}",
        "keyword": "keyword {}",
        "rating": "{} stars or more",
        "min_width": "at least {} wide",
        "min_height": "at least {} high",
        "format": "{} files",
        "min_relevance": "sure to {} or more",
        "collapse": "look-alikes once",
        "region": "a region of the map",
        "since": "new pictures",
        "sort": "sorted: {}",
        "literal": "words as they are",
        "album": "in the album {}",
        "like_album": "like the album {}",
        "like": "like this picture",
        "upload": "like your picture",
        "crop": "the part {} of it",
    }
    pictures = {"like": "/api/pictures/{}/thumbnail", "upload": "/api/uploads/{}"}
    return [
        Chip(
            text=_in_folder(value) if name == "path" else kinds[name].format(value),
            kind=name,
            value=value,
            without=address(search, drop=(name, value)),
            picture=pictures[name].format(value) if name in pictures else None,
        )
        for name, value in search.pairs()
        if name in kinds
    ]


def _in_folder(pattern: str) -> str:
    """Say which paths pass a glob."""
    folder = folder_of(pattern)
    return f"path {pattern}" if folder is None else f"in {folder.replace('/', ' › ')}"


def _understood(search: Search, read: WordsRead) -> Chip:
    """Return the chip of words that were not looked for as they are.

    Taking it away means to look for words that were read as a fact, and not to look for others.
    """
    if read.field in ("plus", "minus", "paths"):
        text = " ".join(search.text.replace(read.words, " ", 1).split())
        without = address(search.model_copy(update={"text": text}))
    else:
        without = address(search, ("literal", "true"))
    return Chip(read.meaning, "understood", read.words, without)


# Those that do not say what to look for.
_FILTERS = {
    *("source", "path", "after", "before", "on", "year", "file_after", "file_before"),
    *("camera", "lens", "near", "country", "keyword", "rating", "min_width", "min_height"),
    *("album", "format", "min_relevance", "collapse", "region", "since", "understood"),
}


async def _results(request: Request, page: SearchPage) -> Results:
    library = library_of(request)
    snapshot = library.snapshot
    answer, problem = None, None
    facets: list[FacetLinks] = []
    try:
        snapshot, answer = await library.search(page)
        counted = await library.run(snapshot.facets, page, present_folder(page))
        facets = facet_links(page, counted)
    except (RequestError, RetrievalError, GoneError) as error:
        problem = as_request_error(error)
    chips = _chips(page)
    if answer is not None:
        chips += [_understood(page, each) for each in answer.understood]
    return Results(
        search=page,
        answer=answer,
        problem=problem,
        chips=chips,
        filters=sum(chip.kind in _FILTERS for chip in chips),
        suggestions=snapshot.cluster_names[:SUGGESTIONS],
        count=len(snapshot.index),
        sources=list(snapshot.index.info.sources),
        without_cut=address(page.model_copy(update={"min_relevance": 0})),
        facets=facets,
    )


async def search_page(request: Request) -> Response:
    """Show the search page with the first results."""
    asked = _parsed(request, SearchAddress)
    if asked.refine is not None:
        return RedirectResponse(
            root_of(request) + _refined(asked, asked.refine), HTTPStatus.SEE_OTHER
        )
    results = await _results(request, asked)
    status = results.problem.status if results.problem else HTTPStatus.OK
    return _page(
        request,
        "search",
        status,
        results=results,
        view=asked.view,
        files_of=_files_of(asked),
    )


def _refined(search: Search, typed: str) -> str:
    """Return the address of a search with what was typed to add or take away."""
    typed = typed.strip()
    kind = "minus" if typed[:1] in ("-", "−") else "plus"
    words = typed.lstrip("+-− ").strip()
    return address(search, (kind, words)) if words else address(search)


async def search_fragment(request: Request) -> Response:
    """Show what changes on the search page when another search is made."""
    results = await _results(request, _parsed(request, SearchAddress))
    return _fragment(request, "_results", results=results, files_of=_files_of(results.search))


async def cards_fragment(request: Request) -> Response:
    """Show further pictures of a search."""
    page = _parsed(request, SearchPage)
    _, answer = await library_of(request).search(page)
    return _fragment(
        request,
        "_cards",
        pictures=answer.hits,
        more=answer.more,
        build=answer.build,
        files_of=_files_of(page),
    )


def _files_of(search: Search) -> str:
    """Return what the address of a picture says of the files that a search means."""
    named = {"source", "path", "after", "before"}
    pairs = [(name, value) for name, value in search.pairs() if name in named]
    return f"?{urlencode(pairs)}" if pairs else ""


async def picture_page(request: Request) -> Response:
    """Show one picture."""
    return _page(request, "picture", **await _picture(request))


async def picture_fragment(request: Request) -> Response:
    """Show one picture inside of another page."""
    return _fragment(request, "_picture", **await _picture(request))


async def _picture(request: Request) -> dict[str, Any]:
    asked = _parsed(request, PictureAddress)
    library = library_of(request)
    details = await library.run(library.snapshot.details, asked.content_id, asked.query())
    page = SearchPage(like=[asked.content_id], k=SIMILAR)
    _, answer = await library.search(page)
    return {"details": details, "similar": answer.hits, "may_reveal": may_reveal(request)}


async def vote_page(request: Request) -> Response:
    """Show pictures to vote on, one after the other."""
    library = library_of(request)
    names = await library.run(recommender_names, library.store)
    return _page(request, "vote", names=names, **await _vote(request))


async def take_ballot(request: Request) -> Response:
    """Take a vote from the form of the vote page, and show the next picture."""
    form = (await read_limited(request)).decode("ascii", "replace")
    ballot = parse(Ballot, parse_qsl(form, max_num_fields=10), {})
    access_of(request).check(ballot.token)
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


async def download(request: Request) -> Response:
    """Give the files of what is selected: the browser writes what it is sent straight to a file."""
    sent = (await read_limited(request, SELECTION_BYTES)).decode("ascii", "replace")
    form = parse(Download, parse_qsl(sent, max_num_fields=10), {})
    access_of(request).check(form.token)
    selected = parse(Selected, [("content_ids", each) for each in form.content_ids.split(",")], {})
    return await archive(request, selected)


async def vote_fragment(request: Request) -> Response:
    """Show the next picture to vote on."""
    return _fragment(request, "_vote", **await _vote(request))


async def _vote(request: Request) -> dict[str, Any]:
    asked = _parsed(request, VoteAddress)
    library = library_of(request)
    snapshot = library.snapshot
    following = await library.run(voting.next_picture, snapshot, asked.name, asked.show)
    ranking = await library.run(voting.ranking, snapshot, asked.name, SIMILAR)
    return {"following": following, "ranking": ranking.hits}


async def map_page(request: Request) -> Response:
    """Show the map."""
    asked = _parsed(request, Search)
    snapshot = library_of(request).snapshot
    snapshot.mapped()
    return _page(
        request,
        "map",
        search=asked,
        count=len(snapshot.index),
    )


async def duplicates_page(request: Request) -> Response:
    """Show what is there more than once, what of it stays, and what could go."""
    asked = _parsed(request, PlanAddress)
    asked = asked.model_copy(update={"k": min(asked.k, ON_A_PAGE)})
    library = library_of(request)
    future = library.duplicates()
    found = None
    if future.done():
        found = await library.run(planned, library.snapshot, future.result(), asked)
    sources = library.settings.source_names
    return _page(request, "duplicates", found=found, asked=asked, page=asked, sources=sources)


async def duplicates_script(request: Request) -> Response:
    """Give the script that does with duplicates what their page proposes."""
    asked = _parsed(request, PlanAddress)
    library = library_of(request)
    groups = await library.duplicates()
    script = await library.run(script_of, library.snapshot, groups, asked)
    headers = {"content-disposition": 'attachment; filename="duplicates.sh"'}
    return Response(script, media_type="application/x-sh", headers=headers)


async def quarantine_page(request: Request) -> Response:
    """Show the files that could not be used."""
    asked = _parsed(request, FailuresOf)
    found = await api.quarantine(request, asked)
    return _page(request, "quarantine", found=found, asked=asked)


async def status_page(request: Request) -> Response:
    """Show what is indexed, and how fresh it is."""
    state = await api.status(request, Nothing())
    return _page(request, "status", state=state, dagster_url=request.app.state.dagster_url)


async def api_page(request: Request) -> Response:
    """Show the documentation of the API."""
    return _page(request, "api", document=openapi(OPERATIONS))


async def api_document(request: Request) -> Response:
    """Give the OpenAPI document."""
    return JSONResponse(openapi(OPERATIONS))


def problem_page(request: Request, error: RequestError) -> Response:
    """Show what went wrong, to people."""
    html = (
        environment(PACKAGE)
        .get_template("problem.html.jinja")
        .render(**_frame(request, bare=True), error=error)
    )
    return HTMLResponse(html, error.status, headers=error.headers)


def _page(
    request: Request,
    name: str,
    status: HTTPStatus = HTTPStatus.OK,
    **values: Any,
) -> Response:
    template = environment(PACKAGE).get_template(f"{name}.html.jinja")
    html = template.render(_frame(request) | values | {"here": name})
    return HTMLResponse(html, status)


def _fragment(request: Request, name: str, **values: Any) -> Response:
    template = environment(PACKAGE).get_template(f"{name}.html.jinja")
    return HTMLResponse(template.render(_frame(request) | values))


def root_of(request: Request) -> str:
    """Return the path that all addresses of the server begin with; see `--root-path`."""
    root: str = request.scope.get("root_path", "")
    return root


def _frame(request: Request, *, bare: bool = False) -> dict[str, Any]:
    """Return what every page shows around its own; `bare` tells nothing to who is not known yet."""
    snapshot = None
    if not bare and library_of(request).is_open:
        snapshot = library_of(request).snapshot
    return {
        "root": root_of(request),
        "address": address,
        "verdict": verdict,
        "ago": _ago,
        "month_name": month_name,
        "breadcrumbs": breadcrumbs,
        "csrf_token": "" if bare else access_of(request).csrf_token,
        "look": _look(request),
        "model": snapshot.model if snapshot else None,
        "build": snapshot.name if snapshot else None,
        "version": _version(),
        "has_map": snapshot is not None and snapshot.coordinates is not None,
    }


def _look(request: Request) -> str:
    """Return the classes of a page for what its reader chose, which a cookie keeps; see look.js."""
    chosen = request.cookies.get("look", "").split(".")
    return " ".join(each for each in LOOKS if each in chosen)


def _parsed(request: Request, model: type[M]) -> M:
    return parse(model, request.query_params.multi_items(), request.path_params)


def _ago(moment: datetime | None) -> str:
    """Say how long ago something was."""
    if moment is None:
        return "never"
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for length, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' * (count != 1)} ago"
    return "just now"


def shown(
    page: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Turn what people can cause into a page that says so."""

    async def endpoint(request: Request) -> Response:
        try:
            return await page(request)
        except BuildError as error:
            if library_of(request).is_open:
                return problem_page(request, as_request_error(error))
            settings = library_of(request).settings
            return _page(
                request,
                "empty",
                HTTPStatus.SERVICE_UNAVAILABLE,
                problem=str(error),
                sources=settings.sources,
                running=await library_of(request).run(library_of(request).is_being_written),
            )
        except (RequestError, RetrievalError, GoneError) as error:
            return problem_page(request, as_request_error(error))

    return endpoint


@cache
def style_sheet() -> str:
    """Return the style sheet: the tokens that all pages of the project share, and its own.

    The policy forbids style attributes, so that each shape of a card has a class.
    """
    shapes = range(round(100 * NARROWEST), round(100 * WIDEST) + 1)
    rules = [f".s{shape}{{--r:{shape / 100:g}}}" for shape in shapes]
    shared = read_texts("tokens.css", "latent_map.css")
    return "\n".join([shared, (STATIC / "style.css").read_text("utf-8"), *rules])


@cache
def _version() -> str:
    """Return the folder that scripts and styles are served from: a new one for each change."""
    texts = [style_sheet(), read_texts(*MAP_SCRIPTS)]
    texts += [file.read_text("utf-8") for file in sorted_static()]
    return content_id("\n".join(texts).encode())[:12]


def sorted_static() -> list[Path]:
    """Return the files that are served as they are."""
    return sorted(Path(str(STATIC)).glob("*.[js]*"))


async def style(request: Request) -> Response:
    """Give the style sheet."""
    return Response(style_sheet(), media_type="text/css", headers={"cache-control": _CACHED})


async def map_scripts(request: Request) -> Response:
    """Give the scripts that draw maps, here and in the pages that stand alone."""
    script = read_texts(*MAP_SCRIPTS)
    return Response(script, media_type="text/javascript", headers={"cache-control": _CACHED})


_CACHED = "public, max-age=31536000, immutable"


class CachedFiles(StaticFiles):
    """Scripts and icons: the version in their addresses changes with them."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Answer with a file."""
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = _CACHED
        return response


ROUTES = [
    Route("/", shown(search_page)),
    Route("/fragments/search", shown(search_fragment)),
    Route("/fragments/cards", shown(cards_fragment)),
    Route("/picture/{content_id}", shown(picture_page)),
    Route("/fragments/picture/{content_id}", shown(picture_fragment)),
    Route("/vote", shown(vote_page)),
    Route("/vote", shown(take_ballot), methods=["POST"]),
    Route("/fragments/vote", shown(vote_fragment)),
    Route("/zip", shown(download), methods=["POST"]),
    Route("/map", shown(map_page)),
    Route("/duplicates", shown(duplicates_page)),
    Route("/duplicates/script", shown(duplicates_script)),
    Route("/quarantine", shown(quarantine_page)),
    Route("/status", shown(status_page)),
    Route("/api", api_page),
    Route("/api/openapi.json", api_document),
    Route("/events", shown(events)),
    Route("/static/{version}/style.css", style),
    Route("/static/{version}/latent_map.js", map_scripts),
    Mount("/static/{version}", CachedFiles(packages=[(PACKAGE, "static")])),
]
