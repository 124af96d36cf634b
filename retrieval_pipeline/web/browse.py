"""The facets of a search as links: what each leads to, and the folders above a folder."""

import glob
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlencode

from retrieval_pipeline.search.facets import Facets
from retrieval_pipeline.web.parameters import Search

# A wildcard that `glob.escape` wrote as itself.
_ESCAPED = re.compile(r"\[([*?[])\]")
_WILDCARD = re.compile(r"[*?[]")
# Folders above a picture that its card names.
FOLDERS_ON_A_CARD = 2


@dataclass(frozen=True)
class Choice:
    """A link to a narrower search, or to a wider one.

    Attributes:
        text: What it says.
        address: Of the search.
        count: Pictures that it leaves.
        chosen: Whether it is set already.
    """

    text: str
    address: str
    count: int = 0
    chosen: bool = False


@dataclass(frozen=True)
class FacetLinks:
    """One facet of a search.

    Attributes:
        title: What it is.
        choices: Its values.
        trail: Of folders: those above, from the sources on, and the present one.
    """

    title: str
    choices: Sequence[Choice]
    trail: Sequence[Choice] = ()


def address(search: Search, *more: tuple[str, object], drop: tuple[str, str] | None = None) -> str:
    """Return the address of a search, without one of its parts or with more of them."""
    pairs = [*(pair for pair in search.pairs() if pair != drop), *more]
    return f"/?{urlencode(pairs)}" if pairs else "/"


def folder_glob(folder: str) -> str:
    """Return the glob of everything in a folder."""
    return f"{glob.escape(folder)}/*"


def folder_of(pattern: str) -> str | None:
    """Return the folder whose `folder_glob` a glob is; None if it is another glob."""
    if not pattern.endswith("/*") or _WILDCARD.search(_ESCAPED.sub("", pattern[:-2])):
        return None
    return _ESCAPED.sub(r"\1", pattern[:-2])


def present_folder(search: Search) -> str:
    """Return the one folder that a search is narrowed to; "" if there is none."""
    return (folder_of(search.path[0]) or "") if len(search.path) == 1 else ""


def facet_links(search: Search, facets: Facets) -> list[FacetLinks]:
    """Return the facets of which a search leaves something to choose."""
    folder = present_folder(search)
    kinds: list[tuple[str, str, Mapping[str, int]]] = [
        ("Source", "source", facets.sources),
        ("Year", "year", facets.years),
        ("Place", "near", facets.places),
        ("Camera", "camera", facets.cameras),
        ("Format", "format", facets.formats),
    ]

    def folders(path: str) -> str:
        return address(search.model_copy(update={"path": [folder_glob(path)] if path else []}))

    links = []
    if facets.folders or folder:
        inside = [
            Choice(name, folders(f"{folder}/{name}" if folder else name), count)
            for name, count in facets.folders.items()
        ]
        links.append(FacetLinks("Folder", inside, _trail(folder, folders) if folder else ()))
    for title, name, counts in kinds:
        chosen = {value for kind, value in search.pairs() if kind == name}
        choices = [
            Choice(value, address(search, drop=(name, value)), count, chosen=True)
            if value in chosen
            else Choice(value, address(search, (name, value)), count)
            for value, count in counts.items()
        ]
        if len(choices) > 1:
            links.append(FacetLinks(title, choices))
    return links


def _trail(folder: str, link: Callable[[str], str]) -> list[Choice]:
    parts = folder.split("/")
    steps = [Choice(part, link("/".join(parts[:end]))) for end, part in enumerate(parts, 1)]
    return [Choice("all folders", link("")), *steps]


def breadcrumbs(source: str, path: str) -> list[Choice]:
    """Return the source of a file and the folders nearest to it, as links to what is in them."""
    parts = path.split("/")[:-1]
    steps = [
        Choice(part, address(Search(source=[source], path=[folder_glob("/".join(parts[:end]))])))
        for end, part in enumerate(parts, 1)
    ]
    return [Choice(source, address(Search(source=[source]))), *steps[-FOLDERS_ON_A_CARD:]]
