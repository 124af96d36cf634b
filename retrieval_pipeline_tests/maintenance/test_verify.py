"""What `verify` finds and what `--repair` makes of it; every damage is real."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.facts.model import PictureFacts
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.ingest.manifest import FileRow
from retrieval_pipeline.ingest.sidecars import save_sidecar_rows
from retrieval_pipeline.maintenance import repair as repair_module
from retrieval_pipeline.maintenance import verify as verification
from retrieval_pipeline.maintenance.repair import repair
from retrieval_pipeline.maintenance.verify import (
    Finding,
    check_builds,
    check_builds_here,
    verify,
)
from retrieval_pipeline.pipeline.publish import update_map
from retrieval_pipeline.storage.schemas import FACTS, MANIFEST, QUARANTINE, embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, read_table, write_table
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline.views import further_views
from retrieval_pipeline_tests.support.encoders import VocabularyEncoder
from retrieval_pipeline_tests.support.library import settings_of
from retrieval_pipeline_tests.support.plans import segments_of
from synthetic.tables import (
    content,
    random_vectors,
    write_facts,
    write_manifest,
    write_part,
    write_view_part,
)

pytestmark = pytest.mark.slow

NAMES = "abcdefgh"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library of two sources with everything that can be damaged."""
    root = tmp_path_factory.mktemp("model")
    pictures = root / "pictures"
    pictures.mkdir()
    for name in NAMES:
        Image.new("RGB", (40, 30), (ord(name), 0, 0)).save(pictures / f"{name}.jpg")
    (root / "other").mkdir()
    settings = settings_of(root / "home", pictures=pictures, other=root / "other")
    store, space = Store(settings.home), describe_encoder(settings).space
    write_manifest(store, "pictures", {f"{name}.jpg": name for name in NAMES})
    write_manifest(store, "other", {"a copy.jpg": "a", "z.jpg": "z"})
    write_facts(store, "pictures", {"a.jpg": PictureFacts(latitude=1.0, longitude=2.0)})
    save_sidecar_rows(store, "pictures", [FileRow("a.jpg.xmp", 1, 1)])
    write_part(store, space, "pictures", NAMES[:5], random_vectors(5, space.dim, 1))
    build_index(store, space, settings.source_names)
    write_part(store, space, "pictures", NAMES[5:], random_vectors(3, space.dim, 2), (640, 160))
    views = [(name, view) for name in "fg" for view in further_views(640, 160, "whole", True)]
    write_view_part(store, space, "pictures", views, random_vectors(len(views), space.dim, 4))
    write_part(store, space, "other", "z", random_vectors(1, space.dim, 3))
    row = {"content_id": content("q"), "path": "q.jpg", "reason": "truncated", "detail": ""}
    row |= {"attempts": 1, "last_tried": 0, "tried_with": "x"}
    write_table(
        store.quarantine(space, "pictures"), pa.Table.from_pylist([row], schema=QUARANTINE), space
    )
    with store.locked():
        report = build_index(store, space, settings.source_names)
        update_map(settings, report.build)
    return root


@pytest.fixture
def settings(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Settings]:
    shutil.copytree(model, tmp_path / "library")
    root = tmp_path / "library"
    # Nothing else is to be encoded.
    encoder = VocabularyEncoder(384)
    monkeypatch.setattr(repair_module, "load_settings_encoder", lambda *_: encoder)
    return settings_of(root / "home", pictures=root / "pictures", other=root / "other")


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store(settings.home)


@pytest.fixture
def space(settings: Settings) -> VectorSpace:
    return describe_encoder(settings).space


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have `verify` read builds in this process: another takes seconds to start."""
    monkeypatch.setattr(verification, "check_builds", check_builds_here)


def problems(store: Store) -> dict[Path, str]:
    return {each.file: each.problem for each in verify(store) if each.problem}


def items(store: Store) -> list[tuple[str, object, bytes]]:
    build = open_current(store)
    return [
        (row["content_id"], row["locations"], vector.tobytes())
        for row, vector in zip(
            build.items.to_pylist(), build.vectors(np.arange(len(build))), strict=True
        )
    ]


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def current(store: Store) -> Path:
    build = store.current_build()
    assert build is not None
    return build


def table_of(store: Store, name: str) -> Path:
    (block,) = open_current(store).info.blocks
    return current(store).parent / "blocks" / block.tables[name].name


# Whatever is damaged, in whatever way: from the path to a file in the store.
FILES: dict[str, Callable[[Store, VectorSpace], Path]] = {
    "manifest": lambda store, _: store.manifest("pictures"),
    "sidecars": lambda store, _: store.sidecars("pictures"),
    "facts": lambda store, _: store.facts("pictures"),
    "part": lambda store, space: store.parts(space, "pictures")[1],
    "views": lambda store, space: store.view_parts(space, "pictures")[0],
    "views of items": lambda store, _: table_of(store, "views"),
    "quarantine": lambda store, space: store.quarantine(space, "pictures"),
    "items": lambda store, _: table_of(store, "items"),
    "facts of items": lambda store, _: table_of(store, "facts"),
    "vectors": lambda store, _: segments_of(open_current(store))[-1] / "vectors.npy",
    "segment.json": lambda store, _: segments_of(open_current(store))[-1] / "segment.json",
    "runs": lambda store, _: current(store) / "runs.npy",
    "build.json": lambda store, _: current(store) / "build.json",
    "CURRENT": lambda store, _: store.current_file,
    "map.json": lambda store, _: store.maps()[-1] / "map.json",
    "coordinates": lambda store, _: store.maps()[-1] / "coordinates.parquet",
}


@pytest.mark.parametrize("name", FILES)
def test_whatever_file_is_damaged_is_found_and_rebuilt(
    settings: Settings, store: Store, space: VectorSpace, name: str
) -> None:
    before, manifest = items(store), read_manifest(store, "pictures")
    views = open_current(store).views.to_pylist()
    assert len(views) == 12
    path = FILES[name](store, space)
    cut(path)
    found = problems(store)
    assert {path, path.parent} & found.keys()
    # A build is damaged with what it needs.
    assert {each for each in found if each not in (path, path.parent)} <= {current(store)}
    assert repair(settings)
    assert problems(store) == {}
    assert items(store) == before
    assert open_current(store).views.to_pylist() == views
    assert read_manifest(store, "pictures").equals(manifest)
    # Without the facts, which the next `retrieval index` reads again, the index is another one.
    assert len(store.maps()) == (2 if name == "facts" else 1)


@pytest.mark.parametrize("name", ["items", "vectors", "runs", "build.json"])
def test_a_flipped_byte_in_a_build_is_found(store: Store, space: VectorSpace, name: str) -> None:
    flip(FILES[name](store, space))
    assert list(problems(store))[-1] == current(store)


def test_everything_at_once_but_one_old_build_is_repaired_as_far_as_it_goes(
    settings: Settings, store: Store, space: VectorSpace
) -> None:
    for source in settings.source_names:
        cut(store.manifest(source))
    for part in store.parts(space):
        cut(part)
    flip(table_of(store, "items"))
    cut(store.current_file)
    repair(settings)
    assert problems(store) == {}
    assert {content_id for content_id, _, _ in items(store)} == set(map(content, NAMES[:5]))


def test_nothing_that_was_damaged_is_deleted(
    settings: Settings, store: Store, space: VectorSpace
) -> None:
    part = store.parts(space, "pictures")[1]
    cut(part)
    damaged = part.read_bytes()
    repair(settings)
    kept = store.home / "damaged" / part.relative_to(store.home)
    assert kept.read_bytes() == damaged


def test_of_a_part_with_a_bad_vector_the_other_rows_stay(
    settings: Settings, store: Store, space: VectorSpace
) -> None:
    part = store.parts(space, "pictures")[1]
    vectors = random_vectors(3, space.dim, 2)
    vectors[1] = np.nan
    part.unlink()
    assert write_part(store, space, "pictures", NAMES[5:], vectors) == part
    for build in store.all_builds():
        shutil.rmtree(build)
    assert "not 1: refused" in problems(store)[part]
    repair(settings)
    assert problems(store) == {}
    expected = {content(name) for name in NAMES if name != NAMES[6]} | {content("z")}
    assert {content_id for content_id, _, _ in items(store)} == expected


def test_an_image_that_is_embedded_twice_is_found_and_kept_once(
    settings: Settings, store: Store, space: VectorSpace
) -> None:
    before = items(store)
    write_part(store, space, "other", "a", random_vectors(1, space.dim, 9))
    assert "embedded more than once" in "".join(problems(store).values())
    repair(settings)
    assert problems(store) == {}
    assert [row[:2] for row in items(store)] == [row[:2] for row in before]


def test_damaged_votes_are_reported_and_left_alone(settings: Settings, store: Store) -> None:
    votes = store.judgements("taste")
    votes.parent.mkdir()
    votes.write_bytes(b"half a table")
    assert list(problems(store)) == [votes]
    assert repair(settings) == []
    assert votes.read_bytes() == b"half a table"


def test_a_sound_library_is_left_alone(settings: Settings, store: Store) -> None:
    def state() -> dict[Path, bytes]:
        files = (path for path in store.home.rglob("*") if path.is_file())
        return {
            path: path.read_bytes() for path in files if path.name not in ("checked.json", "lock")
        }

    before = state()
    assert repair(settings) == []
    assert state() == before


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"status": "fine"}, "'fine' is none of ok, unreadable, changing"),
        ({"content_id": None}, "has a content id and was not read"),
        ({"content_id": "0"}, "not 32 hex digits"),
        ({"path": "b.jpg"}, "'b.jpg' appears more than once"),
    ],
)
def test_values_that_no_run_writes_are_found(
    store: Store, row: dict[str, object], problem: str
) -> None:
    path = store.manifest("pictures")
    rows = read_table(path, MANIFEST).to_pylist()
    rows[0] |= row
    write_table(path, pa.Table.from_pylist(rows, schema=MANIFEST))
    assert problem in problems(store)[path]


@pytest.mark.parametrize(
    ("facts", "problem"),
    [
        ({"latitude": 91.0}, "a latitude is out of range"),
        ({"taken_from": "guess"}, "'guess' is none of sidecar, exif"),
    ],
)
def test_facts_that_no_run_writes_are_found(
    store: Store, facts: dict[str, object], problem: str
) -> None:
    path = store.facts("pictures")
    rows = read_table(path, FACTS).to_pylist()
    rows[0] |= facts
    write_table(path, pa.Table.from_pylist(rows, schema=FACTS))
    assert problem in problems(store)[path]


def test_vectors_of_another_dimension_are_found(store: Store, space: VectorSpace) -> None:
    table = pa.table(
        [
            pa.array([content("n")]),
            pa.FixedSizeListArray.from_arrays(pa.array(random_vectors(1, 8)[0]), 8),
            *(pa.array([1], pa.int32()) for _ in "wh"),
            pa.array(["JPEG"]),
        ],
        schema=embedding_schema(8),
    )
    path = store.next_part(space, "other")
    write_table(path, table, space)
    assert "not a table of this program's version" in problems(store)[path]


def test_embeddings_of_deleted_images_are_noted_and_no_problem(
    store: Store, space: VectorSpace
) -> None:
    write_part(store, space, "other", ["n", "m"], random_vectors(2, space.dim, 7))
    notes = [finding.note for finding in verify(store) if finding.note]
    assert len(notes) == 1
    assert "2 embeddings belong to no file: `retrieval gc`" in notes[0]
    assert problems(store) == {}


def test_a_build_that_crashes_its_reader_is_found_and_the_others_are_checked(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    builds = store.all_builds()
    crash = tmp_path / "code" / "sitecustomize.py"
    crash.parent.mkdir()
    crash.write_text(
        "import sys, os, signal\n"
        f"if sys.argv[1:2] == [{str(builds[0])!r}] or {str(builds[0])!r} in sys.orig_argv[3:4]:\n"
        "    os.kill(os.getpid(), signal.SIGSEGV)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(crash.parent), prepend=":")
    findings = list(check_builds(builds))
    assert findings[0] == Finding(builds[0], f"{builds[0]}: its reader ended with exit code -11")
    assert findings[1:] == [Finding(builds[1], None)]


def test_a_build_of_another_version_is_noted_unless_it_is_to_answer(store: Store) -> None:
    builds = store.all_builds()
    for build in builds:
        info = build / "build.json"
        info.write_text(info.read_text().replace('"format": ', '"format": 1'))
    findings = list(verify(store))
    assert [each.file for each in findings if "another version" in str(each.note)] == builds
    assert list(problems(store)) == [store.current_file]


def test_what_a_run_replaces_meanwhile_is_no_finding(store: Store, space: VectorSpace) -> None:
    findings = verify(store)
    next(findings)
    part = store.parts(space, "other")[0]
    part.unlink()
    assert not [finding for finding in findings if finding.problem]
