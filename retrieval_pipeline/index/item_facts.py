"""The rows of facts.arrow as Python objects: what is told of when, where and with what."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from typing import Any

import pyarrow as pa

from retrieval_pipeline.facts.model import Origin
from retrieval_pipeline.vectors import Numbers

_EPOCH = datetime(1970, 1, 1)


@dataclass(frozen=True, slots=True)
class ItemFacts:
    """What an item of a build knows of itself; None, or an empty tuple, where it does not.

    Attributes:
        taken_at: When it was taken, by the clock on the wall there (no time zone).
        utc_offset_minutes: That clock's distance from UTC, east positive.
        taken_from: Where `taken_at` was found.
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
        rating: Stars, 0 to 5; -1 is "rejected" (XMP).
        place: The nearest town.
        region: Its region.
        country: Its country, ISO 3166-1 alpha-2.
    """

    taken_at: datetime | None = None
    utc_offset_minutes: int | None = None
    taken_from: Origin | None = None
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
    keywords: tuple[str, ...] = ()
    rating: int | None = None
    place: str | None = None
    region: str | None = None
    country: str | None = None

    @property
    def where(self) -> str:
        """Town and country, such as "Lisbon, PT"; empty if unknown."""
        return ", ".join(part for part in (self.place, self.country) if part)

    @property
    def about(self) -> str:
        """Town, country and camera, such as "Lisbon, PT, Nikon D750"; empty if unknown."""
        return ", ".join(part for part in (self.where, self.camera) if part)

    @property
    def day(self) -> str:
        """The date taken as "2019-08-12"; empty if unknown."""
        return "" if self.taken_at is None else f"{self.taken_at:%Y-%m-%d}"

    def as_json(self) -> dict[str, Any]:
        """Return all facts by their names; the date as `taken_text`, null where it is unknown."""
        return {**asdict(self), "taken_at": self.taken_text or None, "keywords": [*self.keywords]}

    @property
    def taken_text(self) -> str:
        """The date taken as ISO 8601 in seconds, with its offset from UTC if that is known."""
        if self.taken_at is None:
            return ""
        text = self.taken_at.isoformat(timespec="seconds")
        if self.utc_offset_minutes is None:
            return text
        hours, minutes = divmod(abs(self.utc_offset_minutes), 60)
        return f"{text}{'-' if self.utc_offset_minutes < 0 else '+'}{hours:02d}:{minutes:02d}"


# Of an item whose facts were never read.
UNKNOWN = ItemFacts()

_SINGLE_PRECISION = ("exposure_seconds", "f_number", "focal_length_mm", "altitude_m")
_COLUMNS = [field.name for field in fields(ItemFacts)]


def read_item_facts(facts: pa.Table | None, numbers: Sequence[int] | Numbers) -> list[ItemFacts]:
    """Return these rows of a table with the columns of FACTS_COLUMNS, in this order.

    Without a table, nothing is known of any item.
    """
    if facts is None:
        return [UNKNOWN] * len(numbers)
    columns = facts.select(_COLUMNS)
    rows: list[ItemFacts] = []
    for number in numbers:
        # `Table.take` of a NumPy array would import pandas where it is installed.
        rows += map(facts_of_row, columns.slice(int(number), 1).to_pylist())
    return rows


def facts_of_row(row: Mapping[str, Any]) -> ItemFacts:
    """Return the facts of one row of FACTS_COLUMNS; what is unknown may be null, or not there."""
    known = {name: row[name] for name in _COLUMNS if row.get(name) is not None}
    if "taken_at" in known:
        known["taken_at"] = _EPOCH + timedelta(microseconds=known["taken_at"])
    if "taken_from" in known:
        known["taken_from"] = Origin(known["taken_from"])
    for name in _SINGLE_PRECISION:
        if name in known:
            # As a double, the float32 nearest to 2.8 is 2.799999952316284.
            known[name] = float(f"{known[name]:.6g}")
    return ItemFacts(**known | {"keywords": tuple(known.get("keywords", ()))})
