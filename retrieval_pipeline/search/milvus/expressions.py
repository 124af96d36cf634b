"""Filters of a query as boolean expressions of Milvus: https://milvus.io/docs/boolean.md.

Some filters an expression cannot say exactly: a glob with a class of characters, a distance on a
sphere, or which of several files of a picture passes. For them there is a `Check`: an expression
that lets through too much, and a test that is made here on what comes through.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile

import numpy as np

from retrieval_pipeline.config.extensions import format_named
from retrieval_pipeline.facts.places import country_code, find_place
from retrieval_pipeline.index.milvus.client import Patterns
from retrieval_pipeline.index.milvus.schema import UNKNOWN
from retrieval_pipeline.search.fact_filters import (
    Span,
    are_near,
    degrees_of,
    facts_unknown,
    microseconds,
    names_test,
    spans_of,
    with_file_times,
    year_span,
)
from retrieval_pipeline.search.filters import file_test, nanoseconds
from retrieval_pipeline.search.milvus.rows import Row
from retrieval_pipeline.search.query import Query

# The greatest character: no text that begins with a prefix is greater than the prefix and this.
_LAST = "\U0010ffff"
# What no row passes, and what every row does.
NOTHING, EVERYTHING = 'id == ""', 'id != ""'
# Beyond this latitude a circle may lie around a pole.
_POLE = 80.0


@dataclass(frozen=True)
class Check:
    """A filter of which an expression alone lets through too much.

    Attributes:
        exact: An expression of items that pass for certain.
        candidates: An expression of the other items that may pass.
        test: Tells which of these do.
    """

    exact: str
    candidates: str
    test: Callable[[Row], bool]

    @property
    def wide(self) -> str:
        """The expression of all items that may pass."""
        return some([self.exact, self.candidates])


# What has to be true of an item's rows, all of it.
Passing = frozenset[str | Check]


def expressions_of(selection: Passing) -> list[str]:
    """Return the expressions of a selection, which let through too much if it has checks."""
    return sorted(each.wide if isinstance(each, Check) else each for each in selection)


def checks_of(selection: Passing) -> list[Check]:
    """Return the filters of a selection that have to be tested here."""
    return [each for each in selection if isinstance(each, Check)]


def passing(selection: Passing, rows: Iterable[Row]) -> list[Row]:
    """Return the rows that pass the checks of a selection, of those that its expressions find."""
    checks = checks_of(selection)
    return [row for row in rows if all(check.test(row) for check in checks)]


def quoted(text: str) -> str:
    """Return a text as an expression has it."""
    return json.dumps(text, ensure_ascii=False)


def one_of(field: str, values: Iterable[str | int]) -> str:
    """Return the expression that a field has one of these values."""
    texts = [quoted(value) if isinstance(value, str) else str(value) for value in values]
    return f"{field} in [{', '.join(texts)}]" if texts else NOTHING


def has_one_of(field: str, values: Collection[str]) -> str:
    """Return the expression that an array holds one of these values."""
    listed = ", ".join(map(quoted, values))
    return f"array_contains_any({field}, [{listed}])" if values else NOTHING


def every(expressions: Iterable[str]) -> str:
    """Return the expression that all of these are true."""
    return " and ".join(f"({each})" for each in expressions) or EVERYTHING


def some(expressions: Iterable[str]) -> str:
    """Return the expression that one of these is true."""
    return " or ".join(f"({each})" for each in expressions) or NOTHING


def filters_of(
    query: Query,
    *,
    knows_facts: bool,
    cameras: Sequence[str],
    lenses: Sequence[str],
    patterns: Patterns = "escapes",
) -> tuple[list[str], list[Check]]:
    """Return what is to be true of the items that pass a query's filters, but albums and labels.

    Args:
        query: Has the filters. That its sources are there has been checked.
        knows_facts: Whether the index knows dates taken; else the times of files stand for them.
        cameras: The names of all cameras.
        lenses: The names of all lenses.
        patterns: What the engine reads in patterns of `like`.

    Raises:
        QueryError: A place or year does not exist, or the index does not know a fact.
    """
    expressions, checks = [], []
    if knows_facts:
        expressions += [_taken(span) for span in spans_of(query)]
    else:
        query = with_file_times(query)
    if query.years:
        expressions.append(some(_taken(year_span(year)) for year in query.years))
    if query.cameras:
        matches = names_test(query.cameras)
        expressions.append(one_of("camera", [name for name in cameras if matches(name)]))
    if query.lenses:
        matches = names_test(query.lenses)
        expressions.append(one_of("lens", [name for name in lenses if matches(name)]))
    if query.countries:
        expressions.append(one_of("country", sorted(map(country_code, query.countries))))
    if query.keywords:
        folded = {keyword.casefold() for keyword in query.keywords}
        expressions.append(has_one_of("keywords", sorted(folded)))
    if query.min_rating is not None:
        # The least that there is: what is unknown must not pass.
        expressions.append(f"rating >= {max(query.min_rating, -1)}")
    if query.near is not None:
        checks.append(_near(query.near, query.within_km))
    if not knows_facts and (expressions or checks):
        raise facts_unknown()
    if query.min_width:
        expressions.append(f"width >= {query.min_width}")
    if query.min_height:
        expressions.append(f"height >= {query.min_height}")
    if query.formats:
        formats = set(map(format_named, query.formats))
        expressions.append(has_one_of("formats", sorted(formats)))
    if query.sources:
        expressions.append(has_one_of("sources", query.sources))
    if query.paths or query.file_after or query.file_before:
        checks.append(_files(query, patterns))
    return expressions, checks


def _taken(span: Span) -> str:
    start, end = span
    bounds = [f"taken_at >= {microseconds(start)}"] if start else []
    return every([*bounds, f"taken_at < {microseconds(end) if end else UNKNOWN['taken_at']}"])


def _near(place_name: str, kilometres: float) -> Check:
    """Return the filter by a distance: a rectangle holds the candidates."""
    place = find_place(place_name)
    degrees = degrees_of(kilometres)
    south, north = place.latitude - degrees, place.latitude + degrees
    bounds = [f"latitude >= {south!r}", f"latitude <= {north!r}"]
    if max(abs(south), abs(north)) < _POLE:
        # The widest part of the circle lies nearer to the pole than its middle.
        sideways = degrees / np.cos(np.radians(max(abs(south), abs(north))))
        west, east = place.longitude - sideways, place.longitude + sideways
        if west >= -180 and east <= 180:
            bounds += [f"longitude >= {float(west)!r}", f"longitude <= {float(east)!r}"]

    def test(row: Row) -> bool:
        at = np.array([row.facts.latitude]), np.array([row.facts.longitude])
        return bool(are_near(*at, place, kilometres)[0])

    return Check(NOTHING, every(bounds), test)


def _files(query: Query, patterns: Patterns) -> Check:
    """Return the filter by paths and times of files: one and the same file has to pass.

    The fields of a row are those of the first file. They tell all of a picture with a single file.
    """
    conditions = []
    if query.sources:
        conditions.append(one_of("source", query.sources))
    if query.file_after:
        conditions.append(f"mtime_ns >= {nanoseconds(query.file_after)}")
    if query.file_before:
        conditions.append(f"mtime_ns < {nanoseconds(query.file_before)}")
    is_exact = True
    if query.paths:
        found = [
            matching(field, glob, patterns) for glob in query.paths for field in ("path", "name")
        ]
        conditions.append(some(expression for expression, _ in found))
        is_exact = all(exact for _, exact in found)
    single = every(["files == 1", *conditions])
    passes = file_test(query, knows_facts=True)

    def test(row: Row) -> bool:
        companions = (companion.file for companion in row.record.companions)
        return any(map(passes, (*row.record.files, *companions)))

    if is_exact:
        return Check(single, "files > 1", test)
    return Check(NOTHING, some([single, "files > 1"]), test)


def begins(field: str, prefix: str) -> str:
    """Return the expression that a text begins with another one."""
    return every([f"{field} >= {quoted(prefix)}", f"{field} < {quoted(prefix + _LAST)}"])


def matching(field: str, glob: str, patterns: Patterns = "escapes") -> tuple[str, bool]:
    r"""Return an expression of the texts that a glob matches, and whether it lets through no more.

    In a pattern of `like` a class such as [a-z], a backslash and what does not print stand for any
    one character, and so do "%" and "_" where the engine reads no escapes. An engine that reads no
    patterns is asked for what begins as the glob does.
    """
    # As `fnmatch.translate`: "[" without an end is itself.
    parts = re.findall(r"\[!?\]?[^\]]*\]|.", unicodedata.normalize("NFC", glob), re.DOTALL)
    characters = [_character(part) for part in parts]
    prefix = "".join(takewhile(bool, characters))
    rest = parts[len(prefix) :]
    if not rest:
        return f"{field} == {quoted(prefix)}", True
    if rest == ["*"] or patterns == "none":
        return begins(field, prefix) if prefix else EVERYTHING, rest == ["*"]
    pattern, is_exact = "", True
    for part, character in zip(parts, characters, strict=True):
        if part in "*?":
            pattern += "%" if part == "*" else "_"
        elif character in ("", "\\") or (character in "%_" and patterns != "escapes"):
            pattern, is_exact = f"{pattern}_", False
        else:
            pattern += f"\\{character}" if character in "%_" else character
    return f"{field} like {quoted(pattern)}", is_exact


def _character(part: str) -> str:
    """Return the one character that a part of a glob stands for; "" if an expression has no such.

    A class of one character is that character.
    """
    character = part[1] if re.fullmatch(r"\[[^!]\]", part) else part
    is_plain = len(character) == 1 and part not in "*?" and character.isprintable()
    return character if is_plain else ""
