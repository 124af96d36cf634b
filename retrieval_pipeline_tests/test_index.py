from pathlib import Path

import numpy as np
import pytest

from retrieval_pipeline.errors import BuildError, StoreError, VectorError
from retrieval_pipeline.index import Build, build_index, join, open_current
from retrieval_pipeline.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace
from retrieval_pipeline.verify import verify
from retrieval_pipeline_tests.library import content, random_vectors, write_manifest, write_part

DIM = 16
SPACE = VectorSpace("test/model", "r1", DIM, "p")
COUNT = 300


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path)


@pytest.fixture
def vectors() -> Vectors:
    return random_vectors(COUNT, DIM)


@pytest.fixture
def built(store: Store, vectors: Vectors) -> Path:
    names = [f"n{number:03d}" for number in range(COUNT)]
    write_manifest(store, "a", {f"{name}.jpg": name for name in names})
    write_part(store, SPACE, "a", names, vectors)
    return build_index(store, SPACE, ["a"]).build


def ids(store: Store) -> list[str]:
    return open_current(store).items["content_id"].to_pylist()


def test_items_are_sorted_by_source_and_path_with_their_own_vectors(
    store: Store, built: Path, vectors: Vectors
) -> None:
    build = open_current(store)
    assert build.path == built
    assert ids(store) == [content(f"n{number:03d}") for number in range(COUNT)]
    np.testing.assert_array_equal(build.vectors(np.arange(COUNT)), vectors)
    np.testing.assert_allclose(build.scan(vectors[7]), vectors @ vectors[7], atol=1e-6)


def test_annoy_finds_what_a_scan_finds(store: Store, built: Path, vectors: Vectors) -> None:
    build = open_current(store)
    for vector in vectors[:20]:
        nearest = np.argsort(-build.scan(vector))[:10]
        assert set(nearest) <= set(build.candidates(vector))


def test_copies_are_one_item_that_lists_every_file(store: Store) -> None:
    write_manifest(store, "b", {"x.jpg": "dog", "y.jpg": "cat"})
    write_manifest(store, "a", {"1.jpg": "cat", "2.jpg": "cat"})
    write_part(store, SPACE, "b", ["dog", "cat"], random_vectors(2, DIM))
    build_index(store, SPACE, ["b", "a"])
    items = open_current(store).items.to_pylist()
    assert [item["content_id"] for item in items] == [content("cat"), content("dog")]
    assert [(at["source"], at["path"]) for at in items[0]["locations"]] == [
        ("a", "1.jpg"),
        ("a", "2.jpg"),
        ("b", "y.jpg"),
    ]


def test_what_is_not_embedded_or_no_longer_a_file_is_left_out(store: Store) -> None:
    write_manifest(store, "a", {"1.jpg": "cat", "2.jpg": "not embedded"})
    write_part(store, SPACE, "a", ["cat", "no longer there"], random_vectors(2, DIM))
    build_index(store, SPACE, ["a"])
    assert ids(store) == [content("cat")]


def test_a_source_that_left_the_settings_leaves_the_next_build(store: Store) -> None:
    for source in ("a", "b"):
        write_manifest(store, source, {"1.jpg": source})
        write_part(store, SPACE, source, [source], random_vectors(1, DIM))
    build_index(store, SPACE, ["a", "b"])
    assert ids(store) == [content("a"), content("b")]
    build_index(store, SPACE, ["b"])
    assert ids(store) == [content("b")]


def test_unchanged_input_publishes_nothing_and_changed_input_a_new_build(
    store: Store, built: Path
) -> None:
    again = build_index(store, SPACE, ["a"])
    assert not again.published
    assert again.build == built
    write_manifest(store, "b", {"copy.jpg": "n000"})
    assert build_index(store, SPACE, ["a", "b"]).published


def test_the_same_input_gives_the_same_files(store: Store, built: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    write_manifest(other, "a", {f"n{n:03d}.jpg": f"n{n:03d}" for n in range(COUNT)})
    order = np.random.default_rng(1).permutation(COUNT)
    names = [f"n{number:03d}" for number in order]
    write_part(other, SPACE, "a", names[:100], random_vectors(COUNT, DIM)[order[:100]])
    write_part(other, SPACE, "a", names[100:], random_vectors(COUNT, DIM)[order[100:]])
    twin = build_index(other, SPACE, ["a"]).build
    for name in ("items.arrow", "vectors.annoy"):
        assert (twin / name).read_bytes() == (built / name).read_bytes()


def test_nothing_to_index_is_said(store: Store) -> None:
    with pytest.raises(BuildError, match="nothing to index"):
        build_index(store, SPACE, ["a"])
    with pytest.raises(BuildError, match="run `retrieval index` first"):
        open_current(store)


@pytest.mark.parametrize("name", ["items.arrow", "vectors.annoy", "build.json"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "empty"])
def test_a_damaged_build_is_refused_before_it_is_loaded_and_is_replaced_by_the_next(
    store: Store, built: Path, name: str, damage: str
) -> None:
    file = built / name
    data = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        middle = len(data) // 2
        file.write_bytes(data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :])
    elif damage == "empty":
        file.write_bytes(b"")
    with pytest.raises(BuildError, match="run `retrieval index`"):
        Build.open(built)
    assert any(finding.problem for finding in verify(store))
    assert build_index(store, SPACE, ["a"]).published
    assert len(open_current(store)) == COUNT


def test_a_build_of_another_metric_is_refused(built: Path) -> None:
    file = built / "build.json"
    file.write_text(file.read_text().replace('"dot"', '"euclidean"'))
    with pytest.raises(BuildError, match="another version"):
        Build.open(built)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 10.0, 0.0])
def test_a_vector_that_is_not_of_unit_length_is_refused(store: Store, bad: float) -> None:
    vectors = random_vectors(3, DIM)
    vectors[1] *= bad
    write_manifest(store, "a", {"1.jpg": "x", "2.jpg": "y", "3.jpg": "z"})
    part = write_part(store, SPACE, "a", ["x", "y", "z"], vectors)
    with pytest.raises(VectorError, match="vector 1 has length"):
        build_index(store, SPACE, ["a"])
    assert store.current_build() is None
    assert [finding.file for finding in verify(store) if finding.problem] == [part]


def test_an_open_build_answers_while_a_new_one_is_published(
    store: Store, built: Path, vectors: Vectors
) -> None:
    build = open_current(store)
    before = build.scan(vectors[0])
    write_manifest(store, "b", {"copy.jpg": "n000"})
    build_index(store, SPACE, ["a", "b"])
    np.testing.assert_array_equal(build.scan(vectors[0]), before)
    assert open_current(store).path != built


def test_verify_is_content_with_a_sound_library_and_names_an_orphaned_pointer(
    store: Store, built: Path
) -> None:
    findings = list(verify(store))
    assert len(findings) == 4
    assert not any(finding.problem for finding in findings)
    store.current_file.write_text(f"{built.parent.name}/gone\n")
    assert [finding.file for finding in verify(store) if finding.problem] == [store.current_file]


def test_vectors_of_another_model_in_the_wrong_directory_are_found(store: Store) -> None:
    part = write_part(store, SPACE, "a", ["x"], random_vectors(1, DIM))
    other = VectorSpace("other/model", "r1", DIM, "p")
    target = store.next_part(other, "a")
    target.parent.mkdir(parents=True)
    part.rename(target)
    assert "another model" in str(next(verify(store)).problem)


def test_the_join_counts_an_image_embedded_twice_once(store: Store) -> None:
    write_manifest(store, "a", {"1.jpg": "x"})
    first, second = random_vectors(2, DIM)
    write_part(store, SPACE, "a", ["x"], first[None])
    write_part(store, SPACE, "b", ["x"], second[None])
    joined = join(store, SPACE, ["a"])
    assert joined.places.tolist() == [[0, 0]]


def test_a_damaged_part_is_named(store: Store, built: Path) -> None:
    part = store.parts(SPACE, "a")[0]
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"part-000001\.parquet: damaged"):
        build_index(store, SPACE, ["a"])
