"""What is typed into the one box: the grammar, and what an index makes of it."""

import pytest

from retrieval_pipeline.search.box import read_box, split
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.vector_index import VectorIndex
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline_tests.support.engines import ENGINES, Engines
from synthetic.tables import random_vectors, write_manifest, write_part

FILES = (
    "2019/Lisbon/IMG_1.jpg",
    "2019/lisbon[1]/img_1.JPG",
    "2019/Paris/IMG_10.jpg",
    "trips/2020/Lisbon/b/x.jpg",
    "IMG_1.png",
)


@pytest.mark.parametrize(
    ("text", "rest", "parts"),
    [
        ("a dog", "a dog", []),
        ("a dog -grass", "a dog", [("minus", "grass")]),
        ("+snow a dog +2*ice", "a dog", [("plus", "snow"), ("plus", "2*ice")]),
        ('a dog -"tall grass" in', "a dog in", [("minus", "tall grass")]),
        ("a dog −grass", "a dog", [("minus", "grass")]),
        ('"IMG_1 (2).jpg"', "", [("name", "IMG_1 (2).jpg")]),
        # Hyphens, dashes, sums and quotes that are none of these.
        ("a t-shirt - red, 1+1", "a t-shirt - red, 1+1", []),
        ('12" disc, 5"', '12" disc, 5"', []),
        ('"" -- +', '"" -- +', []),
        ("", "", []),
    ],
)
def test_signs_and_quotes_are_told_from_words(
    text: str, rest: str, parts: list[tuple[str, str]]
) -> None:
    words, found = split(text)
    assert words == rest
    assert [(part.kind, part.value) for part in found] == parts
    assert all(part.words in text for part in found)


@pytest.fixture(scope="module", params=ENGINES)
def index(
    request: pytest.FixtureRequest, engines: Engines, tmp_path_factory: pytest.TempPathFactory
) -> VectorIndex:
    store, space = Store(tmp_path_factory.mktemp("names")), VectorSpace("offline", "r", 8, "p")
    names = [f"n{number}" for number in range(len(FILES))]
    write_manifest(store, "photos", dict(zip(FILES, names, strict=True)))
    write_part(store, space, "photos", names, random_vectors(len(names), 8))
    return engines.index(request.param, store, space, ["photos"])


def found(index: VectorIndex, text: str, **filters: object) -> tuple[str | None, list[str]]:
    """Return the words that are left of a text, and the files that the rest lets through."""
    query = read_box(Query(text=text, **filters), index.file_names).query  # type: ignore[arg-type]
    selection = index.passing(query)
    records = index.records(index.listing(selection, "name")) if selection is not None else []
    return query.text, sorted(item.locations[0].path for item in records)


def test_files_and_folders_are_those_of_the_index_and_other_words_stay_words(
    index: VectorIndex,
) -> None:
    assert found(index, '"IMG_1.jpg"')[0] is None
    assert FILES[0] in found(index, '"IMG_1.jpg"')[1]
    assert set(found(index, 'dog "IMG_1"')[1]) >= {FILES[0], FILES[4]}
    assert found(index, "dog Lisbon/") == ("dog", [FILES[0], FILES[3]])
    assert found(index, "2019/lisbon[1] dog") == ("dog", [FILES[1]])
    assert found(index, "2020/Lisbon/b") == (None, [FILES[3]])
    # Not the names of anything here.
    assert found(index, '"a red car" and/or') == ("and/or a red car", [])
    read = read_box(Query(text='"a red car"'), index.file_names)
    assert "no file is named" in read.notes[0]
    assert found(index, '"IMG_1.jpg"', literal=True) == ('"IMG_1.jpg"', [])
    assert found(index, "Lisbon/", paths=("*.png",)) == ("Lisbon/", [FILES[4]])
    read = read_box(Query(text="dog -cat", minus=("snow",)), index.file_names)
    assert read.query.minus == ("snow", "cat")
    assert read.understood[0].words == "-cat"
    assert index.file_names.like("IMG_10", 3) == ["IMG_10.jpg"]


def test_names_are_found_without_regard_to_case_and_by_their_beginnings(
    index: VectorIndex,
) -> None:
    assert found(index, '"img_1.jpg"') == (None, [FILES[0], FILES[1]])
    assert found(index, 'dog "IMG_1"') == ("dog", sorted([FILES[0], FILES[1], FILES[4]]))
    assert found(index, "dog lisbon/") == ("dog", [FILES[0], FILES[3]])
    assert index.file_names.folders_like("li", 5) == [
        "2019/Lisbon",
        "2019/lisbon[1]",
        "trips/2020/Lisbon",
    ]
    assert index.file_names.like("mg_10", 3) == ["IMG_10.jpg"]
