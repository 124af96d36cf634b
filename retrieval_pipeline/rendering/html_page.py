"""One self-contained HTML page of pictures in sections: search results, rankings, duplicates.

The thumbnails and the style sheet are inside the page: it needs no network, no script and no other
file, and its Content-Security-Policy allows none.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.pictures import encoded, pictures
from retrieval_pipeline.images.transform import Decoded, Fit
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.rendering.templating import as_base64, policy_hash, read_texts, render
from retrieval_pipeline.storage.remote import Place, Remote

# Longest edge in pixels: sharp in a card on a screen with two device pixels per CSS pixel, and
# about 25 KB per picture.
THUMBNAIL_PIXELS = 480
# Width divided by height: a card has the shape of its picture within this range. A picture outside
# it is shown whole inside a card of the nearest allowed shape, so that the caption has room.
NARROWEST, WIDEST = 0.56, 2.8


@dataclass(frozen=True)
class Card:
    """One picture of a page.

    Attributes:
        path: Its file; a click opens it if the path is absolute.
        content_id: What the file must hold to be shown.
        source: Name of the source it is in.
        width: Width of the upright picture, in pixels.
        height: Height of the upright picture, in pixels.
        others: The other files that hold the same picture.
        rank: Position in the order, from 1.
        score: Shown with three decimals.
        relevance: 0 to 1, shown as a bar.
        taken: The day it was taken, as text.
        about: Where and with what it was taken.
    """

    path: Place
    content_id: str
    source: str
    width: int
    height: int
    others: tuple[Location, ...] = ()
    rank: int | None = None
    score: float | None = None
    relevance: float | None = None
    taken: str = ""
    about: str = ""

    @property
    def uri(self) -> str | None:
        """`file://` address of the file, percent-encoded; None unless it is local and absolute."""
        if isinstance(self.path, Remote) or not self.path.is_absolute():
            return None
        return self.path.as_uri()

    @property
    def shape(self) -> int:
        """Width divided by height of the card, in thousandths."""
        return round(1000 * min(max(self.width / self.height, NARROWEST), WIDEST))


@dataclass(frozen=True)
class Section:
    """Pictures in their order, under one heading.

    Attributes:
        heading: Text above the pictures.
        cards: The pictures.
        notes: Short facts beside the heading.
        divider: How many of the pictures stand above a line that parts them from the rest.
        below: What that line says of the rest.
        example: A picture shown beside the heading.
        empty: Shown instead of pictures if there are none.
    """

    heading: str
    cards: tuple[Card, ...]
    notes: tuple[str, ...] = ()
    divider: int | None = None
    below: str = "only the nearest"
    example: Place | None = None
    empty: str = "no pictures"


@dataclass(frozen=True)
class _Thumbnail:
    """A picture as a data URI, or why there is none."""

    uri: str | None = None
    problem: str | None = None


def page_html(
    title: str, sections: Sequence[Section], limits: Limits, *, footer: Sequence[str] = ()
) -> str:
    """Return the HTML; a picture that cannot be shown becomes a placeholder that says why."""
    shown = [Job(section.example) for section in sections if section.example]
    shown += [Job(card.path, card.content_id) for section in sections for card in section.cards]
    style = _style_sheet(card.shape for section in sections for card in section.cards)
    return render(
        "page.html.jinja",
        title=title,
        sections=sections,
        footer=footer,
        thumbnails=_thumbnails(shown, limits),
        style=style,
        style_hash=policy_hash(style),
    )


def _style_sheet(shapes: Iterable[int]) -> str:
    """Return the style sheet with a rule for each shape.

    The Content-Security-Policy of the page forbids style attributes, so each shape is a class.
    """
    rules = [f".r{shape} {{ --r: {shape / 1000:g}; }}" for shape in sorted(set(shapes))]
    return "\n".join([read_texts("tokens.css", "page.css"), *rules])


def _thumbnails(jobs: Iterable[Job], limits: Limits) -> dict[str | Place, _Thumbnail]:
    unique = list(dict.fromkeys(jobs))
    found = pictures(unique, Fit(THUMBNAIL_PIXELS), limits)
    return {job.path: _thumbnail(each) for job, each in zip(unique, found, strict=True)}


def _thumbnail(found: Decoded | ImageError) -> _Thumbnail:
    if isinstance(found, ImageError):
        return _Thumbnail(problem=str(found))
    return _Thumbnail(uri=f"data:image/webp;base64,{as_base64(encoded(found.pixels))}")
