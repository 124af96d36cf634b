import os
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from retrieval_pipeline.errors import BuildError, StoreError, VectorError
from retrieval_pipeline.index import hashed_files
from retrieval_pipeline.index.autotune import (
    SCAN_ONLY_ITEMS,
    choose_plan,
    make_sample_queries,
    measure,
    with_safety_margin,
)
from retrieval_pipeline.index.build import Build, open_current
from retrieval_pipeline.index.build_info import read_info
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.index.items import join
from retrieval_pipeline.index.knn import Plan
from retrieval_pipeline.index.retention import retire_builds
from retrieval_pipeline.index.vocabulary import words
from retrieval_pipeline.maintenance import verify as verification
from retrieval_pipeline.maintenance.verify import check_builds_here, verify
from retrieval_pipeline.storage.atomic import discard
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace, normalise
from retrieval_pipeline_tests.support.plans import search_by_trees
from synthetic.tables import clustered, content, random_vectors, write_manifest, write_part

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


def test_an_item_is_found_by_its_content_id(store: Store, built: Path) -> None:
    build = open_current(store)
    assert [build.number_of(each) for each in ids(store)] == list(range(COUNT))
    assert build.number_of(content("elsewhere")) is None
    assert build.number_of("") is None
    assert build.number_of("\N{SNOWMAN}") is None


def test_items_are_sorted_by_source_and_path_with_their_own_vectors(
    store: Store, built: Path, vectors: Vectors
) -> None:
    build = open_current(store)
    assert build.path == built
    assert ids(store) == [content(f"n{number:03d}") for number in range(COUNT)]
    stored = vectors.astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(build.vectors(np.arange(COUNT)), stored)
    np.testing.assert_allclose(build.scan(vectors[7]), stored @ vectors[7], atol=1e-6)


def test_vectors_are_stored_as_float32_where_that_is_asked_for(
    store: Store, built: Path, vectors: Vectors
) -> None:
    assert build_index(store, SPACE, ["a"], precision="float32").published
    np.testing.assert_array_equal(open_current(store).vectors(np.arange(COUNT)), vectors)


def test_annoy_finds_what_a_scan_finds(
    store: Store, built: Path, vectors: Vectors, tmp_path: Path
) -> None:
    build = open_current(store)
    plan = Plan(kind="trees", candidates=100, search_k=10_000)
    search_by_trees(build, plan, tmp_path)
    for vector, proposed in zip(
        vectors[:20], build.vector_index.candidates(vectors[:20], plan), strict=True
    ):
        nearest = np.argsort(-build.scan(vector))[:10]
        assert set(nearest) <= set(proposed)


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
    build_index(other, SPACE, ["a"])
    names = ("blocks/*.arrow", "segments/*/vectors.npy", "*/runs.npy")
    for name in (*names, "segments/*/keys.npy"):
        (one,) = built.parent.glob(name)
        (twin,) = other.current_file.parent.glob(f"{SPACE.key}/{name}")
        assert twin.read_bytes() == one.read_bytes()
        assert twin.parent.name == one.parent.name or name == "*/runs.npy"


def test_nothing_to_index_is_said(store: Store) -> None:
    with pytest.raises(BuildError, match="nothing to index"):
        build_index(store, SPACE, ["a"])
    with pytest.raises(BuildError, match="run `retrieval index` first"):
        open_current(store)


@pytest.mark.parametrize(
    "name",
    [
        "blocks/*.arrow",
        "segments/*/vectors.npy",
        "segments/*/keys.npy",
        "segments/*/segment.json",
        "*Z-*/runs.npy",
        "*Z-*/build.json",
    ],
)
@pytest.mark.parametrize("damage", ["cut", "flipped", "gone", "empty", "swapped"])
def test_a_damaged_build_is_refused_before_it_is_loaded_and_is_replaced_by_the_next(
    store: Store, built: Path, name: str, damage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (file,) = built.parent.glob(name)
    data = file.read_bytes()
    file.unlink()
    if damage == "cut":
        file.write_bytes(data[: len(data) // 2])
    elif damage == "flipped":
        # In a description, a brace: not every other character means anything.
        middle = data.rfind(b"}") if file.suffix == ".json" else len(data) // 2
        file.write_bytes(data[:middle] + bytes([data[middle] ^ 255]) + data[middle + 1 :])
    elif damage == "empty":
        file.write_bytes(b"")
    elif damage == "swapped":
        other = "blocks/*.arrow" if "segments" in name else "segments/*/vectors.npy"
        file.write_bytes(next(built.parent.glob(other)).read_bytes())
    with pytest.raises(BuildError, match="run `retrieval index`"):
        Build.open(built)
    # In this process: a new one takes seconds, and nothing here can crash it.
    monkeypatch.setattr(verification, "check_builds", check_builds_here)
    assert any(finding.problem for finding in verify(store))
    # A block that is written again makes the build sound that needs it.
    assert build_index(store, SPACE, ["a"]).published == ("blocks" not in name)
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
    # A manifest, a part, a segment, a block, a build and the pointer.
    assert len(findings) == 6
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
    assert joined.rows.tolist() == [0]


def test_a_damaged_part_is_named(store: Store, built: Path) -> None:
    part = store.parts(SPACE, "a")[0]
    part.write_bytes(part.read_bytes()[:100])
    with pytest.raises(StoreError, match=r"part-000001\.parquet: damaged"):
        build_index(store, SPACE, ["a"])


@pytest.fixture
def large(store: Store) -> Path:
    """A build of enough items to be calibrated, with words."""
    names = [f"n{number:04d}" for number in range(LARGE)]
    write_manifest(store, "a", {f"{name}.jpg": name for name in names})
    write_part(store, WIDE, "a", names, clustered(LARGE, WIDE.dim))
    return build_index(store, WIDE, ["a"], recall=0.95, encode_texts=encode_words).build


LARGE = SCAN_ONLY_ITEMS + 500
WIDE = VectorSpace("test/wide", "r1", 160, "p")


def encode_words(texts: Sequence[str]) -> Vectors:
    return random_vectors(len(texts), WIDE.dim, seed=5)


def test_a_small_build_is_scanned_and_its_recall_is_known_without_measuring(
    store: Store, built: Path
) -> None:
    calibration = read_info(built).calibration
    assert calibration.plan.kind == "scan"
    assert calibration.recall_at_10 == 1
    assert not calibration.measured


def test_every_plan_finds_the_share_of_the_true_neighbours_that_was_measured(
    store: Store, large: Path
) -> None:
    build = open_current(store)
    calibration = build.info.calibration
    assert {each.plan.kind for each in calibration.measured} == {"scan", "projected", "trees"}
    (part,) = build.vector_index.parts
    assert calibration.recall_at_10 >= 0.95
    queries = clustered(100, WIDE.dim, seed=9)
    truth = [set(np.argsort(-build.scan(query))[:10]) for query in queries]
    for each in calibration.measured:
        if each.plan.kind == "scan":
            continue
        found = [
            len(truth[number] & set(part.index.candidates(query, each.plan))) / 10
            for number, query in enumerate(queries)
        ]
        assert np.mean(found) == pytest.approx(each.recall_image, abs=0.1)


def test_the_chosen_plan_is_the_fastest_that_reached_the_target(store: Store, large: Path) -> None:
    calibration = read_info(large).calibration
    chosen = next(each for each in calibration.measured if each.plan == calibration.plan)
    assert chosen.recall >= calibration.target
    if chosen.plan.kind == "trees":
        assert chosen.recall >= with_safety_margin(calibration.target)
    assert chosen.p50_ms <= min(
        each.p50_ms
        for each in calibration.measured
        if each.plan.kind != "trees" and each.recall >= calibration.target
    )


def test_trees_that_miss_too_much_are_not_used(store: Store, large: Path) -> None:
    (part,) = open_current(store).vector_index.parts
    queries = make_sample_queries(part.index.matrices, None)
    few = Plan(kind="trees", candidates=10, search_k=10)
    assert measure(part.index, queries, few).recall < 0.9
    assert choose_plan(part.index, queries, 1.0, []).recall_at_10 == 1


def test_reduced_vectors_are_the_unit_vectors_along_the_components(
    store: Store, large: Path
) -> None:
    build = open_current(store)
    reduced = build.vector_index.parts[0].index.reduced
    assert reduced is not None
    full = build.vectors(np.arange(LARGE))
    np.testing.assert_allclose(reduced.basis.T @ reduced.basis, np.eye(128), atol=1e-5)
    np.testing.assert_allclose(reduced.vectors, normalise(full @ reduced.basis), atol=1e-5)


def test_the_words_of_a_build_serve_the_next_one_without_an_encoder(
    store: Store, large: Path
) -> None:
    write_manifest(store, "b", {"copy.jpg": "n0000"})
    report = build_index(store, WIDE, ["a", "b"])
    assert report.published
    build = open_current(store)
    assert build.vocabulary is not None
    np.testing.assert_array_equal(build.vocabulary, encode_words(words()))
    assert build.info.calibration.text_queries == 200


def test_without_an_encoder_a_build_says_that_it_was_not_tried_with_texts(store: Store) -> None:
    names = [f"n{number:04d}" for number in range(LARGE)]
    write_manifest(store, "a", {f"{name}.jpg": name for name in names})
    write_part(store, WIDE, "a", names, clustered(LARGE, WIDE.dim))
    build_index(store, WIDE, ["a"])
    build = open_current(store)
    assert build.vocabulary is None
    assert build.info.calibration.text_queries == 0
    assert all(each.recall_text is None for each in build.info.calibration.measured)


@pytest.mark.parametrize(
    "name",
    [
        "segments/*/vectors.annoy",
        "segments/*/projected.f32",
        "segments/*/basis.npy",
        "blocks/*.npy",
    ],
)
def test_damage_in_any_file_of_a_build_is_noticed(store: Store, large: Path, name: str) -> None:
    (file,) = large.parent.glob(name)
    data = bytearray(file.read_bytes())
    data[-1] ^= 255
    file.unlink()
    file.write_bytes(data)
    with pytest.raises(BuildError, match=file.name):
        open_current(store)


def test_files_that_were_hashed_are_not_hashed_again_until_they_change(
    store: Store, built: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hashing(path: Path) -> str:
        raise AssertionError(f"{path} was hashed")

    monkeypatch.setattr(hashed_files, "content_id_of_file", hashing)
    open_current(store)
    (vectors,) = built.parent.glob("segments/*/vectors.npy")
    os.utime(vectors)
    with pytest.raises(AssertionError, match=r"vectors\.npy was hashed"):
        open_current(store)
    monkeypatch.undo()
    open_current(store)
    monkeypatch.setattr(hashed_files, "content_id_of_file", hashing)
    open_current(store)
    with pytest.raises(AssertionError, match="was hashed"):
        Build.open(built, rehash=True)


def publish_versions(store: Store, count: int) -> list[Path]:
    """Publish builds, each with one file more."""
    builds = []
    for number in range(count):
        write_manifest(store, "a", {f"{each}.jpg": f"c{each}" for each in range(number + 1)})
        write_part(store, SPACE, "a", [f"c{number}"], random_vectors(1, DIM, seed=number))
        builds.append(build_index(store, SPACE, ["a"]).build)
    return builds


def test_old_builds_are_removed_except_the_last_one_and_those_in_use(store: Store) -> None:
    builds = publish_versions(store, 5)
    assert store.all_builds() == builds
    open_build = Build.open(builds[1])
    assert retire_builds(store, timedelta(0)) == [builds[0], builds[2]]
    assert store.all_builds() == [builds[1], builds[3], builds[4]]
    assert len(open_build.scan(random_vectors(1, DIM)[0])) == 2
    del open_build
    assert retire_builds(store, timedelta(0)) == [builds[1]]
    assert not retire_builds(store, timedelta(0))


def test_a_build_that_was_just_replaced_is_left_alone(store: Store) -> None:
    builds = publish_versions(store, 4)
    assert not retire_builds(store, timedelta(minutes=1))
    assert store.all_builds() == builds


def test_a_build_that_goes_while_it_is_opened_makes_way_for_its_successor(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = publish_versions(store, 2)
    store.publish(builds[0])
    read = Store.current_build

    def read_then_replace(self: Store) -> Path | None:
        path = read(self)
        if path == builds[0]:
            store.publish(builds[1])
            discard(builds[0])
        return path

    monkeypatch.setattr(Store, "current_build", read_then_replace)
    assert open_current(store).path == builds[1]
