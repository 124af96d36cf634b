"""Words of a query that can only mean facts: "dogs in summer 2019", "Lisbon at night", "nikon".

Most queries describe what a picture shows, and a word that is taken out by mistake cannot be found.
So words are read as facts only where nothing else is plausible, by three rules. Dates are phrases
such as "last week" or a month with its year, and a year of the collection after a preposition or at
the end. Cameras are those of the collection, as all that is asked or after "taken with". Towns and
countries are those of the collection, as all that is asked, after "in", or at the beginning before
a preposition; never names that are also ordinary words ("Nice", "Reading", "Turkey").
"""

import functools
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from importlib import resources
from typing import Literal

from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.facts.dates import PHRASE, parse_dates
from retrieval_pipeline.facts.places import folded

# Words after which a phrase ends: "in Lisbon with friends", unlike "the Berlin wall".
_FUNCTION_WORDS = frozenset(
    ["after", "at", "before", "by", "during", "from", "in", "on", "under", "when", "while", "with"]
)
_WHERE = frozenset(["around", "in", "near"])
# "Made in Germany" is what a label says.
_NOT_WHERE = frozenset(["made"])
# Makes and models that are also things to see.
_SEEN_THINGS = frozenset(
    ("action", "apple", "canon", "galaxy", "google", "hero", "instant", "ipad", "iphone", "mavic",
     "note", "one", "phantom", "phone", "pixel", "pocket", "spark")
)  # fmt: skip
# Words of the longest name of a town, country or camera that is looked for.
_LONGEST_NAME = 6

_TAKEN = r"(?:(?:taken|shot|photographed|captured)\s+)?"
_BEFORE, _AFTER = r"(?<![\w.'’/:-])", r"(?![\w'’/:-])"
_DATE = re.compile(
    rf"{_BEFORE}{_TAKEN}(?:(?:in|on|from|during)\s+)?(?:the\s+)?(?P<date>{PHRASE}){_AFTER}",
    re.IGNORECASE,
)
_YEAR = re.compile(
    rf"{_BEFORE}{_TAKEN}(?:(?:(?:in|from|during)\s+)(?P<after>\d{{4}}){_AFTER}|(?P<last>\d{{4}})\s*$)",
    re.IGNORECASE,
)
_TAKEN_WITH = re.compile(
    rf"{_BEFORE}(?:taken|shot|photographed|captured)\s+(?:with|on|by|using)\s+"
    rf"(?:(?:an?|the|my|our)\s+)?(?P<camera>.+)$",
    re.IGNORECASE,
)

Field = Literal["on", "cameras", "near", "countries", "plus", "minus", "paths"]


@dataclass(frozen=True)
class Vocabulary:
    """What the pictures of a collection know of themselves, as far as words may mean it.

    Attributes:
        cameras: Names of the cameras.
        towns: The country (ISO 3166-1 alpha-2) of each town, by its name.
        countries: The code of each country, by its name.
        years: In which pictures were taken.
    """

    cameras: tuple[str, ...] = ()
    towns: Mapping[str, str] = field(default_factory=dict)
    countries: Mapping[str, str] = field(default_factory=dict)
    years: frozenset[int] = frozenset()

    @functools.cached_property
    def _places(self) -> dict[str, tuple[Field, str, str]]:
        """Field, value and meaning of each name of a place, folded."""
        places: dict[str, tuple[Field, str, str]] = {
            folded(name): ("countries", code, f"taken in {name}")
            for name, code in self.countries.items()
        }
        for name, code in self.towns.items():
            places[folded(name)] = ("near", f"{name}, {code}", f"taken near {name}, {code}")
        return {name: place for name, place in places.items() if name not in _ordinary_words()}

    def place(self, name: str) -> tuple[Field, str, str] | None:
        """Return the field, value and meaning of a folded name; None if it is no place here."""
        return self._places.get(name)

    @functools.cached_property
    def _camera_words(self) -> tuple[frozenset[str], ...]:
        return tuple(frozenset(camera.casefold().split()) for camera in self.cameras)

    def has_camera(self, words: list[str]) -> bool:
        """Tell whether all of these words are in the name of one camera."""
        return any(words and camera.issuperset(words) for camera in self._camera_words)


@dataclass(frozen=True)
class Understood:
    """Words of a query that were read as a fact.

    Attributes:
        words: As they were written.
        field: Of the query that they set.
        value: Of that field, as text that `Query.of` takes.
        meaning: In words, such as "taken in summer 2019 (2019-06-01 to 2019-08-31)".
    """

    words: str
    field: Field
    value: str
    meaning: str


def read_words(
    text: str, vocabulary: Vocabulary, now: datetime | None = None
) -> tuple[str, tuple[Understood, ...]]:
    """Return a text without the words that mean facts, and what these mean.

    Args:
        text: Words of a query.
        vocabulary: Of the collection.
        now: Local wall time that "yesterday" counts from; default now.
    """
    understood = []
    # The camera once more: "nikon" is all that is left of "nikon in Lisbon" without the place.
    for read in (_read_date, _read_camera, _read_place, _read_camera):
        found = read(text, vocabulary, now)
        if found is not None:
            text, meaning = found
            understood.append(meaning)
    return text, tuple(understood)


_Read = tuple[str, Understood] | None


def _without(text: str, start: int, end: int) -> str:
    rest = f"{text[:start].rstrip(' ,;')} {text[end:].lstrip(' ,;')}"
    return " ".join(rest.split())


def _read_date(text: str, vocabulary: Vocabulary, now: datetime | None) -> _Read:
    found = list(_DATE.finditer(text))
    if not found:
        found = [
            match
            for match in _YEAR.finditer(text)
            if int(match["after"] or match["last"]) in vocabulary.years
        ]
    # Of two dates only the person who wrote them knows what they mean.
    if len(found) != 1:
        return None
    match = found[0]
    groups = match.groupdict()
    value = groups.get("date") or groups.get("after") or groups["last"]
    try:
        interval = parse_dates(value, now)
    except QueryError:
        return None
    shown = f" ({interval})" if str(interval) != value else ""
    meaning = (
        f"taken {value}" if value.lower() == "yesterday" or "ago" in value else f"taken in {value}"
    )
    return (
        _without(text, *match.span()),
        Understood(match[0].strip(), "on", value, f"{meaning}{shown}"),
    )


def _read_camera(text: str, vocabulary: Vocabulary, now: datetime | None) -> _Read:
    if match := _TAKEN_WITH.search(text):
        words = match["camera"].split()
        for count in range(min(len(words), _LONGEST_NAME), 0, -1):
            named = [word.casefold().strip(",;.") for word in words[:count]]
            if vocabulary.has_camera(named):
                camera = " ".join(named)
                end = match.start("camera") + _length(match["camera"], count)
                return _without(text, match.start(), end), _camera(
                    text[match.start() : end], camera
                )
    words = text.casefold().split()
    if vocabulary.has_camera(words) and not _SEEN_THINGS.issuperset(words):
        return "", _camera(text, " ".join(words))
    return None


def _length(text: str, count: int) -> int:
    """Return how many characters the first `count` words of a text take."""
    return [match.end() for match in re.finditer(r"\S+", text)][count - 1]


def _camera(words: str, camera: str) -> Understood:
    return Understood(words.strip(), "cameras", camera, f'taken with a camera "{camera}"')


def _read_place(text: str, vocabulary: Vocabulary, now: datetime | None) -> _Read:
    tokens = list(re.finditer(r"[^\s,;]+", text))
    words = [folded(token[0]) for token in tokens]
    found: list[tuple[int, int, tuple[Field, str, str]]] = []
    for start in range(len(words)):
        if found and start < found[-1][1]:
            continue
        for end in range(min(len(words), start + _LONGEST_NAME), start, -1):
            place = vocabulary.place(" ".join(words[start:end]))
            if place is not None:
                found.append((start, end, place))
                break
    if len(found) == 2 and found[0][1] == found[1][0] and found[1][2][0] == "countries":
        # "Lisbon, Portugal": the country only says which Lisbon.
        (start, _, place), (_, end, _) = found
    elif len(found) == 1:
        start, end, place = found[0]
    else:
        return None
    ends = end == len(words) or words[end] in _FUNCTION_WORDS or _comma(text, tokens, end)
    article = start and words[start - 1] == "the"
    before = start - 2 if article else start - 1
    located = before >= 0 and words[before] in _WHERE
    if located and before and words[before - 1] in _NOT_WHERE:
        return None
    named_alone = start == 0 and " ".join(words[start:end]) not in _given_names()
    if not ends or not (located or named_alone):
        return None
    first = tokens[before if located else start].start()
    last = tokens[end - 1].end()
    named = text[first:last].strip()
    return _without(text, first, last), Understood(named, place[0], place[1], place[2])


def _comma(text: str, tokens: list[re.Match[str]], end: int) -> bool:
    between = text[tokens[end - 1].end() : tokens[end].start()]
    return "," in between or ";" in between


@functools.cache
def _ordinary_words() -> frozenset[str]:
    """Names of places that are also lower-case words of WordNet 3.0, or forms of them."""
    return frozenset(_lines("ordinary_words.txt"))


@functools.cache
def _given_names() -> frozenset[str]:
    """Names of towns that are also given to people: "Florence on a beach" may be a person."""
    return frozenset(_lines("given_names.txt"))


def _lines(name: str) -> list[str]:
    text = resources.files("retrieval_pipeline.facts").joinpath(name).read_text("utf-8")
    return text.splitlines()
