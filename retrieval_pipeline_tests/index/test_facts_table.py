from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pyarrow as pa
import pytest

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.facts import places
from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.index import facts_table
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.index.facts_table import FACTS_COLUMNS, check_facts
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from synthetic.tables import random_vectors, write_facts, write_manifest, write_part

SPACE = VectorSpace("test/model", "r1", 16, "p")
LISBON = PictureFacts(
    taken_at=datetime(2019, 8, 12, 14, 32, 10, 250_000),
    utc_offset_minutes=60,
    taken_from=Origin.EXIF,
    camera="Nikon D750",
    latitude=38.72,
    longitude=-9.14,
    keywords=("tram", "hill"),
    rating=4,
)


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    # The list with every village takes seconds to read.
    monkeypatch.setattr(places, "ALL_TOWNS", 15_000)
    store = Store(tmp_path)
    write_manifest(store, "a", {"1.jpg": "tram", "2.jpg": "sea", "3.jpg": "tram"})
    write_manifest(store, "b", {"1.jpg": "sea", "x.jpg": "new"})
    write_part(store, SPACE, "a", ["tram", "sea", "new"], random_vectors(3, 16))
    return store


@pytest.mark.parametrize("rows_at_a_time", [1, 1_000])
def test_a_build_maps_the_facts_of_each_item_and_takes_the_file_with_the_strongest_date(
    store: Store, monkeypatch: pytest.MonkeyPatch, rows_at_a_time: int
) -> None:
    monkeypatch.setattr(facts_table, "BATCH_ROWS", rows_at_a_time)
    by_time = PictureFacts(datetime(2024, 1, 1), None, Origin.FILE_TIME)
    by_name = replace(by_time, taken_from=Origin.FILE_NAME, title="named")
    write_facts(store, "a", {"1.jpg": by_time, "3.jpg": LISBON, "2.jpg": by_name})
    write_facts(store, "b", {"1.jpg": replace(by_name, title="later in the order of paths")})
    build_index(store, SPACE, ["a", "b"])
    facts = open_current(store).facts
    assert facts is not None
    tram, sea, new = facts.to_pylist()
    assert tram["taken_at"] == 1_565_620_330_250_000
    assert (tram["taken_from"], tram["camera"]) == ("exif", "Nikon D750")
    assert tram["keywords"] == ["tram", "hill"]
    assert sea["title"] == "named"
    assert new == dict.fromkeys(FACTS_COLUMNS.names)


def test_a_build_is_made_again_when_facts_come_or_change_and_only_then(store: Store) -> None:
    without = build_index(store, SPACE, ["a", "b"])
    assert open_current(store).facts is None
    write_facts(store, "a", {"1.jpg": LISBON})
    first = build_index(store, SPACE, ["a", "b"])
    assert first.build != without.build
    assert not build_index(store, SPACE, ["a", "b"]).published
    write_facts(store, "a", {"1.jpg": replace(LISBON, rating=5)})
    second = build_index(store, SPACE, ["a", "b"])
    assert second.build != first.build
    facts = open_current(store).facts
    assert facts is not None and facts["rating"].to_pylist() == [5, None, None]


@pytest.mark.skipif(not places.are_available(), reason="the extra `places` is not installed")
def test_places_are_named_and_a_new_list_of_towns_makes_a_new_build(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_facts(store, "a", {"1.jpg": LISBON})
    first = build_index(store, SPACE, ["a", "b"])
    facts = open_current(store).facts
    assert facts is not None
    columns = ["place", "region", "country"]
    unknown = dict.fromkeys(columns)
    assert facts.select(columns).to_pylist() == [
        {"place": "Lisbon", "region": "Lisboa", "country": "PT"}, unknown, unknown,
    ]  # fmt: skip
    monkeypatch.setattr(places, "gazetteer_version", lambda: "later")
    assert build_index(store, SPACE, ["a", "b"]).build != first.build
    # Without the extra nothing is named.
    monkeypatch.setattr(places, "gazetteer_version", lambda: None)
    build_index(store, SPACE, ["a", "b"])
    facts = open_current(store).facts
    assert facts is not None
    assert facts.select(columns).to_pylist() == [unknown] * 3


def test_facts_of_a_content_that_the_path_no_longer_has_are_not_taken(store: Store) -> None:
    write_facts(store, "a", {"1.jpg": LISBON, "3.jpg": LISBON})
    write_manifest(store, "a", {"1.jpg": "sea", "2.jpg": "sea", "3.jpg": "sea"})
    build_index(store, SPACE, ["a"])
    facts = open_current(store).facts
    assert facts is not None
    assert facts["taken_at"].to_pylist() == [None]


def test_a_table_of_facts_with_an_impossible_value_is_refused() -> None:
    no_text = pa.StringArray.from_buffers(1, *pa.array([b"\xff"]).buffers()[1:])
    columns = [
        no_text if field.name == "title" else pa.nulls(1, field.type) for field in FACTS_COLUMNS
    ]
    with pytest.raises(BuildError, match=r"facts\.arrow"):
        check_facts(pa.table(columns, schema=FACTS_COLUMNS), Path("facts.arrow"))
