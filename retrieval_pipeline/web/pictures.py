"""What clients are told of a picture: the models of the API, which the pages show as well."""

from datetime import datetime
from typing import Self

from pydantic import BaseModel, ConfigDict

from retrieval_pipeline.index.items import Location
from retrieval_pipeline.paths import printable
from retrieval_pipeline.views import View

# Width over height between which a card takes its picture's shape, as in the gallery.
NARROWEST, WIDEST = 0.56, 2.8


class _Told(BaseModel):
    model_config = ConfigDict(frozen=True)


class FileLocation(_Told):
    """One file that holds a picture."""

    source: str
    path: str

    @classmethod
    def of(cls, location: Location) -> Self:
        """Return what is told of a location."""
        return cls(source=location.source, path=location.path)


class Picture(_Told):
    """One picture of an answer.

    Attributes:
        content_id: Identity of its bytes.
        source: Of the file that is shown.
        path: Of that file, relative to its source; bytes that are no text are escaped.
        score: Cosine to the query, or a recommender's decision; None if nothing was asked.
        relevance: 0 to 1; None if nothing was asked.
        width: Pixels of the upright picture.
        height: Height of the upright picture, in pixels.
        alike: Lower hits that look the same and were folded into this one.
        cluster: Name of its cluster on the map, if there is a map.
        locations: Every file that holds it.
        region: The part that matched the query, in fractions of the upright picture; None if it is
            the picture as a whole.
    """

    content_id: str
    source: str
    path: str
    score: float | None = None
    relevance: float | None = None
    width: int
    height: int
    alike: int = 0
    cluster: str | None = None
    locations: list[FileLocation]
    region: View | None = None

    @property
    def name(self) -> str:
        """Name of the file, on one line."""
        return printable(self.path.rpartition("/")[2])

    @property
    def alt(self) -> str:
        """What is read out in place of the picture."""
        return self.name if self.cluster is None else f"{self.name}, {self.cluster}"

    @property
    def shape(self) -> int:
        """Width over height of its card, in hundredths."""
        return round(100 * min(max(self.width / self.height, NARROWEST), WIDEST))

    @property
    def others(self) -> list[FileLocation]:
        """The other files that hold it."""
        shown = FileLocation(source=self.source, path=self.path)
        return [place for place in self.locations if place != shown]


class File(_Told):
    """One file of a picture, as it was when it was indexed, and whether it is there now.

    Attributes:
        source: Name of its source.
        path: Relative to the source.
        absolute: Its whole path.
        size: In bytes.
        modified: When it was last changed.
        problem: Why it cannot be shown; None if it can.
    """

    source: str
    path: str
    absolute: str
    size: int
    modified: datetime
    problem: str | None


class Details(_Told):
    """Everything about one picture.

    Attributes:
        content_id: Identity of its bytes.
        width: Pixels of the upright picture.
        height: Height of the upright picture, in pixels.
        format: Of the file, such as JPEG.
        cluster: Name of its cluster on the map, if there is a map.
        model: Whose vectors it is found by.
        build: Name of the index.
        files: Every file that holds it.
    """

    content_id: str
    width: int
    height: int
    format: str
    cluster: str | None
    model: str
    build: str
    files: list[File]

    @property
    def name(self) -> str:
        """Name of its first file, on one line."""
        return printable(self.files[0].path.rpartition("/")[2])

    @property
    def alt(self) -> str:
        """What is read out in place of the picture."""
        return self.name if self.cluster is None else f"{self.name}, {self.cluster}"


class AnswerPage(_Told):
    """Pictures, best first.

    Attributes:
        query: What was asked, as text; empty if nothing was.
        model: Of the index.
        build: Name of the index.
        hits: The pictures.
        more: Whether there may be further ones.
        hints: Lines on words that the model does not know.
        timings_ms: Milliseconds of each step; "encode" is 0 for a query that was asked before.
    """

    query: str
    model: str
    build: str
    hits: list[Picture]
    more: bool
    hints: list[str] = []
    timings_ms: dict[str, float]
