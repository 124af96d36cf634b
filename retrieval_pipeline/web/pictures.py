"""What clients are told of a picture: the models of the API, which the pages show as well."""

from dataclasses import asdict
from datetime import datetime
from typing import Self

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict

from retrieval_pipeline.facts.groups import Kind
from retrieval_pipeline.facts.model import Origin
from retrieval_pipeline.facts.query_words import Understood
from retrieval_pipeline.index.item_facts import ItemFacts
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.index.records import CompanionFile
from retrieval_pipeline.paths import printable
from retrieval_pipeline.views import View

# Width over height between which a card takes its picture's shape, as in the gallery.
NARROWEST, WIDEST = 0.56, 2.8


def shapes(width: npt.ArrayLike, height: npt.ArrayLike) -> npt.NDArray[np.uint16]:
    """Return width over height of the cards of pictures so wide and high, in hundredths."""
    ratio = np.asarray(width) / np.asarray(height)
    shaped: npt.NDArray[np.uint16] = np.rint(100 * np.clip(ratio, NARROWEST, WIDEST)).astype("u2")
    return shaped


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


class Facts(_Told):
    """When, where and with what a picture was taken; null, or empty, where it is not known.

    Attributes:
        taken_at: ISO 8601 by the clock on the wall there, with its offset from UTC if known.
        utc_offset_minutes: That offset, east positive.
        taken_from: Where the date was found: exif, xmp, iptc, png, sidecar, takeout, file_name, or
            file_time (when the file was last changed).
        camera: Make and model.
        lens: Model of the lens.
        iso: Sensitivity.
        exposure_seconds: Exposure time.
        f_number: Focal length divided by aperture.
        focal_length_mm: As it is, not as it would be on 35 mm film.
        latitude: WGS 84 degrees, north positive.
        longitude: WGS 84 degrees, east positive.
        altitude_m: Metres above sea level.
        title: A short name.
        caption: A description.
        keywords: Tags.
        rating: Stars, 0 to 5; -1 is rejected.
        place: The nearest town.
        region: Its region.
        country: Its country, ISO 3166-1 alpha-2.
    """

    taken_at: str | None = None
    utc_offset_minutes: int | None = None
    taken_from: str | None = None
    camera: str | None = None
    lens: str | None = None
    iso: int | None = None
    exposure_seconds: float | None = None
    f_number: float | None = None
    focal_length_mm: float | None = None
    latitude: float | None = None
    longitude: float | None = None
    altitude_m: float | None = None
    title: str | None = None
    caption: str | None = None
    keywords: list[str] = []
    rating: int | None = None
    place: str | None = None
    region: str | None = None
    country: str | None = None

    @classmethod
    def of(cls, facts: ItemFacts) -> Self:
        """Return what is told of the facts of an item."""
        return cls(**facts.as_json())

    @property
    def moment(self) -> datetime | None:
        """When it was taken, by the clock on the wall there; not the time of a file."""
        if self.taken_at is None or self.taken_from == Origin.FILE_TIME:
            return None
        return datetime.fromisoformat(self.taken_at)

    @property
    def month(self) -> str:
        """The month in which it was taken, as "2019-08"; empty if unknown."""
        return (self.taken_at or "")[:7]

    @property
    def short(self) -> str:
        """Day, place and camera on one line, as far as they are known."""
        day = self.moment and f"{self.moment:%-d %b %Y}"
        return " · ".join(printable(part) for part in (day, self.place, self.camera) if part)

    @property
    def exposure(self) -> str:
        """Exposure time, aperture, focal length and sensitivity, as cameras write them."""
        seconds = self.exposure_seconds
        parts = [
            seconds and (f"{seconds:g} s" if seconds >= 1 else f"1/{1 / seconds:.0f} s"),
            self.f_number and f"f/{self.f_number:g}",
            self.focal_length_mm and f"{self.focal_length_mm:g} mm",
            self.iso and f"ISO {self.iso}",
        ]
        return ", ".join(part for part in parts if part)


class WordsRead(_Told):
    """Words of a search that were read as a fact, and not looked for.

    Attributes:
        words: As they were written.
        field: Name of the filter that they set, such as "on" or "near".
        value: Of that filter.
        meaning: In words.
    """

    words: str
    field: str
    value: str
    meaning: str

    @classmethod
    def of(cls, understood: Understood) -> Self:
        """Return what is told of words that were understood."""
        return cls(**asdict(understood))


class Companion(FileLocation):
    """A file that belongs to a picture without being shown, such as the RAW file of a JPEG.

    Attributes:
        kind: What it is to the picture: raw, original, edit, video or sidecar.
    """

    kind: Kind

    @classmethod
    def of_file(cls, companion: CompanionFile) -> Self:
        """Return what is told of a companion."""
        location = companion.file.location
        return cls(source=location.source, path=location.path, kind=companion.kind)


class Picture(_Told):
    """One picture of an answer.

    Attributes:
        content_id: Identity of its bytes.
        source: Of the file that is shown.
        path: Of that file, relative to its source; bytes that are no text are escaped.
        score: Cosine to the query, or a recommender's decision; None if nothing was asked.
        relevance: 0 to 1; None if nothing was asked.
        likely: Whether it is more probably right than wrong; None if nothing was asked.
        width: Pixels of the upright picture.
        height: Height of the upright picture, in pixels.
        alike: Lower hits that look the same and were folded into this one.
        cluster: Name of its cluster on the map, if there is a map.
        locations: Every file that holds it.
        companions: The other files of the photograph, and those about it.
        region: The part that matched the query, in fractions of the upright picture; None if it is
            the picture as a whole.
        facts: When, where and with what it was taken.
    """

    content_id: str
    source: str
    path: str
    score: float | None = None
    relevance: float | None = None
    likely: bool | None = None
    width: int
    height: int
    alike: int = 0
    cluster: str | None = None
    locations: list[FileLocation]
    companions: list[Companion] = []
    region: View | None = None
    facts: Facts = Facts()

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
        return int(shapes(self.width, self.height))

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
        facts: When, where and with what it was taken.
        companions: The other files of the photograph, and those about it.
    """

    content_id: str
    width: int
    height: int
    format: str
    cluster: str | None
    model: str
    build: str
    files: list[File]
    facts: Facts
    companions: list[Companion] = []

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
        likely: How many of the hits are likely; None if nothing was asked.
        verdict: The same in words; empty if nothing was asked.
        hits: The pictures.
        more: Whether there may be further ones.
        hints: Lines on words that the model does not know.
        timings_ms: Milliseconds of each step; "encode" is 0 for a query that was asked before.
        understood: Words that were read as facts, and not looked for; `literal` switches it off.
        notes: What should be known of the answer, such as which of several places was meant.
        by_date: Whether the order is that of the dates taken.
    """

    query: str
    model: str
    build: str
    likely: int | None = None
    verdict: str = ""
    hits: list[Picture]
    more: bool
    hints: list[str] = []
    timings_ms: dict[str, float]
    understood: list[WordsRead] = []
    notes: list[str] = []
    by_date: bool = False
