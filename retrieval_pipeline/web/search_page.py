"""The page of a search: its first results, its chips, and further cards."""

from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from urllib.parse import urlencode

from pydantic import Field
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.web.api import library_of
from retrieval_pipeline.web.browse import (
    FacetLinks,
    address,
    facet_links,
    folder_of,
    present_folder,
)
from retrieval_pipeline.web.files import GoneError
from retrieval_pipeline.web.frame import (
    parse_address,
    render_fragment,
    render_page,
    root_of,
)
from retrieval_pipeline.web.operations import as_request_error
from retrieval_pipeline.web.parameters import ContentId, Search, SearchPage
from retrieval_pipeline.web.pictures import AnswerPage, WordsRead
from retrieval_pipeline.web.problems import RequestError

# Names of clusters that are suggested to whoever has not asked anything yet.
SUGGESTIONS = 12


class SearchAddress(SearchPage):
    """What the address of the search page may hold besides the search.

    Attributes:
        view: The picture that is shown large.
        refine: What was typed to add: "snow" or "+ snow", or "- people".
    """

    view: ContentId | None = None
    refine: str | None = Field(default=None, max_length=1_000)


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
        facet_notes: What of that was not counted.
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
    facet_notes: Sequence[str]

    @property
    def by_relevance(self) -> bool:
        """Whether the likely hits are the first ones."""
        return self.search.sort == "relevance"

    @property
    def listing(self) -> str:
        """What is shown where nothing is looked for, and in which order."""
        orders = {"oldest": "oldest first", "name": "by name"}
        return f"Pictures, {orders.get(self.search.sort, 'newest first')}"


# Those that do not say what to look for.
_FILTERS = {
    *("source", "path", "after", "before", "on", "year", "file_after", "file_before"),
    *("camera", "lens", "near", "country", "keyword", "rating", "min_width", "min_height"),
    *("album", "format", "min_relevance", "collapse", "region", "since", "understood"),
}


async def search_page(request: Request) -> Response:
    """Show the search page with the first results."""
    asked = parse_address(request, SearchAddress)
    if asked.refine is not None:
        return RedirectResponse(
            root_of(request) + _refined(asked, asked.refine), HTTPStatus.SEE_OTHER
        )
    results = await _results(request, asked)
    status = results.problem.status if results.problem else HTTPStatus.OK
    return render_page(
        request,
        "search",
        status,
        results=results,
        view=asked.view,
        files_of=_files_of(asked),
    )


async def search_fragment(request: Request) -> Response:
    """Show what changes on the search page when another search is made."""
    results = await _results(request, parse_address(request, SearchAddress))
    return render_fragment(request, "_results", results=results, files_of=_files_of(results.search))


async def cards_fragment(request: Request) -> Response:
    """Show further pictures of a search."""
    page = parse_address(request, SearchPage)
    _, answer = await library_of(request).search(page)
    return render_fragment(
        request,
        "_cards",
        pictures=answer.hits,
        more=answer.more,
        build=answer.build,
        files_of=_files_of(page),
    )


async def _results(request: Request, page: SearchPage) -> Results:
    library = library_of(request)
    snapshot = library.snapshot
    answer, problem = None, None
    facets: list[FacetLinks] = []
    notes: Sequence[str] = ()
    try:
        snapshot, answer = await library.search(page)
        counted = await library.run(snapshot.facets, page, present_folder(page))
        facets, notes = facet_links(page, counted), counted.notes
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
        facet_notes=notes,
    )


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


def _refined(search: Search, typed: str) -> str:
    """Return the address of a search with what was typed to add or take away."""
    typed = typed.strip()
    kind = "minus" if typed[:1] in ("-", "−") else "plus"
    words = typed.lstrip("+-− ").strip()
    return address(search, (kind, words)) if words else address(search)


def _files_of(search: Search) -> str:
    """Return what the address of a picture says of the files that a search means."""
    named = {"source", "path", "after", "before"}
    pairs = [(name, value) for name, value in search.pairs() if name in named]
    return f"?{urlencode(pairs)}" if pairs else ""
