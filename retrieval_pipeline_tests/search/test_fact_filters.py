"""Every filter by facts against a plain loop over random tables."""

import math
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from random import Random
from typing import Any

import pytest

from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.facts import places
from retrieval_pipeline.facts.dates import Interval, parse_dates
from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.search.fact_filters import fact_notes
from retrieval_pipeline.search.filters import file_test, passing
from retrieval_pipeline.search.query import Query, kilometres
from retrieval_pipeline.search.vector_index import VectorIndex
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline_tests.support.engines import ENGINES, Engines
from synthetic.tables import random_vectors, write_facts, write_manifest, write_part

SPACE = VectorSpace("test/model", "r1", 8, "p")
PICTURES = 200
CAMERAS = ("Nikon D750", "Nikon Z 6", "Canon EOS 5D Mark II", "Apple iPhone 12")
LENSES = ("24-70mm f/2.8", "50mm f/1.8", "iPhone 12 back camera 4.2mm f/1.6")
KEYWORDS = ("Dog", "dog", "beach", "Straße", "STRASSE", "2019")
LISBON = (38.72, -9.14)


def random_facts(random: Random) -> PictureFacts:
    """Facts of which each is missing now and then."""

    def sometimes(make: Callable[[], Any]) -> Any:
        return make() if random.random() < 0.8 else None

    near = random.random() < 0.5
    latitude, longitude = (
        (LISBON[0] + random.gauss(0, 0.2), LISBON[1] + random.gauss(0, 0.2))
        if near
        else (random.uniform(-90, 90), random.uniform(-180, 180))
    )
    located = random.random() < 0.8
    return PictureFacts(
        # Whole months often, so that the bounds of the filters are met.
        taken_at=sometimes(
            lambda: random.choice(
                [
                    datetime(random.randint(2017, 2020), random.randint(1, 12), 1),
                    datetime(2017, 1, 1) + timedelta(microseconds=random.randrange(10**14)),
                ]
            )
        ),
        taken_from=Origin.EXIF,
        camera=sometimes(lambda: random.choice(CAMERAS)),
        lens=sometimes(lambda: random.choice(LENSES)),
        latitude=latitude if located else None,
        longitude=longitude if located else None,
        keywords=tuple(random.sample(KEYWORDS, random.randint(0, 3))),
        rating=sometimes(lambda: random.randint(-1, 5)),
    )


@pytest.fixture(scope="module", params=ENGINES)
def library(
    request: pytest.FixtureRequest, engines: Engines, tmp_path_factory: pytest.TempPathFactory
) -> tuple[VectorIndex, list[PictureFacts]]:
    """An index, and the facts of its items in the order of their names."""
    store = Store(tmp_path_factory.mktemp("home"))
    random = Random(7)
    names = [f"{number:04d}.jpg" for number in range(PICTURES)]
    facts = {name: random_facts(random) for name in names}
    write_manifest(store, "a", {name: name for name in names})
    write_part(store, SPACE, "a", names, random_vectors(PICTURES, 8))
    write_facts(store, "a", facts)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(places, "ALL_TOWNS", 15_000)
        index = engines.index(request.param, store, SPACE, ["a"])
    return index, [facts[name] for name in names]


def passed(index: VectorIndex, query: Query) -> list[bool]:
    """Tell of each item, in the order of their names, whether it passes the filters."""
    everything = index.records(index.listing(None, "name"))
    found = index.records(index.listing(index.passing(query), "name"))
    passing = {record.content_id for record in found}
    assert len(passing) == len(found) == index.count(index.passing(query))
    return [record.content_id in passing for record in everything]


def distance(facts: PictureFacts) -> float:
    """Kilometres to the middle of Lisbon, by the haversine formula; infinite if unknown."""
    if facts.latitude is None or facts.longitude is None:
        return math.inf
    north, east = math.radians(facts.latitude), math.radians(facts.longitude)
    to_north, to_east = map(math.radians, LISBON)
    share = (
        math.sin((to_north - north) / 2) ** 2
        + math.cos(north) * math.cos(to_north) * math.sin((to_east - east) / 2) ** 2
    )
    return 2 * 6371.0088 * math.asin(math.sqrt(share))


def taken(facts: PictureFacts, start: str, end: str) -> bool:
    return facts.taken_at is not None and (
        datetime.fromisoformat(start) <= facts.taken_at < datetime.fromisoformat(end)
    )


def camera(facts: PictureFacts) -> str:
    return (facts.camera or "").lower()


@pytest.mark.parametrize(
    ("asked", "expected"),
    [
        ({"after": "2019-03"}, lambda f: taken(f, "2019-03-01", "9999-01-01")),
        ({"before": datetime(2018, 4, 1)}, lambda f: taken(f, "0001-01-01", "2018-04-01")),
        (
            {"after": "2018", "before": "2019-06-05T12:30"},
            lambda f: taken(f, "2018-01-01", "2019-06-05T12:30"),
        ),
        ({"on": "summer 2019"}, lambda f: taken(f, "2019-06-01", "2019-09-01")),
        (
            {"on": "summer 2019", "after": "2019-07"},
            lambda f: taken(f, "2019-07-01", "2019-09-01"),
        ),
        (
            {"year": [2017, 2019]},
            lambda f: f.taken_at is not None and f.taken_at.year in (2017, 2019),
        ),
        ({"camera": ["NIKON"]}, lambda f: "nikon" in camera(f)),
        (
            {"camera": ["iphone", "5d canon"]},
            lambda f: "iphone" in camera(f) or ("5d" in camera(f) and "canon" in camera(f)),
        ),
        ({"lens": ["f/1."]}, lambda f: "f/1." in (f.lens or "")),
        ({"keyword": ["dog"]}, lambda f: "dog" in map(str.lower, f.keywords)),
        (
            {"keyword": ["strasse", "beach"]},
            lambda f: bool({"Straße", "STRASSE", "beach"} & {*f.keywords}),
        ),
        ({"rating": 3}, lambda f: f.rating is not None and f.rating >= 3),
        ({"rating": -1}, lambda f: f.rating is not None),
        ({"near": "38.72, -9.14"}, lambda f: distance(f) <= 20),
        ({"near": "38.72, -9.14", "within": "500 m"}, lambda f: distance(f) <= 0.5),
        ({"near": "38.72, -9.14", "within": 15_000.0}, lambda f: distance(f) <= 15_000),
        ({"camera": ["leica"]}, lambda f: False),
        (
            {"camera": ["nikon"], "rating": 2, "on": "2018", "keyword": ["dog"]},
            lambda f: (
                "nikon" in camera(f)
                and (f.rating or 0) >= 2
                and taken(f, "2018-01-01", "2019-01-01")
                and "dog" in map(str.lower, f.keywords)
            ),
        ),
        ({}, lambda f: True),
    ],
)
def test_a_filter_passes_exactly_what_a_plain_loop_does(
    library: tuple[VectorIndex, list[PictureFacts]],
    asked: dict[str, Any],
    expected: Callable[[PictureFacts], bool],
) -> None:
    index, facts = library
    query = Query.of(asked)
    assert passed(index, query) == [expected(each) for each in facts]
    assert (index.passing(query) is None) == (not asked)


@pytest.mark.slow
@pytest.mark.skipif(not places.are_available(), reason="the extra `places` is not installed")
def test_pictures_are_found_by_country_and_place(
    library: tuple[VectorIndex, list[PictureFacts]],
) -> None:
    index, _ = library
    facts = index.item_facts(index.listing(None, "name"))
    portuguese = [each.country == "PT" for each in facts]
    assert any(portuguese)
    for asked in ("pt", "Portugal"):
        assert passed(index, Query(countries=(asked,))) == portuguese
    assert 0 < sum(passed(index, Query(near="Lisboa"))) < PICTURES / 2
    assert fact_notes(Query(near="Lisboa")) == ()
    (note,) = fact_notes(Query(near="San José"))
    assert '"San José" is San Jose, California, US' in note


@pytest.mark.parametrize("engine", ENGINES)
def test_an_index_without_facts_asks_the_files_for_dates_and_says_so(
    engine: str, engines: Engines, tmp_path: Path
) -> None:
    store = Store(tmp_path)
    write_manifest(store, "a", {"1.jpg": "dog"})  # changed in 1970
    write_part(store, SPACE, "a", ["dog"], random_vectors(1, 8))
    index = engines.index(engine, store, SPACE, ["a"])
    (record,) = index.records(index.listing(None, "name"))
    (file,) = record.files
    for query, passes in (
        (Query(after=datetime(1980, 1, 1)), False),
        (Query(before=datetime(1980, 1, 1)), True),
        (Query(on=parse_dates("1969 to 1971")), True),
        (Query(on=parse_dates("2019"), file_after=datetime(1960, 1, 1)), False),
    ):
        assert passed(index, query) == [passes]
        assert file_test(query, knows_facts=False)(file) is passes
        assert "the times of the files count" in fact_notes(query, knows_facts=False)[0]
    assert fact_notes(Query(file_after=datetime(1980, 1, 1))) == ()
    for facts in ({"cameras": ("nikon",)}, {"years": (2019,)}, {"min_rating": 1}):
        with pytest.raises(QueryError, match="run `retrieval index`"):
            index.passing(replace(Query(), **facts))


def test_a_query_is_read_from_text() -> None:
    query = Query.of({"on": "2019-08", "after": "", "file_after": "2018", "within": "3 miles"})
    assert query.on == Interval(datetime(2019, 8, 1), datetime(2019, 9, 1))
    assert (query.after, query.file_after) == (None, datetime(2018, 1, 1))
    assert query.within_km == pytest.approx(4.828, abs=1e-3)
    assert (kilometres("20"), kilometres("20KM"), kilometres(" 500 m ")) == (20, 20, 0.5)
    for wrong in ({"on": "soon"}, {"within": "far"}, {"within": "0"}, {"sort": "best"}):
        with pytest.raises(QueryError):
            Query.of(wrong)
    with pytest.raises(QueryError, match="no year"):
        passing(None, Query(years=(0,)))  # type: ignore[arg-type]
