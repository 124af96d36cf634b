"""What is typed into the one box: the grammar, and what an index makes of it."""

from pathlib import Path

import pytest

from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.search.box import read_box, split
from retrieval_pipeline.search.file_names import FileNames
from retrieval_pipeline.search.filters import passing
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
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


def test_files_and_folders_are_those_of_the_index_and_other_words_stay_words(
    tmp_path: Path,
) -> None:
    store, space = Store(tmp_path), VectorSpace("offline", "r", 8, "p")
    names = [f"n{number}" for number in range(len(FILES))]
    write_manifest(store, "photos", dict(zip(FILES, names, strict=True)))
    write_part(store, space, "photos", names, random_vectors(len(names), 8))
    build_index(store, space, ["photos"])
    build = open_current(store)
    file_names = FileNames(build)

    def found(text: str, **filters: object) -> tuple[str | None, list[str]]:
        read = read_box(Query(text=text, **filters), file_names)  # type: ignore[arg-type]
        flags = passing(build, read.query)
        records = build.records([] if flags is None else flags.nonzero()[0])
        return read.query.text, [item.locations[0].path for item in records]

    assert found('"img_1.jpg"') == (None, [FILES[0], FILES[1]])
    assert set(found('dog "IMG_1"')[1]) == {FILES[0], FILES[1], FILES[4]}
    assert found("dog lisbon/") == ("dog", [FILES[0], FILES[3]])
    assert found("2019/lisbon[1] dog") == ("dog", [FILES[1]])
    assert found("2020/Lisbon/b") == (None, [FILES[3]])
    # Not the names of anything here.
    assert found('"a red car" and/or') == ("and/or a red car", [])
    assert "no file is named" in read_box(Query(text='"a red car"'), file_names).notes[0]
    assert found('"img_1.jpg"', literal=True) == ('"img_1.jpg"', [])
    assert found("lisbon/", paths=("*.png",)) == ("lisbon/", [FILES[4]])
    read = read_box(Query(text="dog -cat", minus=("snow",)), file_names)
    assert read.query.minus == ("snow", "cat")
    assert read.understood[0].words == "-cat"
    assert file_names.folders_like("li", 5) == [
        "2019/Lisbon",
        "2019/lisbon[1]",
        "trips/2020/Lisbon",
    ]
    assert file_names.like("mg_10", 3) == ["IMG_10.jpg"]
