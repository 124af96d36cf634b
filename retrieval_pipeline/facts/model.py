"""What is known of one picture beside its pixels, and where each date may come from."""

import functools
from dataclasses import dataclass, fields
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any, Literal

from annotated_types import Interval

if TYPE_CHECKING:
    from pydantic import TypeAdapter


class Origin(StrEnum):
    """Where the date of a picture was found; the strongest first (docs/facts.md says why).

    sidecar: An XMP file beside the picture, in which a photo program keeps its edits.
    exif: EXIF within the file, written by the camera.
    xmp: An XMP packet within the file.
    iptc: IPTC-IIM within the file, as news agencies write it.
    png: Textual chunks of a PNG.
    takeout: The JSON file that Google Takeout puts beside a picture.
    file_name: A date in the name, such as IMG_20190812_143210.
    file_time: When the file was last changed, which every copy may have broken.
    """

    SIDECAR = "sidecar"
    EXIF = "exif"
    XMP = "xmp"
    IPTC = "iptc"
    PNG = "png"
    TAKEOUT = "takeout"
    FILE_NAME = "file_name"
    FILE_TIME = "file_time"


@dataclass(frozen=True, slots=True)
class PictureFacts:
    """The facts of one picture; None, or an empty tuple, where a fact is not known.

    Attributes:
        taken_at: When it was taken, by the clock on the wall there (no time zone).
        utc_offset_minutes: That clock's distance from UTC, east positive; with it, `taken_at` is a
            point in time.
        taken_from: Where `taken_at` was found.
        camera_make: As the camera writes it: "NIKON CORPORATION".
        camera_model: As the camera writes it: "NIKON D750".
        camera: Make and model for people, the make once: "Nikon D750".
        lens: Model of the lens.
        exposure_seconds: Exposure time.
        f_number: Focal length divided by aperture.
        focal_length_mm: As it is, not as it would be on 35 mm film.
        iso: Sensitivity.
        latitude: WGS 84 degrees, north positive.
        longitude: WGS 84 degrees, east positive.
        altitude_m: Metres above sea level.
        orientation: EXIF orientation of the stored pixels, 1 to 8.
        title: A short name.
        caption: A description.
        keywords: Tags, in the order in which they were found.
        rating: Stars, 0 to 5; -1 is "rejected" (XMP).
        motion_photo: True of a picture with a video of the same moment in its file, as phones with
            Android take it.
        problems: Why facts that are there were refused, such as "exif: date of year 0".
    """

    taken_at: datetime | None = None
    utc_offset_minutes: Annotated[int, Interval(ge=-960, le=960)] | None = None
    taken_from: Origin | None = None
    camera_make: str | None = None
    camera_model: str | None = None
    camera: str | None = None
    lens: str | None = None
    exposure_seconds: float | None = None
    f_number: float | None = None
    focal_length_mm: float | None = None
    iso: Annotated[int, Interval(gt=0, le=10**8)] | None = None
    latitude: Annotated[float, Interval(ge=-90, le=90)] | None = None
    longitude: Annotated[float, Interval(ge=-180, le=180)] | None = None
    altitude_m: float | None = None
    orientation: Annotated[int, Interval(ge=1, le=8)] | None = None
    title: str | None = None
    caption: str | None = None
    keywords: tuple[str, ...] = ()
    rating: Annotated[int, Interval(ge=-1, le=5)] | None = None
    motion_photo: bool | None = None
    problems: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReadFacts:
    """Asks a decode worker for facts alone.

    Attributes:
        of: What the file is: a picture, an XMP sidecar, or the JSON of Google Takeout.
    """

    of: Literal["picture", "xmp", "takeout"] = "picture"


def to_json(facts: PictureFacts) -> dict[str, Any]:
    """Return the facts that are known as an object that JSON can hold."""
    known = {field.name: getattr(facts, field.name) for field in fields(PictureFacts)}
    known = {name: value for name, value in known.items() if value is not None and value != ()}
    if facts.taken_at is not None:
        known["taken_at"] = facts.taken_at.isoformat()
    return known


def from_json(known: dict[str, Any]) -> PictureFacts:
    """Return the facts that `to_json` has written.

    Raises:
        ValueError: A fact is of a wrong type or out of its range: another program wrote it.
    """
    return _adapter().validate_python(known)


@functools.cache
def _adapter() -> "TypeAdapter[PictureFacts]":
    # Decode workers never need pydantic, whose import takes longer than all others of theirs.
    from pydantic import TypeAdapter

    return TypeAdapter(PictureFacts)
