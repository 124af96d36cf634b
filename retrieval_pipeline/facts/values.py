"""Checks that each value of a picture's metadata goes through, whatever origin it has.

Metadata are written by anybody. A value that cannot be is left out and its reason noted; a value
that says "unknown" in the way of its standard is left out without one.
"""

import math
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

# Before the first photograph (Niepce, 1826 or 1827), and what no clock shows but a broken one.
FIRST_YEAR, LAST_YEAR = 1826, 2100

# Lengths in characters: of a name or title, and of a description. IPTC allows 2,000.
MOST_NAME, MOST_TEXT = 1_000, 20_000
MOST_KEYWORDS = 1_000

# Local time differs from UTC by -12 to +14 hours; it was 15:13:42 once (Manila, until 1844).
MOST_OFFSET_MINUTES = 16 * 60

# EXIF 2.32 writes "2019:08:12 14:32:10"; XMP and ISO 8601 "2019-08-12T14:32:10.25+01:00", of which
# all after the year may be missing; IPTC "20190812".
_MOMENT = re.compile(
    r"(?P<year>\d{4})(?:[:./-]?(?P<month>\d\d)(?:[:./-]?(?P<day>\d\d)"
    r"(?:[T ]\s*(?P<hour>\d\d):?(?P<minute>\d\d)(?::?(?P<second>\d\d)(?:[.,](?P<part>\d{1,9}))?)?"
    r"\s*(?P<offset>Z|[+-]\d\d:?\d\d)?)?)?)?",
    re.ASCII,
)
_OFFSET = re.compile(r"(?P<sign>[+-])(?P<hours>\d\d):?(?P<minutes>\d\d)", re.ASCII)

# Controls that turn the direction of the text around them, as control characters do harm.
_BIDI = re.compile("[\u202a-\u202e\u2066-\u2069]")


@dataclass
class Problems:
    """The reasons why values of one origin were refused, each once.

    Attributes:
        origin: What the values are from: "exif", "xmp", "iptc", "png", "sidecar", "takeout".
        found: The reasons, as `status` counts them.
    """

    origin: str
    found: list[str] = field(default_factory=list)

    def add(self, reason: str) -> None:
        """Note a reason."""
        if (problem := f"{self.origin}: {reason}") not in self.found:
            self.found.append(problem)


@dataclass(frozen=True, slots=True)
class Moment:
    """A date: what the clock on the wall said, and its minutes from UTC if they are known."""

    taken_at: datetime
    utc_offset_minutes: int | None = None


def moment(text: str, problems: Problems) -> Moment | None:
    """Return the date that a text in the form of EXIF or ISO 8601 names; None without one.

    Where a part is missing, the first moment of the period is returned: of 2019-08, its first day.
    """
    text = text.strip("\0 \t\r\n")
    # Blanks or zeros mean that the date is unknown (EXIF 2.32, DateTime).
    if not text.strip("0:-/.T Z+"):
        return None
    match = _MOMENT.fullmatch(text)
    if match is None:
        problems.add("unreadable date")
        return None
    year, month, day = int(match["year"]), int(match["month"] or 1), int(match["day"] or 1)
    if year == 0:
        problems.add("date of year 0")
        return None
    if not FIRST_YEAR <= year <= LAST_YEAR:
        problems.add("date out of range")
        return None
    # Of a month or day that is not known, the first.
    month, day = month or 1, day or 1
    try:
        taken_at = datetime(
            year,
            month,
            day,
            int(match["hour"] or 0),
            int(match["minute"] or 0),
            # A leap second is the last one that datetime knows.
            min(int(match["second"] or 0), 59 if match["second"] == "60" else 99),
            microsecond(match["part"]),
        )
    except ValueError:
        problems.add("no such date")
        return None
    return Moment(taken_at, offset_minutes(match["offset"], problems))


def microsecond(digits: str | None) -> int:
    """Return the microseconds of the digits after the decimal point of a second."""
    return int((digits or "").ljust(6, "0")[:6])


def offset_minutes(text: str | None, problems: Problems) -> int | None:
    """Return the minutes that "+01:00", "-0330" or "Z" is east of UTC; None without an offset."""
    text = (text or "").strip("\0 ")
    if not text.strip(":"):
        return None
    if text == "Z":
        return 0
    match = _OFFSET.fullmatch(text)
    minutes = int(match["hours"]) * 60 + int(match["minutes"]) if match else MOST_OFFSET_MINUTES + 1
    if match is None or int(match["minutes"]) > 59 or minutes > MOST_OFFSET_MINUTES:
        problems.add("impossible time zone")
        return None
    return -minutes if match["sign"] == "-" else minutes


def text(value: object, what: str, problems: Problems, most: int = MOST_NAME) -> str | None:
    """Return a text without padding; None if it is empty or must not be shown.

    Args:
        value: A str; anything else is of a wrong type.
        what: Name of the fact, for the reason.
        problems: Receives the reason.
        most: Longest text, in characters.
    """
    if value is None:
        return None
    if not isinstance(value, str):
        problems.add(f"{what} of a wrong type")
        return None
    # Cameras pad with NUL and blanks.
    value = value.strip("\0 \t\r\n").replace("\r\n", "\n").replace("\r", "\n")
    if len(value) > most:
        problems.add(f"{what} too long")
        return None
    # Nearly all texts are printable, which is found out much faster.
    if not value.isprintable() and (
        any(unicodedata.category(each) in ("Cc", "Cs") for each in value if each not in "\n\t")
        or _BIDI.search(value)
    ):
        problems.add(f"{what} with control characters")
        return None
    return value or None


def keywords(values: Iterable[object], problems: Problems) -> tuple[str, ...]:
    """Return keywords without padding and repetition, in their order."""
    found: dict[str, None] = {}
    for value in values:
        if len(found) == MOST_KEYWORDS:
            problems.add("too many keywords")
            break
        if (keyword := text(value, "keyword", problems)) is not None:
            found[" ".join(keyword.split())] = None
    return tuple(found)


def number(value: object, what: str, problems: Problems, least: float, most: float) -> float | None:
    """Return a number within bounds; None for another, or for 0/0, by which cameras say "unknown".

    Args:
        value: An int, float or fraction, or a tuple of a single one.
        what: Name of the fact, for the reason.
        problems: Receives the reason.
        least: Smallest number that can be.
        most: Largest number that can be.
    """
    if isinstance(value, tuple) and len(value) == 1:
        (value,) = value
    if value is None:
        return None
    try:
        found = float(value)  # type: ignore[arg-type]
    except (TypeError, ValueError, OverflowError, ZeroDivisionError):
        problems.add(f"{what} of a wrong type")
        return None
    if math.isnan(found):
        return None
    if not least <= found <= most:
        problems.add(f"{what} out of range")
        return None
    return found


def positive(value: object, what: str, problems: Problems, most: float) -> float | None:
    """Return a number above 0; None for 0, by which cameras say "unknown"."""
    return number(value, what, problems, 0, most) or None


def metres(value: object, problems: Problems) -> float | None:
    """Return an altitude from the deepest place of the sea, 11 km, up to space, 100 km."""
    return number(value, "altitude", problems, -11_000, 100_000)


def position(
    latitude: float | None, longitude: float | None, problems: Problems
) -> tuple[float, float] | None:
    """Return latitude and longitude in degrees if both can be; None for no position.

    0, 0 lies in the Gulf of Guinea, and is what programs write that do not know the position.
    """
    if latitude is None or longitude is None or (latitude, longitude) == (0, 0):
        return None
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):
        problems.add("position out of range")
        return None
    return latitude, longitude
