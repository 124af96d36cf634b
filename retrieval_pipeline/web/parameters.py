"""What a client may ask for, as pydantic models: pages and API share them."""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar, get_origin

import numpy as np
import numpy.typing as npt
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    StringConstraints,
)
from pydantic import ValidationError as ValidationError

from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.facts.dates import parse_dates
from retrieval_pipeline.search.query import Crop, Query, Sort, kilometres
from retrieval_pipeline.storage.names import BUILD_NAME, SOURCE_NAME
from retrieval_pipeline.web.problems import wrong_parameters

# Characters of one text: several times what any text encoder reads.
LONGEST_TEXT = 1_000
# Words, pictures or filters of one kind in a query.
MOST_PARTS = 20
# Pictures in one answer.
MOST_PICTURES = 600
# Pictures that one request may name.
MOST_SELECTED = 10_000
# Corners of a region of the map.
MOST_CORNERS = 100

P = TypeVar("P", bound=BaseModel)

ContentId = Annotated[str, StringConstraints(pattern=r"^[0-9a-f]{32}$")]
Text = Annotated[str, StringConstraints(max_length=LONGEST_TEXT)]
BuildName = Annotated[str, StringConstraints(pattern=f"^{BUILD_NAME.pattern}$")]
RecommenderName = Annotated[str, StringConstraints(pattern=f"^{SOURCE_NAME.pattern}$")]
Pixels = Annotated[int, Field(ge=0, le=1_000_000)]
Relevance = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Year = Annotated[int, Field(ge=1, le=9_998)]
Years = Annotated[list[Year], Field(max_length=MOST_PARTS)]
Texts = Annotated[list[Text], Field(max_length=MOST_PARTS)]
ContentIds = Annotated[list[ContentId], Field(max_length=MOST_PARTS)]


def _checked(read: Callable[[str], object]) -> AfterValidator:
    """Return the check that a text is one that `read` reads; it stays text, as it was written."""

    def check(text: str) -> str:
        try:
            read(text)
        except QueryError as error:
            raise ValueError(str(error)) from None
        return text

    return AfterValidator(check)


Dates = Annotated[Text, _checked(parse_dates)]
Distance = Annotated[Text, _checked(kilometres)]


class _Parameters(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Region(_Parameters):
    """A polygon on the map.

    Attributes:
        corners: x and y of each, in the map's coordinates.
        layout: Whose coordinates: along the map's axes, or those by neighbours (UMAP).
    """

    corners: tuple[tuple[float, float], ...]
    layout: Literal["axes", "neighbours"] = "axes"

    @classmethod
    def parse(cls, text: object) -> Self | None:
        """Read "x,y;x,y;...", after "neighbours:" in the layout of that name.

        Raises:
            ValueError: It is something else.
        """
        if text is None or isinstance(text, cls):
            return text
        layout, _, listed = str(text).rpartition(":")
        try:
            corners = [tuple(map(float, pair.split(","))) for pair in listed.split(";")]
        except ValueError:
            corners = []
        fine = (
            3 <= len(corners) <= MOST_CORNERS
            and all(len(corner) == 2 for corner in corners)
            and np.isfinite(np.array(corners)).all()
            and layout in ("", "neighbours")
        )
        if not fine:
            raise ValueError(f"3 to {MOST_CORNERS} corners are needed, like 0,0;1,0;1,1")
        return cls(
            corners=tuple((x, y) for x, y in corners),
            layout="neighbours" if layout else "axes",
        )

    def __str__(self) -> str:
        listed = ";".join(f"{x:g},{y:g}" for x, y in self.corners)
        return f"neighbours:{listed}" if self.layout == "neighbours" else listed

    def contains(
        self, x: npt.NDArray[np.float32], y: npt.NDArray[np.float32]
    ) -> npt.NDArray[np.bool_]:
        """Tell of each point, (n,), whether it lies inside, by the even-odd rule."""
        inside = np.zeros(len(x), np.bool_)
        for (x1, y1), (x2, y2) in zip(
            self.corners, (*self.corners[1:], self.corners[0]), strict=True
        ):
            if y1 != y2:
                crosses = (y1 > y) != (y2 > y)
                inside ^= crosses & (x < (x2 - x1) * ((y - y1) / (y2 - y1)) + x1)
        return inside


def _crop(text: object) -> object:
    """Read "x,y,width,height".

    Raises:
        ValueError: It is something else.
    """
    if not isinstance(text, str):
        return text
    try:
        return Crop.parse(text)
    except QueryError as error:
        raise ValueError(str(error)) from None


class Search(_Parameters):
    """A search: words and pictures, and filters. Without words and pictures: all, newest first."""

    text: Text = Field(default="", description="Words to look for.")
    plus: Texts = Field(default=[], description='More words; "2*snow" counts twice.')
    minus: Texts = Field(default=[], description="Words whose pictures are not wanted.")
    like: ContentIds = Field(default=[], description="Find pictures like these indexed ones.")
    like_album: Texts = Field(default=[], description="Find more pictures for these albums.")
    upload: ContentIds = Field(default=[], description="Find pictures like these uploaded ones.")
    crop: Annotated[
        Crop | None,
        BeforeValidator(_crop, json_schema_input_type=str),
        Field(
            description="Only this rectangle of the one picture of `like` or `upload`: "
            "x,y,width,height in fractions of its size (up to 1) or in pixels."
        ),
    ] = None
    source: Texts = Field(default=[], description="Only pictures of these sources.")
    path: Texts = Field(default=[], description="Only paths that one of these globs matches.")
    after: Dates | None = Field(
        default=None, description="Only pictures taken then or later: 2019, 2019-08-12, last week."
    )
    before: Dates | None = Field(default=None, description="Only pictures taken before.")
    on: Dates | None = Field(
        default=None, description="Only pictures taken then: 2019-08, summer 2019, yesterday."
    )
    year: Years = Field(default=[], description="Only pictures taken in these years.")
    file_after: Dates | None = Field(default=None, description="Only files changed then or later.")
    file_before: Dates | None = Field(default=None, description="Only files changed before.")
    camera: Texts = Field(default=[], description="Only cameras with these words in the name.")
    lens: Texts = Field(default=[], description="Only lenses with these words in the name.")
    near: Text | None = Field(
        default=None, description='Only near this town, or "latitude, longitude" in degrees.'
    )
    within: Distance = Field(default="20 km", description="How near, such as 5 km or 500 m.")
    country: Texts = Field(default=[], description="Only these countries: code (PT) or name.")
    keyword: Texts = Field(default=[], description="Only pictures with one of these keywords.")
    rating: int | None = Field(default=None, ge=-1, le=5, description="Least number of stars.")
    min_width: Pixels = Field(default=0, description="Only pictures at least so wide, in pixels.")
    min_height: Pixels = Field(default=0, description="Only pictures at least so high, in pixels.")
    format: Texts = Field(default=[], description="Only these formats, such as jpg or png.")
    label: Texts = Field(default=[], description="Only pictures with one of these labels.")
    album: Texts = Field(default=[], description="Only pictures of one of these albums.")
    min_relevance: Relevance = Field(default=0, description="Only hits so relevant.")
    collapse: bool = Field(default=False, description="Show pictures that look the same once.")
    sort: Sort = Field(
        default="relevance",
        description="Order; all but relevance leave out hits that are not relevant enough.",
    )
    literal: bool = Field(
        default=False, description="Do not read words as facts, such as: in summer 2019."
    )
    region: Annotated[
        Region | None,
        BeforeValidator(Region.parse, json_schema_input_type=str),
        Field(description="Only pictures within this polygon of the map: x,y;x,y;..."),
    ] = None
    since: BuildName | None = Field(
        default=None, description="Only pictures that the index of this name had not."
    )

    @property
    def asks(self) -> bool:
        """Whether there is anything to look for, and not only to filter by."""
        words = (self.text, *self.plus)
        return any(word.strip() for word in words) or bool(
            self.like or self.like_album or self.upload
        )

    def query(self) -> Query:
        """Return the query without its uploads and crop, and without what only pages filter by."""
        fields = Search.model_fields.keys() - {"upload", "crop", "region", "since"}
        return Query.of(self.model_dump(include=set(fields)))

    def pairs(self) -> list[tuple[str, str]]:
        """Return what differs from the defaults, as the pairs of a query string."""
        pairs: list[tuple[str, str]] = []
        for name, field in Search.model_fields.items():
            value = getattr(self, name)
            if value == field.default:
                continue
            if isinstance(value, list):
                pairs += [(name, _plain(part)) for part in value]
            else:
                pairs.append((name, f"{value:g}" if isinstance(value, float) else _plain(value)))
        return pairs


class Page(_Parameters):
    """Which part of an answer."""

    k: int = Field(default=60, ge=1, le=MOST_PICTURES, description="How many.")
    offset: int = Field(default=0, ge=0, le=100_000_000, description="Leave out the first.")


class SearchPage(Search, Page):
    """A search and which part of its answer."""


def _plain(value: object) -> str:
    return "true" if value is True else str(value)


def parse(model: type[P], pairs: Iterable[tuple[str, str]], path: Mapping[str, Any]) -> P:
    """Read the parameters of a request from its query string and its path.

    Raises:
        RequestError: Names each parameter that is wrong; 400.
    """
    values: dict[str, Any] = {}
    for name, value in pairs:
        if not value:
            # A form sends fields that were left empty.
            continue
        field = model.model_fields.get(name)
        if field is not None and get_origin(field.annotation) is list:
            values.setdefault(name, []).append(value)
        else:
            values[name] = value
    try:
        return model.model_validate(values | dict(path))
    except ValidationError as error:
        raise wrong_parameters(error) from None
