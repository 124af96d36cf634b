"""What people ask for: words and pictures with weights, and filters. Knows no index."""

import math
import re
from collections.abc import Mapping
from dataclasses import astuple, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, Self, get_args

from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.facts.dates import Interval, parse_dates
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.views import View

# With larger weights, float32 scores would hold too little of the other parts of the query.
LARGEST_WEIGHT = 100.0

CROP_HINT = "write it as x,y,width,height in pixels, or in fractions such as 0.5,0,0.5,1"

_WEIGHT = re.compile(r"\s*(\d+(?:\.\d+)?)\s*\*\s*(\S.*)", re.DOTALL)

# The order of the hits: by relevance, by the date taken, or by the name of the file.
Sort = Literal["relevance", "newest", "oldest", "name"]

# Names of parameters that are given once for each value, and short ones.
_OTHER_NAMES = {
    "source": "sources",
    "path": "paths",
    "format": "formats",
    "year": "years",
    "camera": "cameras",
    "lens": "lenses",
    "country": "countries",
    "keyword": "keywords",
    "within": "within_km",
    "rating": "min_rating",
    "album": "albums",
    "label": "labels",
    "like_album": "like_albums",
}
# Fields that may be given as text of `facts.dates.parse_dates`, of which they take the beginning.
_MOMENTS = ("after", "before", "file_after", "file_before")

_DISTANCE = re.compile(r"\s*(\d+(?:\.\d+)?)\s*(km|m|mi|miles?)?\s*", re.IGNORECASE)
_KM_OF = {"m": 0.001, "mi": 1.609344, "mile": 1.609344, "miles": 1.609344}


@dataclass(frozen=True)
class Crop:
    """A rectangle of a picture, from its upper left corner, as it was asked for.

    If no number is above 1, they are fractions of the upright picture's width and height; otherwise
    they are pixels.

    Attributes:
        x: Left edge.
        y: Upper edge.
        width: More than 0.
        height: More than 0.

    Raises:
        QueryError: A number is not finite, or the rectangle is empty.
    """

    x: float
    y: float
    width: float
    height: float

    def __post_init__(self) -> None:
        if not all(map(math.isfinite, astuple(self))) or min(self.width, self.height) <= 0:
            raise QueryError(f'the crop "{self}" is no rectangle: {CROP_HINT}')

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read "x,y,width,height".

        Raises:
            QueryError: It is something else.
        """
        try:
            x, y, width, height = map(float, text.split(","))
        except ValueError:
            raise QueryError(f"{text!r} is no crop: {CROP_HINT}") from None
        return cls(x, y, width, height)

    def __str__(self) -> str:
        return ",".join(f"{value:g}" for value in astuple(self))

    def within(self, width: int, height: int) -> View:
        """Return the part of the crop that lies in an upright picture of so many pixels.

        Raises:
            QueryError: No part does.
        """
        x, y, right, lower = self.x, self.y, self.x + self.width, self.y + self.height
        if max(astuple(self)) > 1:
            x, y, right, lower = x / width, y / height, right / width, lower / height
        x, y, right, lower = max(x, 0.0), max(y, 0.0), min(right, 1.0), min(lower, 1.0)
        if x >= right or y >= lower:
            raise QueryError(
                f"the crop {self} lies outside of the picture, which has {width} x {height} pixels"
            )
        return View(x, y, right - x, lower - y)


@dataclass(frozen=True)
class Query:
    """What to look for: all words and pictures together, away from `minus`, within the filters.

    Attributes:
        text: Words.
        images: Pictures to find similar ones of.
        like: Content ids of indexed pictures to find similar ones of.
        like_albums: Albums to find more pictures for; what is in them is no hit.
        crop: Only this part of the picture, of which there is one then, in `images` or `like`.
        plus: More words; "2*snow" weighs twice what `text` does.
        minus: Words whose pictures are not wanted; "2*snow" weighs twice here as well.
        sources: Only images of these sources; empty means all.
        paths: Only images with a path, relative to their source, that one of these globs matches.
        after: Only pictures taken at this time or later, by the clock on the wall there; a time
            with a zone stands for the wall time of this machine.
        before: Only pictures taken earlier than this.
        on: Only pictures taken within this interval.
        years: Only pictures taken in one of these years; empty means all.
        file_after: Only files changed at this time or later; without a zone it is local time.
        file_before: Only files changed earlier than this.
        cameras: Only pictures of cameras whose name holds every word of one of these, in any case.
        lenses: The same for lenses.
        near: Only pictures taken near this place: a town, or "latitude, longitude" in degrees.
        within_km: How near, in kilometres.
        countries: Only pictures taken in one of these countries, given by ISO 3166-1 code or name.
        keywords: Only pictures with one of these keywords, in any case.
        min_rating: Only pictures with so many stars; -1 are those that were rejected (XMP).
        min_width: Only pictures at least so wide, in pixels.
        min_height: Only pictures at least so high, in pixels.
        formats: Only files of these formats, such as "JPEG", "png" or "tif"; empty means all.
        albums: Only pictures of one of these albums; empty means all.
        labels: Only pictures with one of these labels, in any case; empty means all.
        min_relevance: Hits below it are left out.
        collapse: Pictures that look the same as a better hit are counted there.
        sort: Order of the hits. All but "relevance" order only hits that are relevant enough:
            `min_relevance`, or `relevance.LIKELY` without one.
        literal: No words of `text` are read as facts, such as "in summer 2019".

    Pictures that do not know a fact do not pass a filter by it.

    Raises:
        QueryError: A text holds what is not Unicode, as bytes that are no UTF-8 become; a distance
            or order makes no sense; or there is a crop, and not one picture.
    """

    text: str | None = None
    images: tuple[Path, ...] = ()
    like: tuple[str, ...] = ()
    like_albums: tuple[str, ...] = ()
    crop: Crop | None = None
    plus: tuple[str, ...] = ()
    minus: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    after: datetime | None = None
    before: datetime | None = None
    on: Interval | None = None
    years: tuple[int, ...] = ()
    file_after: datetime | None = None
    file_before: datetime | None = None
    cameras: tuple[str, ...] = ()
    lenses: tuple[str, ...] = ()
    near: str | None = None
    within_km: float = 20.0
    countries: tuple[str, ...] = ()
    keywords: tuple[str, ...] = ()
    min_rating: int | None = None
    min_width: int = 0
    min_height: int = 0
    formats: tuple[str, ...] = ()
    albums: tuple[str, ...] = ()
    labels: tuple[str, ...] = ()
    min_relevance: float = 0.0
    collapse: bool = False
    sort: Sort = "relevance"
    literal: bool = False

    def __post_init__(self) -> None:
        if self.crop is not None and len(self.images) + len(self.like) != 1:
            raise QueryError("a crop is a part of one picture: name one picture with it")
        for text in (
            *(self.text or "", self.near or "", *self.plus, *self.minus, *self.like),
            *(*self.formats, *self.cameras, *self.lenses, *self.countries, *self.keywords),
            *(*self.albums, *self.like_albums, *self.labels),
        ):
            try:
                text.encode()
            except UnicodeEncodeError:
                raise QueryError(f"{text!r} is not UTF-8 text: check how it was typed") from None
        if not 0 < self.within_km < math.inf:
            raise QueryError(f"within {self.within_km:g} km: give a distance above 0, such as 20")
        if self.sort not in get_args(Sort):
            raise QueryError(f'"{self.sort}" is no order: {", ".join(get_args(Sort))}')

    @classmethod
    def of(cls, parameters: Mapping[str, Any]) -> Self:
        """Return the query that a configuration or a request asks.

        Args:
            parameters: Values of fields by name; `source`, `year`, `camera` and others in the
                singular stand for the fields in the plural, a list for a tuple. Dates may be text
                ("summer 2019"), and so may distances ("20 km") and a crop ("0.5,0,0.5,1").

        Raises:
            TypeError: There is no such field.
            QueryError: A text is no date, no distance or no crop.
        """
        fields: dict[str, Any] = {
            _OTHER_NAMES.get(name, name): tuple(value) if isinstance(value, list) else value
            for name, value in parameters.items()
        }
        if isinstance(fields.get("crop"), str):
            fields["crop"] = Crop.parse(fields["crop"]) if fields["crop"] else None
        for name in (*_MOMENTS, "on"):
            if isinstance(text := fields.get(name), str):
                interval = parse_dates(text) if text.strip() else None
                fields[name] = interval if name == "on" or interval is None else interval.start
        if fields.get("near") == "":
            fields["near"] = None
        if isinstance(distance := fields.get("within_km"), str):
            fields["within_km"] = kilometres(distance)
        return cls(**fields)

    def __str__(self) -> str:
        parts = [self.text or ""]
        pictures = (to_text(str(path)) for path in self.images)
        like = "like" if self.crop is None else f"like {self.crop} of"
        parts += [f"{like} {picture}" for picture in (*pictures, *self.like)]
        parts += [f'like the album "{name}"' for name in self.like_albums]
        parts += [f"+ {text}" for text in self.plus] + [f"- {text}" for text in self.minus]
        return " ".join(part for part in parts if part)

    @property
    def filters(self) -> "Query":
        """The filters alone: what decides which items may be hits."""
        return replace(
            self,
            text=None,
            images=(),
            like=(),
            like_albums=(),
            crop=None,
            plus=(),
            minus=(),
            min_relevance=0.0,
            collapse=False,
            sort="relevance",
            literal=False,
        )

    @property
    def terms(self) -> "Query":
        """The words and pictures alone: what decides its vectors."""
        return Query(
            text=self.text,
            images=self.images,
            like=self.like,
            like_albums=self.like_albums,
            crop=self.crop,
            plus=self.plus,
            minus=self.minus,
        )

    @property
    def asks(self) -> bool:
        """Whether there is anything to look for, or to avoid, and not only filters."""
        words = (self.text or "", *self.plus, *self.minus)
        return any(word.strip() for word in words) or bool(
            self.images or self.like or self.like_albums
        )

    @property
    def wanted(self) -> list[tuple[float, str]]:
        """Weight and words of `text` and `plus`.

        Raises:
            QueryError: A weight is zero or too large.
        """
        text = [(1.0, self.text)] if self.text and self.text.strip() else []
        return text + [weighted(part) for part in self.plus if part.strip()]

    @property
    def unwanted(self) -> list[tuple[float, str]]:
        """Weight and words of `minus`; raises as `wanted` does."""
        return [weighted(part) for part in self.minus if part.strip()]


def weighted(text: str) -> tuple[float, str]:
    """Split "2*snow" into 2.0 and "snow"; words without a number weigh 1.

    Raises:
        QueryError: The weight is zero, or larger than LARGEST_WEIGHT.
    """
    match = _WEIGHT.fullmatch(text)
    if match is None:
        return 1.0, text
    weight = float(match[1])
    if weight == 0:
        raise QueryError(f'"{text}" weighs nothing: leave it out, or give it a weight above 0')
    if weight > LARGEST_WEIGHT:
        raise QueryError(f'"{text}" weighs too much: the largest weight is {LARGEST_WEIGHT:g}')
    return weight, match[2]


def kilometres(text: str) -> float:
    """Read a distance such as "20", "20km", "500 m" or "3 miles".

    Raises:
        QueryError: It is none.
    """
    match = _DISTANCE.fullmatch(text)
    if match is None:
        raise QueryError(f'"{text}" is no distance: write it as 20km')
    return float(match[1]) * _KM_OF.get((match[2] or "km").lower(), 1.0)
