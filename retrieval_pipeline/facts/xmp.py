"""XMP (ISO 16684-1), within a file or as a sidecar beside it, to facts."""

import re
import xml.etree.ElementTree as ElementTree
from codecs import BOM_UTF16_BE, BOM_UTF16_LE
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import NoReturn

from retrieval_pipeline.facts.cameras import camera_name
from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.facts.values import (
    MOST_TEXT,
    Problems,
    keywords,
    metres,
    moment,
    number,
    position,
    positive,
    text,
)

# Programs that keep a history of all edits write some MB.
MOST_BYTES = 8 << 20

_RDF = "{http://www.w3.org/1999/02/22-rdf-syntax-ns#}"
_XML = "{http://www.w3.org/XML/1998/namespace}"
_EXIF = "{http://ns.adobe.com/exif/1.0/}"
_EXIF_EX = "{http://cipa.jp/exif/1.0/}"
_AUX = "{http://ns.adobe.com/exif/1.0/aux/}"
_TIFF = "{http://ns.adobe.com/tiff/1.0/}"
_XMP = "{http://ns.adobe.com/xap/1.0/}"
_PHOTOSHOP = "{http://ns.adobe.com/photoshop/1.0/}"
_CAMERA = "{http://ns.google.com/photos/1.0/camera/}"
_DC = "{http://purl.org/dc/elements/1.1/}"

# The date of the picture, best first, as in EXIF.
_DATES = (
    f"{_EXIF}DateTimeOriginal",
    f"{_PHOTOSHOP}DateCreated",
    f"{_EXIF}DateTimeDigitized",
    f"{_XMP}CreateDate",
)

# Android's motion photos, and before 2019 Google's "micro videos"
# (https://developer.android.com/media/platform/motion-photo-format).
_MOTION = (f"{_CAMERA}MotionPhoto", f"{_CAMERA}MicroVideo")

# "38,43.25N" or "38,43,15N" (XMP part 2, GPSCoordinate).
_COORDINATE = re.compile(
    r"(\d{1,3}),(\d{1,2}(?:\.\d+)?)(?:,(\d{1,2}(?:\.\d+)?))?([NSEW])", re.ASCII
)
_FRACTION = re.compile(r"(-?\d+)/(\d+)", re.ASCII)


class _DocumentTypeError(ValueError):
    """A packet has a document type, which XMP never needs and hostile entities do."""


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, name: str, pubid: str, system: str) -> NoReturn:
        """Refuse a document type before the parser reads the entities that it declares."""
        raise _DocumentTypeError


def read_xmp(packet: bytes, origin: Origin) -> PictureFacts:
    """Return the facts of an XMP packet or sidecar; those that are refused are in `problems`."""
    problems = Problems(origin)
    facts = PictureFacts()
    if len(packet) > MOST_BYTES:
        problems.add("too large")
    else:
        try:
            facts = _facts(_properties(packet), origin, problems)
        except _DocumentTypeError:
            problems.add("declares a document type")
        except (ElementTree.ParseError, ValueError, LookupError):
            problems.add("not well-formed")
    return replace(facts, problems=tuple(problems.found))


def _properties(packet: bytes) -> dict[str, list[str]]:
    """Return the values of each property, by its name with its namespace.

    Raises:
        ElementTree.ParseError: It is not well-formed.
        ValueError: It declares a document type, or an encoding that is not known.
        LookupError: The same.
    """
    parser = ElementTree.XMLParser(target=_Builder())
    # Packets are padded, so that they can be changed in place. A NUL of UTF-16 is no padding.
    is_utf_16 = packet[:2] in (BOM_UTF16_LE, BOM_UTF16_BE)
    parser.feed(packet if is_utf_16 else packet.strip(b"\0 \t\r\n"))
    found: dict[str, list[str]] = {}
    for description in parser.close().iter(f"{_RDF}Description"):
        for name, value in description.attrib.items():
            found.setdefault(name, [value])
        for element in description:
            found.setdefault(element.tag, _values(element))
    return found


def _values(element: ElementTree.Element) -> list[str]:
    """Return the value of a simple property, or the items of a list, the default language first."""
    items = element.findall(f"./*/{_RDF}li")
    if not items:
        return [element.text or ""]
    items.sort(key=lambda item: item.get(f"{_XML}lang") not in (None, "x-default"))
    return ["".join(item.itertext()) for item in items]


def _facts(
    properties: Mapping[str, Sequence[str]], origin: Origin, problems: Problems
) -> PictureFacts:
    def first(*names: str) -> str | None:
        values = (properties[name][0] for name in names if properties.get(name))
        return next((value for value in values if value.strip()), None)

    def amount(what: str, most: float, *names: str) -> float | None:
        return positive(_plain(first(*names)), what, problems, most)

    taken = None
    for name in _DATES:
        if taken is None and (value := first(name)):
            taken = moment(value, problems)
    make = text(first(f"{_TIFF}Make"), "make", problems)
    model = text(first(f"{_TIFF}Model"), "model", problems)
    iso = amount("ISO", 1e8, f"{_EXIF_EX}PhotographicSensitivity", f"{_EXIF}ISOSpeedRatings")
    rating = number(first(f"{_XMP}Rating"), "rating", problems, -1, 5)
    where = position(
        _degrees(first(f"{_EXIF}GPSLatitude"), problems),
        _degrees(first(f"{_EXIF}GPSLongitude"), problems),
        problems,
    )
    altitude = None
    if where is not None:
        altitude = metres(_plain(first(f"{_EXIF}GPSAltitude")), problems)
        if altitude is not None and first(f"{_EXIF}GPSAltitudeRef") == "1":
            altitude = -altitude
    return PictureFacts(
        taken_at=taken.taken_at if taken else None,
        utc_offset_minutes=taken.utc_offset_minutes if taken else None,
        taken_from=origin if taken else None,
        camera_make=make,
        camera_model=model,
        camera=camera_name(make, model),
        lens=text(first(f"{_AUX}Lens", f"{_EXIF_EX}LensModel"), "lens", problems),
        exposure_seconds=amount("exposure time", 1e6, f"{_EXIF}ExposureTime"),
        f_number=amount("f-number", 1e4, f"{_EXIF}FNumber"),
        focal_length_mm=amount("focal length", 1e5, f"{_EXIF}FocalLength"),
        iso=round(iso) if iso else None,
        latitude=where[0] if where else None,
        longitude=where[1] if where else None,
        altitude_m=altitude,
        title=text(first(f"{_DC}title"), "title", problems),
        caption=text(first(f"{_DC}description"), "caption", problems, MOST_TEXT),
        keywords=keywords(properties.get(f"{_DC}subject", ()), problems),
        rating=round(rating) if rating is not None else None,
        motion_photo=True if first(*_MOTION) == "1" else None,
    )


def _plain(value: str | None) -> float | str | None:
    """Return a fraction such as "1/60" as a number; 1/0 and 0/0 mean that it is not known."""
    match = _FRACTION.fullmatch(value.strip()) if value else None
    if match is None:
        return value
    above, below = float(match[1]), float(match[2])
    return above / below if below else None


def _degrees(value: str | None, problems: Problems) -> float | None:
    if value is None:
        return None
    match = _COORDINATE.fullmatch(value.strip())
    if match is None:
        problems.add("unreadable position")
        return None
    degrees = int(match[1]) + float(match[2]) / 60 + float(match[3] or 0) / 3600
    return -degrees if match[4] in "SW" else degrees
