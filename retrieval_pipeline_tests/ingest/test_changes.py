"""Crawling only what changed, and being told by the file system what did."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import watchfiles

from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.errors import SourceError
from retrieval_pipeline.ingest import changes as changes_module
from retrieval_pipeline.ingest.changes import Changes, follow
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.manifest import read_rows
from retrieval_pipeline.ingest.sidecars import read_sidecar_rows
from retrieval_pipeline.storage.store import Store


def put(path: Path, data: str = "x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(data)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Source:
    root = tmp_path / "pictures"
    for name in ("a.jpg", "trip/b.jpg", "trip/c.jpg", "trip/deep/d.jpg", "old/e.jpg", "f.jpg"):
        put(root / name, name)
    return Source(name="pictures", path=root, exclude=("thumbs",))


def test_a_crawl_of_what_changed_finds_what_a_crawl_of_everything_finds(
    source: Source, tmp_path: Path
) -> None:
    root = Path(str(source.path))
    # The home lies inside the source, as many people have it.
    store, fresh = Store(root / "home"), Store(tmp_path / "fresh")
    update_manifest(store, source)
    put(root / "a.jpg", "another")
    put(root / "new/one/g.jpg")
    put(root / "trip/b.jpg.xmp")
    put(root / "thumbs/h.jpg")
    put(root / ".hidden/i.jpg")
    put(root / "notes.txt")
    (root / "trip" / "deep").rename(root / "shallow")
    (root / "trip" / "c.jpg").unlink()
    shutil.rmtree(root / "old")
    (root / "link").symlink_to(root / "trip")
    told = {
        *(
            "a.jpg",
            "new",
            "new/one",
            "trip/b.jpg.xmp",
            "thumbs/h.jpg",
            ".hidden/i.jpg",
            "notes.txt",
        ),
        *("trip/deep", "shallow", "trip/c.jpg", "old", "link", "home/manifest/pictures.parquet"),
    }
    report = update_manifest(store, source, only=told)
    update_manifest(fresh, source)
    assert read_rows(store, "pictures") == read_rows(fresh, "pictures")
    assert read_sidecar_rows(store, "pictures") == read_sidecar_rows(fresh, "pictures")
    assert (report.new, report.changed, report.removed) == (2, 1, 3)
    assert not update_manifest(store, source, only=told).published


def test_a_sidecar_that_came_before_its_picture_is_found_with_it(
    source: Source, tmp_path: Path
) -> None:
    root, store = Path(str(source.path)), Store(tmp_path / "home")
    update_manifest(store, source)
    put(root / "late.jpg.xmp")
    update_manifest(store, source, only=["late.jpg.xmp"])
    assert not read_sidecar_rows(store, "pictures")
    put(root / "late.jpg")
    update_manifest(store, source, only=["late.jpg"])
    assert [row.path for row in read_sidecar_rows(store, "pictures")] == ["late.jpg.xmp"]


@pytest.mark.parametrize("gone", ["all", "most"])
def test_nothing_is_removed_because_a_disk_is_away(
    source: Source, tmp_path: Path, gone: str
) -> None:
    root, store = Path(str(source.path)), Store(tmp_path / "home")
    update_manifest(store, source)
    before = read_rows(store, "pictures")
    shutil.rmtree(root)
    if gone == "most":
        put(root / "trip" / "b.jpg")
    with pytest.raises(SourceError, match=r"[Nn]othing was deleted"):
        update_manifest(store, source, only=[*before])
    assert read_rows(store, "pictures") == before


@pytest.fixture
def followed(
    source: Source, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Changes, list[str]]]:
    """The changes of the source, and the lines that were told."""
    monkeypatch.setattr(changes_module, "LOOK_SECONDS", 0.2)
    monkeypatch.setattr(changes_module, "SETTLE_SECONDS", 0.2)
    changes, lines = Changes({source.name: source}), []
    stop, ready = threading.Event(), threading.Event()
    home = Path(str(source.path)) / "home"
    thread = threading.Thread(
        target=follow, args=(source, home, changes, lines.append, stop), kwargs={"ready": ready}
    )
    thread.start()
    assert ready.wait(60)
    yield changes, lines
    stop.set()
    thread.join()


def wait_for(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)


@pytest.mark.slow
def test_the_system_reports_pictures_and_folders_once_they_hold_still(
    source: Source, followed: tuple[Changes, list[str]]
) -> None:
    root, (changes, _) = Path(str(source.path)), followed
    seen: set[str] = set()

    def has(*names: str) -> bool:
        seen.update(changes.settled().paths.get("pictures", ()))
        return seen >= {*names}

    wait_for(lambda: has(""))
    seen.clear()
    for name in ("home/index/x.jpg", ".cache/x.jpg", "thumbs/x.jpg", "notes.txt"):
        put(root / name)
    with (root / "growing.jpg").open("w") as growing:
        for _ in range(8):
            growing.write("x")
            growing.flush()
            time.sleep(0.08)
            assert not has("growing.jpg")
    (root / "trip").rename(root / "voyage")
    (root / "f.jpg").unlink()
    wait_for(lambda: has("growing.jpg", "trip", "voyage", "f.jpg"))
    assert not {each for each in seen if "x.jpg" in each or "txt" in each}


@pytest.mark.slow
def test_a_source_that_was_away_is_told_once_and_looked_through_when_it_is_back(
    source: Source, followed: tuple[Changes, list[str]]
) -> None:
    root, (changes, lines) = Path(str(source.path)), followed
    wait_for(lambda: "" in changes.settled().paths.get("pictures", ()))
    elsewhere = root.rename(root.with_name("elsewhere"))
    wait_for(lambda: lines)
    changes.settled()
    elsewhere.rename(root)
    wait_for(lambda: "" in changes.settled().paths.get("pictures", ()))
    assert [line.split(": ", 1)[1].split(" ")[1:3] for line in lines] == [
        ["is", "away:"],
        ["is", "back"],
    ]


@pytest.mark.slow
def test_where_the_system_watches_no_more_folders_all_files_are_looked_at(
    monkeypatch: pytest.MonkeyPatch, source: Source, request: pytest.FixtureRequest
) -> None:
    real = watchfiles.watch

    def limited(*paths: Path, force_polling: bool, **options: object) -> Iterator[object]:
        if not force_polling:
            raise OSError('OS file watch limit reached. about ["/there"] (Error { ... })')
        return real(*paths, force_polling=True, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(watchfiles, "watch", limited)
    monkeypatch.setattr(changes_module, "POLL_SECONDS", 0.2)
    changes, lines = request.getfixturevalue("followed")
    assert lines[0].startswith(
        'source "pictures": the system does not report changes (OS file watch limit reached): '
        "looking every 0.2 s instead"
    )
    put(Path(str(source.path)) / "trip" / "polled.jpg")
    wait_for(lambda: "trip/polled.jpg" in changes.settled().paths.get("pictures", ()))
