import errno
import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index import search_structures
from retrieval_pipeline.index.autotune import (
    SCAN_ONLY_ITEMS,
    Calibration,
    Measurement,
    make_sample_queries,
    measure,
    remeasure,
)
from retrieval_pipeline.index.build import Build, open_current
from retrieval_pipeline.index.build_info import Check
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.index.knn import Plan
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace, normalise
from synthetic.tables import clustered, content, random_vectors, write_manifest, write_part

pytestmark = pytest.mark.slow

COUNT = SCAN_ONLY_ITEMS + 1_000
NEW = 50
TREES = Plan(kind="trees", candidates=300, search_k=20_000)
VECTORS = {
    160: clustered(COUNT + 1_000, 160),
    # Too short to be reduced.
    24: clustered(COUNT + 1_000, 24),
}


class Library:
    """Images n00000, n00001... whose vectors are the rows of VECTORS, and their index."""

    def __init__(self, store: Store, dim: int) -> None:
        self.store, self.space = store, VectorSpace("test/model", "r1", dim, "p")
        self.embed(range(COUNT))
        self.files = {f"{number:05d}.jpg": name(number) for number in range(COUNT)}
        self.first = self.index()

    def embed(self, numbers: range) -> None:
        names = [name(number) for number in numbers]
        write_part(self.store, self.space, "a", names, VECTORS[self.space.dim][list(numbers)])

    def index(
        self, recall: float = 0.9, accept: Callable[[Build], Sequence[Check]] | None = None
    ) -> Build:
        write_manifest(self.store, "a", self.files)
        report = build_index(
            self.store,
            self.space,
            ["a"],
            recall=recall,
            encode_texts=self.encode_words,
            accept=accept,
        )
        assert report.published
        return open_current(self.store)

    def encode_words(self, texts: Sequence[str]) -> Vectors:
        return random_vectors(len(texts), self.space.dim, seed=5)

    def add(self, numbers: range, folder: str) -> None:
        self.embed(numbers)
        self.files |= {f"{folder}/{number:05d}.jpg": name(number) for number in numbers}


def name(number: int) -> str:
    return f"n{number:05d}"


@pytest.fixture(params=VECTORS)
def library(tmp_path: Path, request: pytest.FixtureRequest) -> Library:
    return Library(Store(tmp_path), request.param)


@pytest.fixture
def wide(tmp_path: Path) -> Library:
    return Library(Store(tmp_path), 160)


def same_trees(one: Build, other: Build) -> bool:
    return (one.path / "vectors.annoy").read_bytes() == (other.path / "vectors.annoy").read_bytes()


def assert_each_item_finds_itself(build: Build, files: Mapping[str, str]) -> None:
    assert sorted(build.items["content_id"].to_pylist()) == sorted(map(content, files.values()))
    everything = build.vectors(np.arange(len(build)))
    for number in range(0, len(build), 7):
        assert number in build.vector_index.candidates(everything[number], TREES)


def test_a_few_new_images_reuse_the_trees_and_are_found(library: Library) -> None:
    # Before, among and after the others in the order of their paths.
    for start, folder in ((0, "0"), (NEW, "00500"), (2 * NEW, "z")):
        library.add(range(COUNT + start, COUNT + start + NEW), folder)
    build = library.index()
    assert same_trees(build, library.first)
    assert len(build) == COUNT + 3 * NEW
    assert build.info.trees["newcomers.annoy"].vectors == 3 * NEW
    assert_each_item_finds_itself(build, library.files)
    for number in range(COUNT, COUNT + 3 * NEW):
        vector = VECTORS[library.space.dim][number]
        (best, *_), (score, *_) = build.best(vector, 1)
        assert build.items["content_id"][best].as_py() == content(name(number))
        assert score == pytest.approx(1, abs=1e-5)


def test_files_that_move_cost_no_trees(library: Library) -> None:
    numbers = np.random.default_rng(1).permutation(COUNT)
    library.files = {f"moved/{place:05d}.jpg": name(number) for place, number in enumerate(numbers)}
    build = library.index()
    assert same_trees(build, library.first)
    assert build.info.trees.keys() == {"vectors.annoy"}
    assert_each_item_finds_itself(build, library.files)


def test_images_that_are_gone_are_not_found(library: Library) -> None:
    gone = [file for file, each in library.files.items() if each < name(100)]
    for file in gone:
        del library.files[file]
    build = library.index()
    assert same_trees(build, library.first)
    assert_each_item_finds_itself(build, library.files)
    for vector in VECTORS[library.space.dim][:100]:
        found = build.vector_index.candidates(vector, TREES)
        assert 0 <= found.min() <= found.max() < COUNT - 100


def test_trees_are_reused_again_and_again_until_too_much_is_new(wide: Library) -> None:
    before, rounds = wide.first, 0
    while len(wide.files) < COUNT + 600:
        start = len(wide.files)
        wide.add(range(start, start + 100), f"new{start}")
        del wide.files[f"{rounds:05d}.jpg"]
        wide.files[f"back{rounds}.jpg"] = name(rounds)
        build = wide.index()
        assert_each_item_finds_itself(build, wide.files)
        rounds += 1
        if not same_trees(build, before):
            break
        before = build
    assert rounds > 2
    assert build.info.trees.keys() == {"vectors.annoy"}


def test_the_recall_of_a_plan_that_is_reused_is_measured_anew(wide: Library) -> None:
    wide.add(range(COUNT, COUNT + 200), "new")
    build = wide.index()
    for target, plan in ((0.1, Plan(kind="trees", candidates=20, search_k=50)), (0.95, TREES)):
        previous = Calibration(
            target=target,
            plan=plan,
            recall_at_10=0.123,
            measured=(Measurement(plan=plan, recall_image=0.123, recall_text=None, p50_ms=1),),
        )
        now = remeasure(
            build.vector_index, build.vocabulary, previous, np.arange(COUNT, COUNT + 200)
        )
        queries = make_sample_queries(build.vector_index.matrices, build.vocabulary)
        assert now is not None
        assert now.recall_at_10 == measure(build.vector_index, queries, plan).recall
        assert [each.recall for each in now.measured] == [now.recall_at_10]
        too_much = previous.model_copy(update={"target": now.recall_at_10 + 0.001})
        assert remeasure(build.vector_index, build.vocabulary, too_much, np.arange(0)) is None


def test_structures_that_find_too_little_are_made_anew(
    wide: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search_structures, "remeasure", lambda *_: None)
    wide.add(range(COUNT, COUNT + NEW), "new")
    build = wide.index()
    assert build.info.calibration.recall_at_10 >= 0.9
    assert build.info.files.keys() == wide.first.info.files.keys()
    assert_each_item_finds_itself(build, wide.files)


def test_new_images_of_a_kind_that_the_basis_does_not_show_get_another_basis(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def projected(_: object, __: object, target: float, ___: object) -> Calibration:
        plan = Plan(kind="projected", candidates=300)
        return Calibration(target=target, plan=plan, recall_at_10=1.0)

    vectors = VECTORS[160].copy()
    vectors[:COUNT, 128:] = 0
    vectors[COUNT:, :128] = 0
    vectors[COUNT:, 128:] += 10 * np.abs(vectors).max()
    monkeypatch.setitem(VECTORS, 160, normalise(vectors))
    monkeypatch.setattr(search_structures, "choose_plan", projected)
    library = Library(Store(tmp_path), 160)
    library.add(range(COUNT, COUNT + NEW), "new")
    build = library.index()
    assert build.info.trees.keys() == {"vectors.annoy"}
    query = vectors[COUNT]
    assert set(np.argsort(-build.scan(query))[:10]) <= set(
        build.vector_index.candidates(query, build.info.calibration.plan)
    )


def test_an_index_that_is_refused_for_what_it_reused_is_made_anew(wide: Library) -> None:
    def as_grown(build: Build) -> list[Check]:
        return [Check(name="grown", passed=len(build.info.trees) == 1, found="two files of trees")]

    wide.add(range(COUNT, COUNT + NEW), "new")
    build = wide.index(accept=as_grown)
    assert build.info.trees.keys() == {"vectors.annoy"}
    assert len(wide.store.builds(wide.space)) == 2


def test_another_target_of_the_recall_makes_structures_anew(wide: Library) -> None:
    wide.add(range(COUNT, COUNT + NEW), "new")
    build = wide.index(recall=0.95)
    assert build.info.trees.keys() == {"vectors.annoy"}
    assert build.info.calibration.target == 0.95


@pytest.mark.parametrize("file", ["vectors.annoy", "basis.npy", "places.npy"])
def test_a_file_that_decayed_unnoticed_is_not_reused(wide: Library, file: str) -> None:
    decayed = wide.first.path / file
    before = decayed.stat()
    data = bytearray(decayed.read_bytes())
    data[-40] ^= 255
    with decayed.open("r+b") as handle:
        handle.write(data)
    os.utime(decayed, ns=(before.st_atime_ns, before.st_mtime_ns))
    wide.add(range(COUNT, COUNT + NEW), "new")
    build = wide.index()
    assert build.info.trees.keys() == {"vectors.annoy"}
    assert_each_item_finds_itself(Build.open(build.path, rehash=True), wide.files)


def test_a_file_that_cannot_be_read_is_not_reused(
    wide: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken_disk(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(shutil, "copyfile", broken_disk)
    wide.add(range(COUNT, COUNT + NEW), "new")
    assert wide.index().info.trees.keys() == {"vectors.annoy"}


@pytest.mark.parametrize(
    "damage",
    [
        lambda info: info["files"].pop("newcomers.annoy"),
        lambda info: info["files"].pop("places.npy"),
        lambda info: info["files"].pop("basis.npy"),
        lambda info: info["files"].pop("projected.f32"),
        lambda info: info["trees"].pop("newcomers.annoy"),
        lambda info: info["trees"].pop("vectors.annoy"),
        lambda info: info["trees"]["newcomers.annoy"].update(vectors=NEW - 1),
        lambda info: info["trees"].update({"items.arrow": info["trees"]["newcomers.annoy"]}),
        lambda info: info.update(tree_components=160),
    ],
)
def test_a_description_that_leaves_a_file_unchecked_is_refused_and_replaced(
    wide: Library, damage: Callable[[dict[str, Any]], None]
) -> None:
    wide.add(range(COUNT, COUNT + NEW), "new")
    build = wide.index()
    file = build.path / "build.json"
    info = json.loads(file.read_bytes())
    damage(info)
    file.write_text(json.dumps(info))
    with pytest.raises(BuildError, match="run `retrieval index`"):
        Build.open(build.path)
    wide.add(range(COUNT + NEW, COUNT + NEW + 1), "newer")
    assert_each_item_finds_itself(wide.index(), wide.files)


@pytest.mark.parametrize(
    "damage",
    [
        lambda numbers: numbers.astype(np.int64),
        lambda numbers: numbers[:-1],
        lambda numbers: numbers[None],
        lambda numbers: np.where(numbers == 0, COUNT + NEW, numbers).astype(np.int32),
    ],
    ids=["wide", "short", "nested", "beyond"],
)
def test_item_numbers_that_mean_nothing_are_refused(
    wide: Library, damage: Callable[[Vectors], Vectors]
) -> None:
    wide.add(range(COUNT, COUNT + NEW), "new")
    build = wide.index()
    file = build.path / "places.npy"
    np.save(file, damage(np.load(file)))
    with pytest.raises(BuildError, match=r"not (as build\.json says|the array that belongs there)"):
        search_structures.open_vector_index(
            build.path,
            build.vector_index.matrices,
            build.info.trees,
            build.info.tree_components,
            build.info.files,
        )
