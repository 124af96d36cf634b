"""Which items pass the filters by their facts: date taken, camera, place, keywords, rating.

The columns of facts.arrow are mapped into memory, and each filter is one pass over the columns that
it needs. An item that does not know a fact does not pass a filter by it.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.facts.dates import year_of
from retrieval_pipeline.facts.places import (
    EARTH_KM,
    Place,
    chord,
    country_code,
    find_place,
    on_unit_sphere,
)
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.vectors import Flags, Values

_EPOCH = datetime(1970, 1, 1)


def fact_flags(corpus: Corpus, query: Query) -> Flags | None:
    """Return which items pass the filters by facts, bool (items,); None without such filters.

    Raises:
        QueryError: A place or country does not exist, or the corpus knows no facts.
    """
    spans, tests = spans_of(query), _tests(query)
    if not spans and not tests:
        return None
    if corpus.facts is None:
        if tests:
            raise facts_unknown()
        # `with_file_times` asks the files.
        return None
    flags = np.ones(len(corpus), np.bool_)
    for start, end in spans:
        flags &= _taken(corpus.facts, start, end)
    for test in tests:
        flags &= test(corpus.facts)
    return flags


def facts_unknown() -> QueryError:
    """Return what is said of a filter by facts that the index was made too early to know."""
    return QueryError(
        "this index knows no years, cameras, places, keywords and ratings yet: "
        "run `retrieval index`"
    )


def with_file_times(query: Query) -> Query:
    """Return a query that asks the times of files instead of dates taken.

    That is what an index can answer that was made before facts were read. `fact_notes` says so.
    """
    spans = spans_of(query)
    if not spans:
        return query
    starts = [start for start, _ in (*spans, (query.file_after, None)) if start]
    ends = [end for _, end in (*spans, (None, query.file_before)) if end]
    return replace(
        query,
        after=None,
        before=None,
        on=None,
        file_after=max(starts, key=_local, default=None),
        file_before=min(ends, key=_local, default=None),
    )


def fact_notes(
    query: Query, *, knows_facts: bool = True, knows_countries: bool = True
) -> tuple[str, ...]:
    """Say what should be known of an answer whose query filters by facts.

    Args:
        query: What was asked.
        knows_facts: Whether the index was made when facts were read.
        knows_countries: Whether a picture of it knows its country.
    """
    notes = []
    if not knows_facts and spans_of(query):
        notes.append(
            "this index does not know when pictures were taken, so the times of the files count: "
            "run `retrieval index`"
        )
    if knows_facts and query.countries and not knows_countries:
        notes.append(
            "no picture knows its country: with the extra `places` "
            '(pip install "retrieval-pipeline[places]"), `retrieval index` names the places of '
            "pictures with coordinates"
        )
    if query.near is not None:
        place = find_place(query.near)
        if place.namesakes:
            others = "; ".join(map(str, place.namesakes[:3]))
            more = len(place.namesakes) - 3
            notes.append(
                f'"{query.near}" is {place} ({place.population:,} people); others: {others}'
                + (f" and {more} more" if more > 0 else "")
            )
    return tuple(notes)


_Test = Callable[[pa.Table], Flags]
Span = tuple[datetime | None, datetime | None]


def spans_of(query: Query) -> list[Span]:
    """Return the stretches of time that a picture must have been taken in, all of them."""
    spans: list[Span] = []
    if query.after or query.before:
        spans.append((query.after, query.before))
    if query.on:
        spans.append((query.on.start, query.on.end))
    return spans


def _tests(query: Query) -> list[_Test]:
    """Return the filters by other facts.

    Raises:
        QueryError: A place, country or year does not exist.
    """
    tests: list[_Test] = []
    if query.years:
        years = [year_span(year) for year in query.years]
        tests.append(lambda facts: np.logical_or.reduce([_taken(facts, *year) for year in years]))
    if query.cameras:
        tests.append(lambda facts: _repeated(facts["camera"], names_test(query.cameras)))
    if query.lenses:
        tests.append(lambda facts: _repeated(facts["lens"], names_test(query.lenses)))
    if query.countries:
        codes = {country_code(country) for country in query.countries}
        tests.append(lambda facts: _repeated(facts["country"], codes.__contains__))
    if query.near is not None:
        place = find_place(query.near)
        tests.append(
            lambda facts: are_near(
                facts["latitude"].to_numpy(), facts["longitude"].to_numpy(), place, query.within_km
            )
        )
    if query.keywords:
        wanted = {keyword.casefold() for keyword in query.keywords}
        tests.append(lambda facts: _listed(facts["keywords"], wanted))
    if query.min_rating is not None:
        tests.append(lambda facts: _flags(pc.greater_equal(facts["rating"], query.min_rating)))
    return tests


def _flags(column: pa.ChunkedArray) -> Flags:
    """Return a column of true, false and unknown as bool (items,); what is unknown is false."""
    flags: Flags = pc.fill_null(column, False).to_numpy()
    return flags


def _taken(facts: pa.Table, start: datetime | None, end: datetime | None) -> Flags:
    column = facts["taken_at"]
    late = pc.greater_equal(column, microseconds(start)) if start else None
    early = pc.less(column, microseconds(end)) if end else None
    return _flags(early if late is None else late if early is None else pc.and_(late, early))


def year_span(year: int) -> Span:
    """Return the stretch of time that a year is.

    Raises:
        QueryError: There is no such year.
    """
    try:
        span = year_of(year)
    except (ValueError, OverflowError):
        raise QueryError(f"{year} is no year: write it as 2019") from None
    return span.start, span.end


def _local(moment: datetime) -> datetime:
    """Return the local wall time of a moment, without a zone."""
    return moment if moment.tzinfo is None else moment.astimezone().replace(tzinfo=None)


def microseconds(moment: datetime) -> int:
    """Return the local wall time of a moment as facts have it: microseconds since 1970."""
    since = _local(moment) - _EPOCH
    return (since.days * 86_400 + since.seconds) * 1_000_000 + since.microseconds


def names_test(asked: Sequence[str]) -> Callable[[str], bool]:
    """Return what tells whether a name holds every word of one of the texts, in any case."""
    wanted = [text.casefold().split() for text in asked]

    def matches(name: str) -> bool:
        folded = name.casefold()
        return any(all(word in folded for word in words) for words in wanted)

    return matches


def _repeated(column: pa.ChunkedArray, matches: Callable[[str], bool]) -> Flags:
    """Return which rows of a dictionary column have a value that matches: each is tried once."""
    found = [np.empty(0, np.bool_)]
    for chunk in column.chunks:
        # The last entry is that of unknown values, whose index becomes -1.
        good = np.array([*map(matches, chunk.dictionary.to_pylist()), False], np.bool_)
        found.append(good[pc.fill_null(chunk.indices, -1).to_numpy()])
    return np.concatenate(found)


def _listed(column: pa.ChunkedArray, wanted: set[str]) -> Flags:
    """Return which rows of a column of lists hold a value that is wanted, in any case."""
    found = [np.empty(0, np.bool_)]
    for chunk in column.chunks:
        values = chunk.flatten()
        spellings = [
            value for value in pc.unique(values).to_pylist() if value and value.casefold() in wanted
        ]
        hits = np.flatnonzero(
            pc.is_in(values, pa.array(spellings, pa.string())).to_numpy(zero_copy_only=False)
        )
        flags = np.zeros(len(chunk), np.bool_)
        owners: Any = pc.list_parent_indices(chunk).to_numpy()
        flags[owners[hits]] = True
        found.append(flags)
    return np.concatenate(found)


def are_near(latitudes: Values, longitudes: Values, place: Place, kilometres: float) -> Flags:
    """Return which points lie within so many kilometres of a place, on a sphere, bool (n,).

    Args:
        latitudes: WGS 84 degrees, float64 (n,); NaN for unknown ones.
        longitudes: The same.
        place: The middle.
        kilometres: How far a point may be.
    """
    # What is farther north or south is too far; the others are few.
    with np.errstate(invalid="ignore"):
        flags: Flags = np.abs(latitudes - place.latitude) <= degrees_of(kilometres)
    rows = np.flatnonzero(flags)
    points = on_unit_sphere(latitudes[rows], longitudes[rows])
    centre = on_unit_sphere(np.array(place.latitude), np.array(place.longitude))
    flags[rows] = np.linalg.norm(points - centre, axis=1) <= chord(kilometres)
    return flags


def degrees_of(kilometres: float) -> float:
    """Return how many degrees to the north so many kilometres are, and a little more."""
    return float(np.degrees(kilometres / EARTH_KM)) + 1e-9
