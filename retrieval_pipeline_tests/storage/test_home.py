"""A home is made in an empty directory only, and whatever others put into one stays there."""

import json
import shutil
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from pydantic import ValidationError

from retrieval_pipeline import __version__
from retrieval_pipeline.cli.main import cli
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.errors import RetrievalError, SettingsError, StoreError
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.ingest.walk import walk
from retrieval_pipeline.latent_map.coordinates import orphaned_maps
from retrieval_pipeline.maintenance.gc import collect
from retrieval_pipeline.maintenance.verify import verify
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline_tests.support.library import settings_of
from synthetic.tables import random_vectors, write_manifest, write_part

DIM = 16
SPACE = VectorSpace("test/model", "r1", DIM, "p")
OTHER = VectorSpace("test/other", "r1", DIM, "p")
BUILD = "20250101T101010.123456Z-0123abcd"
MARKER = "retrieval-home.json"


def tree(directory: Path) -> dict[str, bytes | None]:
    """Every file and directory below one, and the content of the files."""
    return {
        str(path.relative_to(directory)): path.read_bytes() if path.is_file() else None
        for path in directory.rglob("*")
    }


def put(*files: Path) -> None:
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("mine")


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """A home with a build of one source."""
    store = Store(tmp_path / "home")
    with store.locked():
        fill(store, "ab")
    return store


def fill(store: Store, names: str, source: str = "a") -> None:
    """Add an image to a source and index it: every name is a picture and a part."""
    write_manifest(store, source, {f"{name}.jpg": name for name in names})
    write_part(store, SPACE, source, names[-1], random_vectors(1, DIM, len(names)))
    build_index(store, SPACE, [source])


def test_a_new_home_says_what_it_is_and_who_made_it(tmp_path: Path) -> None:
    with Store(tmp_path / "home").locked():
        marker = json.loads((tmp_path / "home" / MARKER).read_text())
    assert (marker["retrieval_home"], marker["made_by"]) == (1, __version__)


def test_a_directory_with_files_of_others_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    put(tmp_path / "map" / "holiday" / "beach.jpg", tmp_path / "manifest" / "mine.parquet")
    before = tree(tmp_path)
    store = Store(tmp_path)
    with pytest.raises(StoreError, match="not a home of this program and not empty"):
        store.locked().__enter__()
    with pytest.raises(StoreError, match="not a home of this program and not empty"):
        store.writing_user_data().__enter__()
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "names", [(), ("lost+found/",), (".DS_Store",), ("lock", "judgements/lock", "manifest/")]
)
def test_a_directory_that_is_as_good_as_empty_becomes_a_home(
    tmp_path: Path, names: tuple[str, ...]
) -> None:
    for name in names:
        if name.endswith("/"):
            (tmp_path / name).mkdir()
        else:
            put(tmp_path / name)
    with Store(tmp_path).locked():
        assert (tmp_path / MARKER).exists()


def test_a_home_without_a_marker_gets_one_when_its_files_are_ours(store: Store) -> None:
    (store.home / MARKER).unlink()
    put(store.home / "notes.txt", store.home / "map" / "holiday" / "beach.jpg")
    assert [finding.problem for finding in verify(store)] == [None] * 6
    with store.locked():
        assert (store.home / MARKER).exists()
    assert (store.home / "notes.txt").read_text() == "mine"


def test_the_home_of_a_newer_version_is_left_alone(store: Store) -> None:
    marker = json.loads((store.home / MARKER).read_text()) | {"retrieval_home": 2, "made_by": "9.0"}
    (store.home / MARKER).write_text(json.dumps(marker))
    before = tree(store.home)
    with pytest.raises(StoreError, match=r"was made by version 9\.0"):
        store.locked().__enter__()
    assert tree(store.home) == before


def test_home_may_not_be_a_source_nor_hold_one(tmp_path: Path) -> None:
    (tmp_path / "pics").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "pics")
    with pytest.raises(ValidationError, match="lies inside home"):
        settings_of(tmp_path, pics=tmp_path / "pics")
    with pytest.raises(ValidationError, match="is home"):
        settings_of(tmp_path / "pics", pics=tmp_path / "link")


def test_init_refuses_a_home_that_holds_the_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "pics" / "a.jpg")
    before = tree(tmp_path)
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli, ["init", "pics", "--model", "offline", "--home", "."])
    assert isinstance(done.exception, SettingsError)
    message = str(done.exception)
    assert "lies inside home" in message and "\n" not in message
    assert tree(tmp_path) == before


def test_home_inside_a_source_is_not_crawled(tmp_path: Path) -> None:
    settings = settings_of(tmp_path / "home", pics=tmp_path)
    put(tmp_path / "a.jpg")
    with Store(settings.home).locked():
        put(tmp_path / "home" / "web" / "thumbnails" / "b.jpg")
        (source,) = settings.sources
        assert [row.path for row in walk(source, skip=Store(settings.home).home)] == ["a.jpg"]


@pytest.mark.parametrize(
    "command", [["status"], ["query", "cat"], ["verify"], ["verify", "--repair"], ["gc"], ["index"]]
)
def test_every_command_says_that_a_directory_is_no_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str]
) -> None:
    put(tmp_path / "home" / "index" / "CURRENT", tmp_path / "home" / "manifest" / "mine.parquet")
    put(tmp_path / "pics" / "a.jpg")
    monkeypatch.chdir(tmp_path)
    Path("retrieval.toml").write_text(
        'home = "home"\nmodel = "offline"\n[[sources]]\nname = "pics"\npath = "pics"\n'
    )
    before = tree(tmp_path)
    done = CliRunner().invoke(cli, command)
    assert isinstance(done.exception, RetrievalError)
    assert "is not a home of this program and not empty" in str(done.exception)
    assert tree(tmp_path) == before
    assert load_settings(Path("retrieval.toml")).home == tmp_path / "home"


@pytest.fixture
def mine(store: Store, tmp_path: Path) -> Iterator[dict[str, bytes | None]]:
    """Files that a person put into home and behind links in it; they must be there at the end."""
    home, outside = store.home, tmp_path / "outside"
    files = [
        ".tmp-note.txt",
        ".tmp-drafts/draft.txt",
        "notes/.tmp-0123456789ab-draft.txt",
        "map/holiday/beach.jpg",
        f"map/{BUILD}/beach.jpg",
        "index/photos/2019/a.jpg",
        "index/photos/2020/a.jpg",
        "index/photos/2021/a.jpg",
        f"index/{SPACE.key}/archive/a.jpg",
        f"index/{SPACE.key}/{BUILD}/a.jpg",
        "damaged/prints/p.tif",
        f"damaged/index/{SPACE.key}/{BUILD}/p.tif",
        "manifest/.tmp-list.txt",
        "manifest/readme.txt",
        "embeddings/.tmp-note.txt",
        "embeddings/notes/a/part-000001.parquet",
        f"embeddings/{OTHER.key}/a/notes.txt",
        "judgements/.tmp-votes.txt",
        "saved/.tmp-query.txt",
        "web/.tmp-page.html",
    ]
    put(*(home / file for file in files))
    pq.write_table(pa.table({"price": [1, 2]}), home / "manifest" / "mine.parquet")
    files.append("manifest/mine.parquet")
    linked = [outside / "photos" / "a.jpg", outside / "builds" / BUILD / "items.arrow"]
    put(*linked)
    (home / "map" / BUILD.replace("2025", "2024")).symlink_to(outside / "photos")
    (home / ".tmp-0123456789ab-photos").symlink_to(outside / "photos")
    (home / "index" / OTHER.key).symlink_to(outside / "builds")
    paths = [*(home / file for file in files), *linked]
    before = {str(path): path.read_bytes() for path in paths}
    yield {**before}
    assert {str(path): path.read_bytes() for path in paths if path.exists()} == before
    assert (home / "map" / BUILD.replace("2025", "2024")).is_symlink()


def test_indexing_and_collecting_leave_files_of_others_alone(
    store: Store, mine: dict[str, bytes | None]
) -> None:
    assert mine
    half = store.home / "manifest" / ".tmp-0123456789ab-a.parquet"
    half.write_text("half")
    with store.locked():
        for names in ("abc", "abcd", "abcde"):
            fill(store, names)
    assert not half.exists()
    before = set(store.all_builds())
    freed = collect(store, ["a"], only_space=SPACE, grace=timedelta(0))
    assert {each.why for each in freed} >= {"replaced by a newer build"}
    assert before - set(store.all_builds())
    for orphan in orphaned_maps(store, []):
        raise AssertionError(f"{orphan} would be removed")


def test_a_build_with_a_file_of_somebody_is_not_retired(store: Store) -> None:
    note = store.all_builds()[0] / "note.txt"
    note.write_text("mine")
    for names in ("abc", "abcd", "abcde"):
        fill(store, names)
    collect(store, ["a"], grace=timedelta(0))
    assert note.read_text() == "mine"
    assert len(store.all_builds()) == 3


def test_what_a_repair_set_aside_goes_and_nothing_else_in_that_folder(store: Store) -> None:
    aside = [store.set_aside(store.manifest("a")), store.set_aside(store.all_builds()[0])]
    put(store.damaged / "prints" / "p.tif")
    write_manifest(store, "a", {"a.jpg": "a"})
    freed = collect(store, ["a"])
    assert {each.path for each in freed if "repair" in each.why} == set(aside)
    assert tree(store.damaged) == {"prints": None, "prints/p.tif": b"mine"}


def test_nothing_behind_a_linked_folder_is_removed(store: Store, tmp_path: Path) -> None:
    for folder in ("index", "embeddings", "manifest"):
        shutil.move(store.home / folder, tmp_path / folder)
        (store.home / folder).symlink_to(tmp_path / folder)
    with store.locked():
        for names in ("abc", "abcd", "abcde"):
            fill(store, names)
        put(tmp_path / "index" / ".tmp-0123456789ab-CURRENT")
    write_manifest(store, "old", {"x.jpg": "x"})
    before = tree(tmp_path)
    assert collect(store, ["a"], grace=timedelta(0)) == []
    assert {name for name in before if name not in tree(tmp_path)} == set()
    assert len(store.all_builds()) == 4
