"""Builds one after the other: what they share, what they write, and that all find the same."""

import contextlib
import json
import resource
from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval_pipeline.errors import BuildError, StoreError
from retrieval_pipeline.index import autotune, blocks, search_structures, segment, tiers
from retrieval_pipeline.index.build import Build, open_current
from retrieval_pipeline.index.build_info import Check
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.index.knn import Plan
from retrieval_pipeline.index.retention import orphans, retire_builds
from retrieval_pipeline.index.runs import RowMap, are_sound, to_runs
from retrieval_pipeline.index.tiers import to_merge
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace, normalise
from retrieval_pipeline_tests.support.plans import blocks_of, segments_of
from synthetic.tables import clustered, random_vectors, write_manifest, write_part

pytestmark = pytest.mark.slow

COUNT, MORE = 400, 400
SPACE = VectorSpace("test/model", "r1", 160, "p")
VECTORS = clustered(COUNT + MORE, SPACE.dim)


@contextlib.contextmanager
def full_disk(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond so many bytes, as on a disk that is full."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


class Library:
    """Images n0000, n0001... whose vectors are the rows of VECTORS, and their index."""

    def __init__(self, root: Path) -> None:
        self.store = Store(root)
        write_part(self.store, SPACE, "a", list(map(name, range(len(VECTORS)))), VECTORS)
        self.files = {f"{number:04d}.jpg": name(number) for number in range(COUNT)}

    def index(self, **options: Any) -> Build:
        write_manifest(self.store, "a", self.files)
        options = {"recall": 0.9, "encode_texts": encode_words} | options
        assert build_index(self.store, SPACE, ["a"], **options).published
        return open_current(self.store)

    def add(self, start: int, count: int, folder: str) -> None:
        numbers = range(COUNT + start, COUNT + start + count)
        self.files |= {f"{folder}/{number:04d}.jpg": name(number) for number in numbers}


def name(number: int) -> str:
    return f"n{number:04d}"


def encode_words(texts: Sequence[str]) -> Vectors:
    return random_vectors(len(texts), SPACE.dim, seed=5)


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """A library in which a segment of 200 images is large."""
    set_limits(monkeypatch)
    return Library(tmp_path)


def set_limits(patch: pytest.MonkeyPatch) -> None:
    for module in (autotune, search_structures, tiers):
        patch.setattr(module, "SCAN_ONLY_ITEMS", 200)
    for module in (search_structures, segment):
        patch.setattr(module, "FEW_ROWS", 50)


def rows_of_segments(build: Build) -> list[tuple[int, int]]:
    return [(entry.rows, entry.alive) for entry in build.info.segments]


def assert_finds_all(build: Build, library: Library) -> None:
    """Check that a build has the files, each with its vector, and answers as one matrix would."""
    items = build.items.to_pylist()
    paths = [each["path"] for item in items for each in item["locations"]]
    assert sorted(paths) == sorted(library.files)
    first = [item["locations"][0]["path"] for item in items]
    assert first == sorted(first)
    numbers = [int(library.files[path][1:]) for path in first]
    stored = VECTORS[numbers].astype(np.float16).astype(np.float32)
    np.testing.assert_array_equal(build.vectors(np.arange(len(build))), stored)
    queries = np.concatenate([VECTORS[::97], encode_words(["a"] * 4)])
    scores = build.scan(queries)
    np.testing.assert_allclose(scores, stored @ queries.T, atol=1e-5)
    for column, query in enumerate(queries):
        expected = np.argsort(-scores[:, column], kind="stable")
        everything, found = build.best(query, len(build))
        assert len(set(everything.tolist())) == len(build)
        assert build.best(query, 5)[0].tolist() == everything[:5].tolist()
        np.testing.assert_allclose(found[:10], scores[expected[:10], column], atol=1e-5)


def test_new_pictures_make_a_segment_of_their_own_and_are_found_at_once(library: Library) -> None:
    first = library.index()
    files = {path: path.stat().st_mtime_ns for path in library.store.home.rglob("*.npy")}
    # Before, among and after the others in the order of their paths.
    for start, folder in ((0, "0000"), (20, "0200"), (40, "z")):
        library.add(start, 20, folder)
    build = library.index()
    assert rows_of_segments(build) == [(COUNT, COUNT), (60, 60)]
    assert build.info.segments[0].name == first.info.segments[0].name
    assert {path: path.stat().st_mtime_ns for path in files} == files
    assert_finds_all(build, library)


def test_a_small_segment_takes_the_basis_of_a_large_one_and_both_are_searched_as_one(
    library: Library,
) -> None:
    library.index()
    library.add(0, 100, "z")
    index = library.index().vector_index
    large, small = index.parts
    assert large.index.reduced is not None and small.index.reduced is not None
    np.testing.assert_array_equal(small.index.reduced.basis, large.index.reduced.basis)
    assert (small.index.trees, small.plan.kind) == (None, "projected")
    for part in index.parts:
        part.plan = Plan(kind="projected", candidates=60)
    for query in VECTORS[:COUNT:40]:
        rows, _ = index.best(query, 60)
        exact = np.argsort(-index.scan(query), kind="stable")
        assert len({*rows[:10].tolist()} & {*exact[:10].tolist()}) >= 9
        # The sixty best of both, not of each: the next are found by a scan.
        reduced = np.concatenate(
            [part.index.reduced.vectors for part in index.parts if part.index.reduced is not None]
        )
        about = reduced @ large.index.reduced.reduce(query)
        assert {*rows.tolist()} == {*np.argsort(-about)[:60].tolist()}
        assert rows[:5].tolist() == index.best(query, 5)[0].tolist()


def test_pictures_that_another_basis_loses_are_scanned(library: Library) -> None:
    (large,) = library.index().vector_index.parts
    assert large.index.reduced is not None
    basis = large.index.reduced.basis
    vectors = random_vectors(100, SPACE.dim)
    vectors = normalise(vectors - vectors @ basis @ basis.T)
    names = [f"other{number}" for number in range(100)]
    write_part(library.store, SPACE, "a", names, vectors)
    library.files |= {f"z/{name}.jpg": name for name in names}
    _, small = library.index().vector_index.parts
    assert small.plan.kind == "scan" and small.index.reduced is None


def test_moved_and_renamed_files_write_no_vectors(library: Library) -> None:
    first = library.index()
    order = np.random.default_rng(1).permutation(COUNT)
    library.files = {f"moved/{at:04d}.jpg": name(number) for at, number in enumerate(order)}
    build = library.index()
    assert segments_of(build) == segments_of(first)
    assert_finds_all(build, library)


def test_a_block_is_named_by_its_own_items_alone(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    for limit in ("LEAST_ITEMS", "MOST_ITEMS"):
        monkeypatch.setattr(blocks, limit, 100)
    first, *before = library.index().info.blocks
    library.files["0100a.jpg"] = library.files.pop("0100.jpg")
    again, *after = library.index().info.blocks
    assert first == again
    assert before != after


def test_what_has_gone_is_not_found_and_makes_way_when_it_is_a_quarter(library: Library) -> None:
    first = library.index()
    for number in range(100):
        del library.files[f"{number:04d}.jpg"]
    build = library.index()
    assert rows_of_segments(build) == [(COUNT, COUNT - 100)]
    assert_finds_all(build, library)
    scan = Plan(kind="projected", candidates=COUNT)
    (proposed,) = build.vector_index.candidates(VECTORS[:1], scan)
    assert proposed.tolist() == list(range(COUNT - 100))
    # The query's own picture has gone, and those that were nearest to it; as many others are found.
    trees = Plan(kind="trees", candidates=50, search_k=500)
    (proposed,) = build.vector_index.candidates(VECTORS[:1], trees)
    assert len(proposed) >= 50
    assert 0 <= proposed.min() <= proposed.max() < COUNT - 100
    del library.files["0100.jpg"]
    build = library.index()
    assert rows_of_segments(build) == [(COUNT - 101, COUNT - 101)]
    assert segments_of(build) != segments_of(first)
    assert_finds_all(build, library)
    # One that comes back is as new as any other.
    library.files["0050.jpg"] = name(50)
    build = library.index()
    assert rows_of_segments(build) == [(COUNT - 101, COUNT - 101), (1, 1)]
    assert_finds_all(build, library)


def test_segments_merge_by_tiers_and_a_row_is_seldom_written_again(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiers, "FACTOR", 3)
    library.index()
    most, written = 0, 0
    for step in range(14):
        library.add(20 * step, 20, f"new{step:02d}")
        build = library.index()
        most = max(most, len(build.info.segments))
        written += sum(each.rows for each in build.info.segments if each.is_new)
    assert most <= 4
    # Each of 280 rows once when it is new, and about twice in merges.
    assert written < 280 * 4 + COUNT
    assert_finds_all(build, library)


def test_a_segment_has_a_largest_size(library: Library, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiers, "LARGEST_ROWS", 150)
    build = library.index()
    assert [alive for _, alive in rows_of_segments(build)] == [134, 133, 133]
    assert_finds_all(build, library)


@pytest.mark.parametrize(
    ("rows", "alive", "new", "expected"),
    [
        ([], [], 10, set()),
        ([5_000] + [100] * 6, [5_000] + [100] * 6, 10, set()),
        ([5_000] + [100] * 7, [5_000] + [100] * 7, 10, set(range(1, 8))),
        # Seven of the next tier, and what is merged makes the eighth.
        ([9_000] * 7 + [1_900] * 7, [9_000] * 7 + [1_900] * 7, 1_900, set(range(14))),
        ([100] * 7, [100] * 7, 0, set()),
        ([100] * 8, [100] * 8, 0, set(range(8))),
        ([100, 8_000], [75, 5_999], 0, {1}),
        ([600_000] * 20, [600_000] * 20, 10, set()),
        ([1_048_576], [700_000], 0, {0}),
    ],
)
def test_which_segments_are_merged(
    rows: list[int], alive: list[int], new: int, expected: set[int]
) -> None:
    assert to_merge(rows, alive, new, largest=1 << 20) == expected


def test_equal_vectors_come_in_the_order_of_their_files_whatever_segment_they_are_in(
    tmp_path: Path,
) -> None:
    store, vector = Store(tmp_path), VECTORS[:1]
    others = [name(number) for number in range(300)]
    same = [f"same{number:02d}" for number in range(40)]
    write_part(store, SPACE, "a", others + same, np.concatenate([VECTORS[:300], *[vector] * 40]))
    files = {f"{each}.jpg": each for each in others}
    order = np.random.default_rng(2).permutation(40)
    for some in np.array_split(order, 5):
        files |= {f"{same[number]}.jpg": same[number] for number in some}
        write_manifest(store, "a", files)
        build_index(store, SPACE, ["a"])
    build = open_current(store)
    assert len(build.info.segments) == 5
    for count in (1, 7, 39, 60):
        numbers, scores = build.best(vector[0], count)
        assert numbers.tolist()[:41] == [0, *range(300, 340)][:count]
        assert len(set(scores[:41].tolist())) == 1


@pytest.mark.parametrize("share", [0.0, 0.5, 0.9, 1.0])
def test_runs_tell_where_every_row_is(share: float) -> None:
    rng = np.random.default_rng(0)
    for shuffled in (False, True):
        sizes = [30, 0, 7, 50]
        everything = np.full(sum(sizes), -1, np.int32)
        alive = np.flatnonzero(rng.random(len(everything)) < share)
        everything[alive] = rng.permutation(len(alive)) if shuffled else np.arange(len(alive))
        segments = np.split(everything, np.cumsum(sizes)[:-1])
        runs = to_runs(segments)
        assert are_sound(runs, sizes, len(alive))
        row_map = RowMap(runs, tuple(sizes), len(alive))
        np.testing.assert_array_equal(np.concatenate(row_map.rows_of_build), everything)
        np.testing.assert_array_equal(everything[row_map.places], np.arange(len(alive)))
        assert row_map.is_identity == np.array_equal(everything, np.arange(len(everything)))


def test_a_killed_run_s_segments_are_used_by_the_next(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    library.index()
    library.add(0, 20, "new")

    def refuse(_: Build) -> Sequence[Check]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        library.index(accept=refuse)
    before = {path: path.stat().st_ino for path in library.store.all_segments()}
    assert len(before) == 2
    build = library.index()
    assert {path: path.stat().st_ino for path in segments_of(build)} == before
    assert_finds_all(build, library)


def test_many_tiny_segments_answer_and_the_next_run_makes_one_of_them(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(tiers, "FACTOR", 100)
        for number in range(9):
            library.add(number, 1, "0200")
            build = library.index()
    assert len(build.info.segments) == 9
    assert_finds_all(build, library)
    library.add(9, 1, "0200")
    build = library.index()
    assert rows_of_segments(build) == [(COUNT + 1, COUNT + 1), (9, 9)]
    assert_finds_all(build, library)


def test_a_full_disk_in_a_merge_leaves_the_index_before_and_the_next_run_merges(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "LEAST_ITEMS", 50)
    monkeypatch.setattr(blocks, "MOST_ITEMS", 50)
    monkeypatch.setattr(tiers, "FACTOR", 3)
    library.index()
    for number in range(2):
        library.add(100 * number, 100, "0200")
        before = library.index()
    library.add(200, 100, "0200")
    # Blocks are smaller, the vectors of the merged segment larger.
    with full_disk(1 << 16), pytest.raises(StoreError, match="segments"):
        library.index()
    assert not library.store.leftovers()
    again = open_current(library.store)
    assert again.path == before.path
    query = encode_words(["a"])[0]
    np.testing.assert_array_equal(again.best(query, 50)[0], before.best(query, 50)[0])
    build = library.index()
    assert rows_of_segments(build) == [(COUNT, COUNT), (300, 300)]
    assert_finds_all(build, library)


def test_vectors_of_half_the_size_change_no_order_beyond_a_ten_thousandth(tmp_path: Path) -> None:
    store, space = Store(tmp_path), VectorSpace("test/model", "r1", 768, "p")
    names = [name(number) for number in range(300)]
    vectors = random_vectors(300, space.dim)
    write_part(store, space, "a", names, vectors)
    write_manifest(store, "a", {f"{each}.jpg": each for each in names})
    build_index(store, space, ["a"], precision="float32")
    full = open_current(store)
    build_index(store, space, ["a"])
    half = open_current(store)
    exact, scores = full.scan(vectors), half.scan(vectors)
    assert 0 < np.abs(exact - scores).max() < 1e-4
    order = np.argsort(-scores, axis=0, kind="stable")
    assert np.diff(np.take_along_axis(exact, order, axis=0), axis=0).max() < 1e-4


def test_an_index_that_is_refused_for_what_it_shares_is_made_anew(library: Library) -> None:
    library.index()
    library.add(0, 20, "new")

    def as_one(build: Build) -> list[Check]:
        passed = len(build.info.segments) == 1
        return [Check(name="one", passed=passed, found="two segments")]

    build = library.index(accept=as_one)
    assert rows_of_segments(build) == [(COUNT + 20, COUNT + 20)]
    assert_finds_all(build, library)


@pytest.mark.parametrize("options", [{"recall": 0.95}, {"precision": "float32"}])
def test_other_settings_make_other_segments(library: Library, options: dict[str, Any]) -> None:
    first = library.index()
    build = library.index(**options)
    assert segments_of(build) != segments_of(first)
    assert build.info.calibration.target == options.get("recall", 0.9)
    assert len(build.info.segments) == 1


@pytest.mark.parametrize("damage", ["flipped", "gone"])
@pytest.mark.parametrize("file", ["keys.npy", "vectors.npy", "vectors.annoy", "segment.json"])
def test_a_damaged_segment_is_made_again_and_the_others_are_kept(
    library: Library, file: str, damage: str
) -> None:
    library.index()
    library.add(0, 20, "new")
    broken, sound = segments_of(library.index())
    target = broken / file
    if damage == "gone":
        target.unlink()
    else:
        data = bytearray(target.read_bytes())
        data[data.rfind(b"}") if file == "segment.json" else -40] ^= 255
        target.write_bytes(data)
    with pytest.raises(BuildError, match=broken.name):
        open_current(library.store)
    before = sound.stat().st_ino
    library.add(20, 1, "newer")
    build = library.index()
    assert sound.stat().st_ino == before
    assert sound in segments_of(build)
    assert_finds_all(build, library)


def test_segments_and_blocks_go_with_the_last_build_that_needs_them(library: Library) -> None:
    builds = []
    for step in range(3):
        library.files = {f"{step}/{path[-8:]}": each for path, each in library.files.items()}
        library.add(40 * step, 40, "new")
        builds.append(library.index())
    first, second, third = builds
    del builds
    # A segment of nobody, of a run that was killed, and a folder that is not the program's.
    (library.store.segments(SPACE) / ("0" * 32)).mkdir()
    (library.store.segments(SPACE) / "mine").mkdir()
    (library.store.blocks(SPACE) / f"{'0' * 32}.arrow").write_bytes(b"x")
    needed = {*segments_of(second), *segments_of(third), *blocks_of(second), *blocks_of(third)}
    gone = {*segments_of(first), *blocks_of(first)} - needed
    assert gone
    assert retire_builds(library.store, timedelta(0)) == []
    path = first.path
    del first
    assert retire_builds(library.store, timedelta(0)) == [path]
    assert not any(each.exists() for each in gone)
    assert {*library.store.all_segments(), *library.store.all_blocks()} == needed
    assert (library.store.segments(SPACE) / "mine").exists()
    assert_finds_all(open_current(library.store), library)


def test_nothing_is_removed_while_a_build_cannot_be_read(library: Library) -> None:
    build = library.index()
    later = library.store.new_build(SPACE, "20300101T000000Z-00000000")
    later.mkdir()
    (later / "build.json").write_text(json.dumps({"format": 99, "metric": "dot"}))
    builds = library.store.all_builds()
    assert orphans(library.store, [later]) == []
    assert orphans(library.store, builds) == []
    assert set(orphans(library.store, [])) == {*segments_of(build), *blocks_of(build)}


Tamper = Callable[[Path, dict[str, Any]], None]


def change_runs(change: Callable[[np.ndarray], np.ndarray]) -> Tamper:
    def tamper(build: Path, info: dict[str, Any]) -> None:
        file = build / "runs.npy"
        np.save(file, change(np.load(file)))
        facts = {"size": file.stat().st_size, "blake3": content_id_of_file(file)}
        info["files"]["runs.npy"] = facts

    return tamper


def set_in_segment(**values: Any) -> Tamper:
    def tamper(build: Path, info: dict[str, Any]) -> None:
        file = build.parent / "segments" / info["segments"][0]["name"] / "segment.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | values))

    return tamper


CASES: dict[str, Tamper] = {
    "a segment is missing": lambda _, info: info["segments"][0].update(name="0" * 32),
    "a segment is listed twice": lambda _, info: info["segments"].append(info["segments"][0]),
    "no segment is listed": lambda _, info: info.update(segments=[]),
    "a segment of other rows": lambda _, info: info["segments"][0].update(rows=7),
    "a segment of another model": set_in_segment(space="other@00000000"),
    "a segment of a later version": set_in_segment(format=99),
    "a segment of other components": set_in_segment(dim=80),
    "a segment without its rows' names": set_in_segment(files={}),
    "a plan without trees": set_in_segment(trees=None),
    "a later version": lambda _, info: info.update(format=99),
    "a block is missing": lambda _, info: info["blocks"].pop(),
    "a block of fewer items": lambda _, info: info["blocks"][0].update(items=3),
    "a table of another kind": lambda _, info: info["blocks"][0]["tables"].update(
        facts=info["blocks"][0]["tables"]["items"]
    ),
    "a table that nobody knows": lambda _, info: info["blocks"][0]["tables"].update(
        more=info["blocks"][0]["tables"]["items"]
    ),
    "runs are not listed": lambda _, info: info["files"].pop("runs.npy"),
    "rows that no segment has": change_runs(lambda runs: runs + np.int32([0, 1, 0, 0])),
    "rows that the build lacks": change_runs(lambda runs: runs + np.int32([0, 0, 1, 0])),
    "a segment that is none": change_runs(lambda runs: runs + np.int32([5, 0, 0, 0])),
    "negative rows": change_runs(lambda runs: runs - np.int32([0, 1, 0, 0])),
    "a row in two places": change_runs(lambda runs: np.concatenate([runs[:1], runs])),
    "too few rows": change_runs(lambda runs: runs[:-1]),
    "runs of nothing": change_runs(lambda runs: runs * np.int32([1, 1, 1, 0])),
    "wide numbers": change_runs(lambda runs: runs.astype(np.int64)),
    "other columns": change_runs(lambda runs: runs[:, :3]),
}


@pytest.fixture(scope="module")
def tampered(tmp_path_factory: pytest.TempPathFactory) -> Library:
    with pytest.MonkeyPatch.context() as patch:
        set_limits(patch)
        library = Library(tmp_path_factory.mktemp("tampered"))
        library.index()
        library.add(0, 20, "0200")
        library.index()
    return library


@pytest.mark.parametrize("tamper", CASES.values(), ids=CASES.keys())
def test_a_list_that_makes_no_sense_is_refused_in_one_line(
    tampered: Library, tamper: Tamper
) -> None:
    store = tampered.store
    build = store.current_build()
    assert build is not None
    files = [*build.iterdir(), *build.parent.glob("segments/*/segment.json")]
    sound = {file: file.read_bytes() for file in files}
    info = json.loads((build / "build.json").read_text())
    tamper(build, info)
    (build / "build.json").write_text(json.dumps(info))
    try:
        for _ in range(2):
            with pytest.raises(BuildError, match="run `retrieval index`") as caught:
                open_current(store)
            assert "\n" not in str(caught.value)
    finally:
        for file, data in sound.items():
            file.write_bytes(data)
    assert len(open_current(store)) == COUNT + 20
