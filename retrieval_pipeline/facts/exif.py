"""EXIF (CIPA DC-008, version 2.32), as Pillow has split it into tags, to facts."""

from collections import ChainMap
from collections.abc import Mapping, MutableMapping
from typing import Any

from PIL import ExifTags

from retrieval_pipeline.facts.cameras import camera_name
from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.facts.values import (
    MOST_TEXT,
    Moment,
    Problems,
    keywords,
    metres,
    microsecond,
    moment,
    number,
    offset_minutes,
    position,
    positive,
    text,
)

_Tag, _Gps = ExifTags.Base, ExifTags.GPS

# The date of the picture, best first: when the light fell on the sensor, when it became digital
# (the same, but for scans). DateTime is when a program last wrote the file, and only in a file
# straight from a camera the date of the picture.
_DATES = (
    (_Tag.DateTimeOriginal, _Tag.SubsecTimeOriginal, _Tag.OffsetTimeOriginal),
    (_Tag.DateTimeDigitized, _Tag.SubsecTimeDigitized, _Tag.OffsetTimeDigitized),
)
_CHANGED = (_Tag.DateTime, _Tag.SubsecTime, _Tag.OffsetTime)

# What cameras write into every picture's description.
_PLACEHOLDERS = frozenset(
    {
        *("olympus digital camera", "sony dsc", "minolta digital camera", "digital camera"),
        *("konica minolta digital camera", "samsung camera pictures", "samsung digital camera"),
        *("digital still camera", "exif_jpeg_picture", "dcim", "default"),
    }
)

# Tags that Windows writes: text in UTF-16, and stars.
_XP_TITLE, _XP_COMMENT, _XP_KEYWORDS, _STARS = 0x9C9B, 0x9C9C, 0x9C9E, 0x4746


Tags = MutableMapping[int, Any]


def read_exif(camera: Tags, picture: Tags, gps: Tags) -> PictureFacts:
    """Return the facts of an EXIF block.

    Args:
        camera: The tags of IFD0: make, model, orientation.
        picture: Those of the Exif IFD: dates, exposure, lens.
        gps: Those of the GPS IFD.

    Raises:
        Exception: Whatever Pillow raises on damaged tags.
    """
    problems = Problems(Origin.EXIF)
    tags = ChainMap(picture, camera)
    make = text(_string(tags.get(_Tag.Make)), "make", problems)
    model = text(_string(tags.get(_Tag.Model)), "model", problems)
    taken = next(filter(None, (_moment(tags, *names, problems) for names in _DATES)), None)
    if taken is None and (make or model):
        taken = _moment(tags, *_CHANGED, problems)
    caption = text(
        _string(tags.get(_Tag.ImageDescription)), "caption", problems, MOST_TEXT
    ) or _windows_text(tags, _XP_COMMENT, "caption", problems)
    if caption and caption.lower() in _PLACEHOLDERS:
        caption = None
    tagged = _windows_text(tags, _XP_KEYWORDS, "keyword", problems) or ""
    speed = tags.get(_Tag.ISOSpeedRatings)
    iso = positive(speed[0] if isinstance(speed, tuple) and speed else speed, "ISO", problems, 1e8)
    orientation = number(tags.get(_Tag.Orientation), "orientation", problems, 0, 8)
    latitude, longitude, altitude = _position(gps, problems)
    return PictureFacts(
        taken_at=taken.taken_at if taken else None,
        utc_offset_minutes=taken.utc_offset_minutes if taken else None,
        taken_from=Origin.EXIF if taken else None,
        camera_make=make,
        camera_model=model,
        camera=camera_name(make, model),
        lens=text(_string(tags.get(_Tag.LensModel)), "lens", problems),
        exposure_seconds=positive(tags.get(_Tag.ExposureTime), "exposure time", problems, 1e6),
        f_number=positive(tags.get(_Tag.FNumber), "f-number", problems, 1e4),
        focal_length_mm=positive(tags.get(_Tag.FocalLength), "focal length", problems, 1e5),
        iso=round(iso) if iso else None,
        latitude=latitude,
        longitude=longitude,
        altitude_m=altitude,
        orientation=int(orientation) if orientation else None,
        title=_windows_text(tags, _XP_TITLE, "title", problems),
        caption=caption,
        keywords=keywords(tagged.split(";"), problems),
        rating=_stars(tags.get(_STARS), problems),
        problems=tuple(problems.found),
    )


def _moment(
    tags: Mapping[int, Any], date: int, subsec: int, offset: int, problems: Problems
) -> Moment | None:
    value = _string(tags.get(date))
    if value is None:
        return None
    if not isinstance(value, str):
        problems.add("date of a wrong type")
        return None
    found = moment(value, problems)
    if found is None:
        return None
    digits = _string(tags.get(subsec))
    digits = digits.strip("\0 ") if isinstance(digits, str) else ""
    taken_at = found.taken_at
    if digits.isascii() and digits.isdigit():
        taken_at = taken_at.replace(microsecond=microsecond(digits))
    zone = _string(tags.get(offset))
    minutes = offset_minutes(zone, problems) if isinstance(zone, str) else None
    # Some programs write the offset into the date itself.
    return Moment(taken_at, found.utc_offset_minutes if minutes is None else minutes)


def _string(value: object) -> object:
    """Return an ASCII tag as text: many programs write UTF-8 there, which Pillow cannot know."""
    if isinstance(value, tuple) and len(value) == 1:
        (value,) = value
    if isinstance(value, bytes):
        return value.decode("utf-8", errors="replace")
    if isinstance(value, str):
        try:
            return value.encode("latin-1").decode("utf-8")
        except UnicodeError:
            return value
    return value


def _windows_text(tags: Mapping[int, Any], tag: int, what: str, problems: Problems) -> str | None:
    value = tags.get(tag)
    if isinstance(value, tuple) and all(isinstance(each, int) and each < 256 for each in value):
        value = bytes(value)
    if isinstance(value, bytes):
        value = value.decode("utf-16-le", errors="replace")
    return text(value, what, problems, MOST_TEXT)


def _stars(value: object, problems: Problems) -> int | None:
    """Return the stars that Windows writes; its 0 means that there are none."""
    stars = positive(value, "rating", problems, 5)
    return round(stars) if stars else None


def _position(
    tags: Mapping[int, Any], problems: Problems
) -> tuple[float | None, float | None, float | None]:
    """Return latitude, longitude and altitude, as far as they are known."""
    # Status "V" says that the receiver had no position (NMEA 0183).
    status = _string(tags.get(_Gps.GPSStatus))
    if isinstance(status, str) and status.strip("\0 ").upper() == "V":
        return None, None, None
    where = position(
        _degrees(tags.get(_Gps.GPSLatitude), tags.get(_Gps.GPSLatitudeRef), "S", problems),
        _degrees(tags.get(_Gps.GPSLongitude), tags.get(_Gps.GPSLongitudeRef), "W", problems),
        problems,
    )
    if where is None:
        return None, None, None
    altitude = metres(tags.get(_Gps.GPSAltitude), problems)
    if altitude is not None and tags.get(_Gps.GPSAltitudeRef) in (1, b"\x01", "\x01", (1,)):
        altitude = -altitude
    return *where, altitude


def _degrees(value: object, reference: object, negative: str, problems: Problems) -> float | None:
    """Return degrees, minutes and seconds as degrees, north and east positive."""
    if value is None:
        return None
    parts = value if isinstance(value, tuple) else (value,)
    numbers = [number(part, "position", problems, -1e9, 1e9) for part in parts[:3]]
    if not numbers or any(each is None for each in numbers):
        return None
    degrees: float = sum((each or 0) / 60**power for power, each in enumerate(numbers))
    side = _string(reference)
    turned = isinstance(side, str) and side.strip("\0 ").upper()[:1] == negative
    return -degrees if turned else degrees
