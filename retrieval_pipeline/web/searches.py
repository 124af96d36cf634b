"""Searches that people save on the page, and how many of their hits nobody has seen yet."""

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Annotated
from urllib.parse import parse_qsl, urlencode

from pydantic import BaseModel, ConfigDict, JsonValue, StringConstraints
from starlette.requests import Request

from retrieval_pipeline.errors import AlbumError, RetrievalError
from retrieval_pipeline.search.relevance import LIKELY
from retrieval_pipeline.storage.saved_searches import (
    SavedSearch,
    delete_saved_search,
    read_saved_searches,
    save_search,
)
from retrieval_pipeline.web.api import library_of
from retrieval_pipeline.web.api_models import IdsOf
from retrieval_pipeline.web.library import Library
from retrieval_pipeline.web.operations import Nothing
from retrieval_pipeline.web.parameters import MOST_PICTURES, Search, parse
from retrieval_pipeline.web.problems import FieldProblem, RequestError, wrong

SearchName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
# Characters of an address.
LONGEST_ADDRESS = 8_000


class NamedSearch(BaseModel):
    """A saved search, by its name."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: SearchName


class SearchToSave(NamedSearch):
    """A search and the name to save it under.

    Attributes:
        search: What the address of the search page has behind the question mark.
    """

    search: Annotated[str, StringConstraints(max_length=LONGEST_ADDRESS)]


class Saved(BaseModel):
    """A saved search.

    Attributes:
        name: Of the search.
        search: What the address of the search page has behind the question mark.
        new: Hits that were not there when somebody looked last, of the first MOST_PICTURES that are
            likely; None if the search cannot be answered now.
        problem: Why it cannot be answered, or "".
    """

    name: str
    search: str
    new: int | None
    problem: str = ""


class Searches(BaseModel):
    """The saved searches, the oldest first."""

    searches: list[Saved]


async def searches(request: Request, _: Nothing) -> Searches:
    """List the saved searches, with how many of their hits are new."""
    library = library_of(request)
    saved = await library.run(read_saved_searches, library.store)
    return Searches(searches=[await _told(library, each) for each in saved])


async def save(request: Request, asked: SearchToSave) -> Searches:
    """Save a search under a name; it replaces the one of the same name."""
    library = library_of(request)
    search = parse(Search, parse_qsl(asked.search), {})
    if search.upload:
        detail = "a picture that was dropped is kept for a while only: take one of the index"
        raise wrong([FieldProblem(field="upload", message=detail)])
    seen = frozenset(await _hits(library, search))
    kept = SavedSearch(
        name=asked.name, parameters=_parameters(search), saved_at=datetime.now(UTC), seen=seen
    )
    await library.run(save_search, library.store, kept)
    return await searches(request, Nothing())


async def see(request: Request, asked: NamedSearch) -> Searches:
    """Note that somebody has looked at what a saved search finds now."""
    library = library_of(request)
    saved = await library.run(read_saved_searches, library.store)
    found = next((each for each in saved if each.name == asked.name), None)
    if found is None:
        raise AlbumError(f'there is no saved search "{asked.name}"')
    seen = frozenset(await _hits(library, _search_of(found)))
    await library.run(save_search, library.store, found.model_copy(update={"seen": seen}))
    return await searches(request, Nothing())


async def forget(request: Request, asked: NamedSearch) -> Searches:
    """Forget a saved search."""
    library = library_of(request)
    await library.run(delete_saved_search, library.store, asked.name)
    return await searches(request, Nothing())


async def _told(library: Library, saved: SavedSearch) -> Saved:
    address = ""
    try:
        search = _search_of(saved)
        address = urlencode(search.pairs())
        new = len(set(await _hits(library, search)) - (saved.seen or set()))
    except (RequestError, RetrievalError) as error:
        problem = error.detail if isinstance(error, RequestError) else str(error)
        return Saved(name=saved.name, search=address, new=None, problem=problem)
    return Saved(name=saved.name, search=address, new=new)


async def _hits(library: Library, search: Search) -> list[str]:
    """Return the content ids of the first likely hits, or of all that a search lists."""
    likely = search.model_copy(update={"min_relevance": max(search.min_relevance, LIKELY)})
    asked = parse(IdsOf, [*likely.pairs(), ("k", str(MOST_PICTURES))], {})
    return await library.ids(asked)


def _parameters(search: Search) -> Mapping[str, JsonValue]:
    parameters: dict[str, JsonValue] = {}
    for name, value in search.pairs():
        listed = isinstance(getattr(search, name), list)
        known = parameters.get(name)
        parameters[name] = [*(known if isinstance(known, list) else []), value] if listed else value
    return parameters


def _search_of(saved: SavedSearch) -> Search:
    """Return the search that was saved.

    Raises:
        RequestError: It has a parameter that this version does not know.
    """
    pairs = [
        (name, str(value))
        for name, values in saved.parameters.items()
        for value in (values if isinstance(values, list) else [values])
    ]
    return parse(Search, pairs, {})
