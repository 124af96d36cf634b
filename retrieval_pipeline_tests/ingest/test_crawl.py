import contextlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from retrieval_pipeline.concurrency import AHEAD
from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.errors import SourceError, Stopped, StoreError
from retrieval_pipeline.ingest import crawl, hashing
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.hashing import (
    BATCH_BYTES,
    BATCH_FILES,
    HASH_THREADS,
    batches_to_hash,
)
from retrieval_pipeline.ingest.manifest import FIRST_TIME_NS, LAST_TIME_NS, FileRow, Status
from retrieval_pipeline.ingest.walk import walk
from retrieval_pipeline.maintenance.verify import verify
from retrieval_pipeline.progress import Quiet
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, write_table

NOBODY = 65534


@pytest.fixture
def place(request: pytest.FixtureRequest) -> Iterator[Path]:
    """A directory that every user may enter; pytest's own are closed to all but one."""
    parent = getattr(request, "param", None)
    if parent and not Path(parent).is_dir():
        pytest.skip(f"there is no {parent}")
    with tempfile.TemporaryDirectory(dir=parent) as directory:
        Path(directory).chmod(0o777)
        yield Path(directory)


@pytest.fixture
def ordinary_user(place: Path) -> Iterator[None]:
    """Root may read everything, so that nothing would be unreadable: step down for one test."""
    user = os.geteuid()
    if user == 0:
        os.seteuid(NOBODY)
    yield
    os.seteuid(user)


@pytest.fixture
def store(place: Path) -> Store:
    return Store(place / "home")


@pytest.fixture
def root(place: Path) -> Path:
    directory = place / "pictures"
    directory.mkdir()
    directory.chmod(0o777)
    return directory


def source_of(root: Path, **keys: object) -> Source:
    return Source.model_validate({"name": "pictures", "path": root, **keys})


def put(path: Path, data: bytes = b"x") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def paths(store: Store) -> list[str]:
    return read_manifest(store, "pictures")["path"].to_pylist()


def test_files_are_found_in_a_stable_order_whatever_their_case(root: Path) -> None:
    for name in ("b/2.JPG", "b/1.jpeg", "a.png", "c/d/e.avif", "notes.txt", "noextension"):
        put(root / name)
    assert [row.path for row in walk(source_of(root))] == [
        "a.png",
        "b/1.jpeg",
        "b/2.JPG",
        "c/d/e.avif",
    ]


def test_hidden_and_system_folders_are_left_out(root: Path) -> None:
    for name in (".hidden/a.jpg", "$RECYCLE.BIN/a.jpg", ".Trash-1000/a.jpg", "@eaDir/a.jpg"):
        put(root / name)
    put(root / "System Volume Information" / "a.jpg")
    put(root / "kept.jpg")
    assert [row.path for row in walk(source_of(root))] == ["kept.jpg"]


def test_excluded_globs_leave_out_files_and_whole_folders(root: Path) -> None:
    for name in ("a/thumbnails/1.jpg", "a/2.jpg", "a/2.tmp.jpg", "drafts/3.jpg"):
        put(root / name)
    source = source_of(root, exclude=["*/thumbnails", "*.tmp.jpg", "drafts"])
    assert [row.path for row in walk(source)] == ["a/2.jpg"]


def test_the_home_of_the_tables_is_never_a_source_of_pictures(root: Path) -> None:
    put(root / "home" / "map.png")
    put(root / "a.jpg")
    update_manifest(Store(root / "home"), source_of(root))
    assert paths(Store(root / "home")) == ["a.jpg"]


def test_symbolic_links_are_followed_only_on_request_and_loops_end(root: Path) -> None:
    put(root / "a" / "1.jpg")
    (root / "a" / "loop").symlink_to(root)
    (root / "link.jpg").symlink_to(root / "a" / "1.jpg")
    (root / "dangling.jpg").symlink_to(root / "nowhere")
    assert [row.path for row in walk(source_of(root))] == ["a/1.jpg"]
    followed = list(walk(source_of(root, follow_symlinks=True)))
    assert {row.path for row in followed if row.status is Status.OK} == {"a/1.jpg", "link.jpg"}
    assert {row.path for row in followed if row.error} == {"dangling.jpg"}


def test_sockets_and_pipes_are_never_opened(root: Path) -> None:
    os.mkfifo(root / "pipe.jpg")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(root / "socket.jpg"))
        assert list(walk(source_of(root))) == []


def test_names_that_are_not_unicode_and_odd_characters_are_kept(root: Path, store: Store) -> None:
    names = [b"\xff\xfe.jpg", b"new\nline.jpg", b"back\\slash.jpg", b"x" * 251 + b".jpg"]
    for name in names:
        Path(os.fsdecode(os.fsencode(root) + b"/" + name)).write_bytes(name)
    report = update_manifest(store, source_of(root))
    assert report.files == 4
    assert report.unreadable == 0


def test_twins_of_two_normal_forms_and_names_like_globs_are_files_like_any_other(
    root: Path, store: Store
) -> None:
    names = [
        "caf\u00e9.jpg",
        "cafe\u0301.jpg",
        "[a]*?.jpg",
        "{b,c}.jpg",
        "~.jpg",
        "-rf.jpg",
        " .jpg",
    ]
    for name in names:
        put(root / name, name.encode())
    assert update_manifest(store, source_of(root)).files == len(names)
    assert sorted(paths(store)) == sorted(names)
    assert update_manifest(store, source_of(root)).unchanged == len(names)


def test_a_tree_deeper_than_any_path_may_be_long_is_told_and_the_rest_is_read(
    root: Path, store: Store
) -> None:
    put(root / "a.jpg")
    put(root / "z.jpg")
    descriptor = os.open(root, os.O_RDONLY)
    for _ in range(25):
        os.mkdir("d" * 200, dir_fd=descriptor)
        inner = os.open("d" * 200, os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(os.open("deep.jpg", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    report = update_manifest(store, source_of(root))
    assert (report.files, report.unreadable) == (2, 1)
    errors = [row["error"] for row in read_manifest(store, "pictures").to_pylist() if row["error"]]
    assert errors == ["file name too long"]


def test_hard_links_are_copies_of_one_content(root: Path, store: Store) -> None:
    file = put(root / "a.jpg", b"one")
    (root / "b.jpg").hardlink_to(file)
    update_manifest(store, source_of(root))
    assert len(set(read_manifest(store, "pictures")["content_id"].to_pylist())) == 1
    assert paths(store) == ["a.jpg", "b.jpg"]


@pytest.mark.parametrize(
    ("what", "error"),
    [("pipe", "it is not a regular file"), ("nothing", "no such file or directory")],
)
def test_what_takes_the_place_of_a_listed_file_is_never_opened(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch, what: str, error: str
) -> None:
    file = put(root / "a.jpg")
    listed = list(walk(source_of(root)))
    file.unlink()
    if what == "pipe":
        os.mkfifo(file)
    monkeypatch.setattr(crawl, "walk", lambda *_, **__: iter(listed))
    assert update_manifest(store, source_of(root)).unreadable == 1
    row = read_manifest(store, "pictures").to_pylist()[0]
    assert (row["status"], row["error"]) == ("unreadable", error)


def test_only_new_and_changed_files_are_read_again(root: Path, store: Store) -> None:
    kept, changed, gone = (put(root / name, name.encode()) for name in ("k.jpg", "c.jpg", "g.jpg"))
    first = update_manifest(store, source_of(root))
    assert (first.files, first.new, first.bytes_hashed) == (3, 3, 15)
    changed.write_bytes(b"changed")
    gone.unlink()
    put(root / "n.jpg")
    second = update_manifest(store, source_of(root))
    assert (second.new, second.changed, second.removed, second.unchanged) == (1, 1, 1, 1)
    assert second.bytes_hashed == len(b"changed") + 1
    assert kept.exists()


def test_nothing_changed_means_nothing_written_but_the_time(root: Path, store: Store) -> None:
    put(root / "a.jpg")
    update_manifest(store, source_of(root))
    before = store.manifest("pictures").stat()
    assert not update_manifest(store, source_of(root)).published
    after = store.manifest("pictures").stat()
    assert after.st_ino == before.st_ino
    assert after.st_mtime_ns > before.st_mtime_ns


def test_a_moved_file_keeps_its_content_id(root: Path, store: Store) -> None:
    file = put(root / "a.jpg", b"picture")
    update_manifest(store, source_of(root))
    before = read_manifest(store, "pictures")["content_id"].to_pylist()
    file.rename(root / "b.jpg")
    update_manifest(store, source_of(root))
    assert paths(store) == ["b.jpg"]
    assert read_manifest(store, "pictures")["content_id"].to_pylist() == before


def test_other_content_under_the_same_size_and_time_is_found_by_rehash(
    root: Path, store: Store
) -> None:
    file = put(root / "a.jpg", b"one")
    update_manifest(store, source_of(root))
    times = file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert update_manifest(store, source_of(root)).changed == 0
    assert update_manifest(store, source_of(root), rehash=True).changed == 1
    assert read_manifest(store, "pictures")["content_id"].to_pylist() == [content_id_of_file(file)]


@pytest.mark.parametrize("kind", ["missing", "file"])
def test_a_source_that_is_not_a_directory_fails_and_deletes_nothing(
    root: Path, store: Store, kind: str
) -> None:
    put(root / "a.jpg")
    update_manifest(store, source_of(root))
    root.rename(root.parent / "elsewhere")
    if kind == "file":
        root.write_text("no directory")
    with pytest.raises(SourceError, match=r"pictures.*Nothing was deleted"):
        update_manifest(store, source_of(root))
    assert paths(store) == ["a.jpg"]


def test_losing_most_files_fails_until_it_is_confirmed(root: Path, store: Store) -> None:
    files = [put(root / f"{number}.jpg", bytes([number])) for number in range(10)]
    update_manifest(store, source_of(root))
    for file in files[:6]:
        file.unlink()
    with pytest.raises(SourceError, match=r"6 of 10 files are gone.*--allow-shrink"):
        update_manifest(store, source_of(root))
    assert len(paths(store)) == 10
    assert update_manifest(store, source_of(root), allow_shrink=True).removed == 6
    assert len(paths(store)) == 4


def test_files_that_were_moved_are_not_lost(root: Path, store: Store) -> None:
    for number in range(10):
        put(root / "holidays" / f"{number}.jpg", bytes([number]))
    update_manifest(store, source_of(root))
    (root / "holidays").rename(root / "holidays 2025")
    report = update_manifest(store, source_of(root))
    assert (report.new, report.removed, report.files) == (10, 10, 10)


def test_another_disk_in_the_place_of_the_first_is_noticed(root: Path, store: Store) -> None:
    for number in range(10):
        put(root / f"{number}.jpg", bytes([number]))
    update_manifest(store, source_of(root))
    before = paths(store)
    for number in range(10):
        (root / f"{number}.jpg").rename(root / f"{number}.jpg.off")
        put(root / f"other {number}.jpg", bytes([number + 100]))
    with pytest.raises(SourceError, match="10 of 10 files are gone"):
        update_manifest(store, source_of(root))
    assert paths(store) == before


@pytest.mark.usefixtures("ordinary_user")
def test_files_that_all_turn_unreadable_are_noticed(root: Path, store: Store) -> None:
    files = [put(root / f"{number}.jpg", bytes([number])) for number in range(4)]
    update_manifest(store, source_of(root))
    for file in files:
        file.chmod(0)
    with pytest.raises(SourceError, match=r"4 of 4 files are gone .* or cannot be read"):
        update_manifest(store, source_of(root), rehash=True)
    assert read_manifest(store, "pictures")["content_id"].null_count == 0
    assert update_manifest(store, source_of(root)).unchanged == 4


@pytest.mark.parametrize(("share", "refused"), [(0.0, True), (0.1, False), (1.0, False)])
def test_the_settings_say_how_many_files_may_go(
    root: Path, store: Store, share: float, refused: bool
) -> None:
    for number in range(10):
        put(root / f"{number}.jpg", bytes([number]))
    update_manifest(store, source_of(root))
    (root / "0.jpg").unlink()
    if refused:
        with pytest.raises(SourceError, match="1 of 10"):
            update_manifest(store, source_of(root), max_shrink=share)
    else:
        assert update_manifest(store, source_of(root), max_shrink=share).removed == 1


def test_an_empty_directory_is_an_empty_manifest(root: Path, store: Store) -> None:
    assert update_manifest(store, source_of(root)).files == 0
    assert paths(store) == []


@pytest.mark.usefixtures("ordinary_user")
def test_an_unreadable_file_is_a_row_with_a_reason(root: Path, store: Store) -> None:
    put(root / "a.jpg").chmod(0)
    assert update_manifest(store, source_of(root)).unreadable == 1
    row = read_manifest(store, "pictures").to_pylist()[0]
    assert (row["status"], row["content_id"], row["error"]) == (
        "unreadable",
        None,
        "permission denied",
    )


@pytest.mark.usefixtures("ordinary_user")
def test_what_lies_below_an_unreadable_directory_is_not_deleted(root: Path, store: Store) -> None:
    put(root / "locked" / "a.jpg", b"a")
    put(root / "b.jpg", b"b")
    update_manifest(store, source_of(root))
    (root / "locked").chmod(0)
    try:
        report = update_manifest(store, source_of(root))
    finally:
        (root / "locked").chmod(0o755)
    assert report.removed == 0
    assert report.unreadable == 1
    assert "locked/a.jpg" in paths(store)


def test_a_file_that_changes_while_it_is_read_is_left_for_the_next_run(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(root / "a.jpg", b"one")

    def growing(path: str, **options: Any) -> str:
        digest = content_id_of_file(path, **options)
        with file.open("ab") as handle:
            handle.write(b"more")
        return digest

    monkeypatch.setattr(hashing, "content_id_of_file", growing)
    update_manifest(store, source_of(root))
    assert read_manifest(store, "pictures").to_pylist()[0]["status"] == "changing"
    monkeypatch.undo()
    assert update_manifest(store, source_of(root)).files == 1


def test_a_stopped_crawl_keeps_what_it_hashed(root: Path, store: Store) -> None:
    stop = threading.Event()

    class StopsWhileHashing(Quiet):
        def start(self, stage: str, total: int | None, unit: str) -> None:
            self.hashing = stage.startswith("hashing")

        def advance(self, count: int = 1) -> None:
            if self.hashing:
                stop.set()

    # More than all threads take ahead.
    names = [f"{number:05}.jpg" for number in range(BATCH_FILES * (HASH_THREADS * AHEAD + 2))]
    for name in names:
        put(root / name, name.encode())
    with pytest.raises(Stopped, match="finished files are kept"):
        update_manifest(store, source_of(root), stop=stop, progress=StopsWhileHashing())
    kept = paths(store)
    assert kept[:BATCH_FILES] == names[:BATCH_FILES]
    assert names[-1] not in kept
    assert update_manifest(store, source_of(root)).new == len(names) - len(kept)


def test_files_are_hashed_by_the_handful_unless_they_are_large(root: Path) -> None:
    sizes = [10] * BATCH_FILES + [10, BATCH_BYTES, BATCH_BYTES, 10]
    rows = [FileRow(str(number), size, 0) for number, size in enumerate(sizes)]
    batches = list(batches_to_hash(rows, BATCH_FILES))
    assert list(map(len, batches)) == [BATCH_FILES, 2, 1, 1]
    assert [row for batch in batches for row in batch] == rows
    assert list(batches_to_hash([], BATCH_FILES)) == []


def test_a_file_touched_but_not_changed_keeps_its_content_id(root: Path, store: Store) -> None:
    file = put(root / "a.jpg", b"one")
    update_manifest(store, source_of(root))
    os.utime(file, ns=(time.time_ns(), time.time_ns()))
    report = update_manifest(store, source_of(root))
    assert (report.new, report.changed, report.published) == (0, 0, True)


class Notes(Quiet):
    """Keeps the notes of a crawl."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


SECOND = 10**9


@pytest.mark.parametrize("place", ["/dev/shm", None], indirect=True)
@pytest.mark.parametrize(
    ("seconds", "stored"),
    [(10_413_792_000, LAST_TIME_NS), (-11_676_096_000, FIRST_TIME_NS)],
    ids=["2300", "1600"],
)
def test_a_time_beyond_64_bits_of_nanoseconds_is_stored_as_the_nearest_and_noted(
    place: Path, tmp_path: Path, seconds: int, stored: int
) -> None:
    root, store = place / "pictures", Store(tmp_path / "home")
    put(root / "plain.jpg", b"plain")
    file = put(root / "odd.jpg", b"odd")
    os.utime(file, (seconds, seconds))
    if file.stat().st_mtime != seconds:
        pytest.skip("this file system has no such times")
    notes = Notes()
    assert update_manifest(store, source_of(root), progress=notes).files == 2
    row = read_manifest(store, "pictures").to_pylist()[0]
    assert (row["path"], row["status"], row["mtime_ns"]) == ("odd.jpg", "ok", stored)
    (line,) = notes.lines
    assert line.startswith("pictures/odd.jpg: its time of change is stored as of")
    again = Notes()
    assert update_manifest(store, source_of(root), progress=again).unchanged == 2
    assert not again.lines


class Entry:
    """A directory entry whose facts are made up."""

    def __init__(self, entry: "os.DirEntry[str]", facts: dict[str, Any]) -> None:
        self.name, self.path = entry.name, entry.path
        self._entry, self._facts = entry, facts

    def _fails(self, call: str) -> None:
        if self._facts["fails"] == call:
            raise OSError(self._facts["errno"], os.strerror(self._facts["errno"]))

    def is_symlink(self) -> bool:
        self._fails("is_symlink")
        return self._entry.is_symlink()

    def is_dir(self) -> bool:
        self._fails("is_dir")
        return self._entry.is_dir()

    def stat(self) -> SimpleNamespace:
        self._fails("stat")
        return SimpleNamespace(
            st_mode=self._facts["mode"],
            st_size=self._facts["size"],
            st_mtime_ns=self._facts["mtime_ns"],
        )


def becomes(path: Path, kind: str) -> None:
    """Replace a file by something else of the same name."""
    if kind == "itself":
        return
    path.unlink()
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "directory":
        path.mkdir()
    elif kind == "link":
        path.symlink_to("/etc/passwd")
    elif kind == "loop":
        path.symlink_to(path)
    elif kind == "sparse":
        path.touch()
        os.truncate(path, 1 << 40)


FACTS = st.fixed_dictionaries(
    {
        "name": st.binary(min_size=1, max_size=40).filter(lambda name: not {0, 47} & set(name)),
        "folder": st.booleans(),
        "mode": st.one_of(st.just(0o100644), st.integers(0, 2**16 - 1)),
        "size": st.integers(0, 2**63 - 1),
        # 64 bits of seconds, as stat has them.
        "mtime_ns": st.integers(-(2**63) * SECOND, 2**63 * SECOND),
        "fails": st.sampled_from([None, None, None, "is_symlink", "is_dir", "stat"]),
        "errno": st.integers(1, 133),
        "becomes": st.sampled_from(["itself", "nothing", "fifo", "directory", "link", "loop"]),
        "mtime_after": st.integers(-(2**40), 2**40),
    }
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(listings=st.lists(st.lists(FACTS, max_size=6), min_size=1, max_size=3))
def test_whatever_a_directory_holds_no_file_ends_the_crawl(
    place: Path, listings: list[list[dict[str, Any]]]
) -> None:
    """Several crawls of one source, each with another listing; files change after the listing."""
    with tempfile.TemporaryDirectory(dir=place) as directory, pytest.MonkeyPatch.context() as patch:
        store, scandir = Store(Path(directory, "home")), os.scandir
        for number, listing in enumerate(listings):
            root = Path(directory, str(number))
            root.mkdir()
            facts_of: dict[str, dict[str, Any]] = {}
            for facts in listing:
                name = os.fsdecode(facts["name"]) + ".jpg"
                if name not in facts_of:
                    facts_of[name] = facts
                    (root / "folder" if facts["folder"] else root).mkdir(exist_ok=True)
                    file = (root / "folder" if facts["folder"] else root) / name
                    file.write_bytes(facts["name"])
                    os.utime(file, (facts["mtime_after"], facts["mtime_after"]))

            @contextlib.contextmanager
            def shimmed(
                path: str, facts_of: dict[str, dict[str, Any]] = facts_of
            ) -> Iterator[list[Any]]:
                with scandir(path) as entries:
                    yield [
                        Entry(entry, facts_of[entry.name]) if entry.name in facts_of else entry
                        for entry in entries
                    ]
                for entry in Path(path).iterdir():
                    if entry.name in facts_of:
                        becomes(entry, facts_of[entry.name]["becomes"])

            patch.setattr(os, "scandir", shimmed)
            report = update_manifest(
                store, source_of(root), allow_shrink=True, max_bytes=2**40, progress=Notes()
            )
            patch.undo()
            rows = read_manifest(store, "pictures").to_pylist()
            assert len(rows) >= report.files + report.unreadable
            assert not [finding for finding in verify(store) if finding.problem]


def test_a_file_that_cannot_even_be_asked_for_its_kind_hides_nothing_below_it(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(root / "folder" / "a.jpg")
    update_manifest(store, source_of(root))
    scandir = os.scandir

    @contextlib.contextmanager
    def shimmed(path: str) -> Iterator[list[Any]]:
        with scandir(path) as entries:
            yield [Entry(entry, {"fails": "is_dir", "errno": 5}) for entry in entries]

    monkeypatch.setattr(os, "scandir", shimmed)
    update_manifest(store, source_of(root))
    assert "folder/a.jpg" in paths(store)


def test_a_file_over_the_limit_is_recorded_and_never_read(root: Path, store: Store) -> None:
    put(root / "small.jpg")
    file = put(root / "large.jpg")
    os.truncate(file, 8 * 10**12)
    read_at = 946_684_800 * SECOND  # Reading it would change this.
    os.utime(file, ns=(read_at, read_at))
    notes = Notes()
    report = update_manifest(store, source_of(root), max_bytes=10**9, progress=notes)
    assert (report.files, report.new, report.too_large, report.bytes_hashed) == (2, 2, 1, 1)
    row = read_manifest(store, "pictures").to_pylist()[0]
    assert (row["path"], row["status"], row["content_id"]) == ("large.jpg", "too_large", None)
    line = "8,000,000,000,000 bytes; 1,000,000,000 are allowed"
    assert notes.lines == [f"pictures/large.jpg: too large: {line}"]
    assert file.stat().st_atime_ns == read_at
    again = Notes()
    assert not update_manifest(store, source_of(root), max_bytes=10**9, progress=again).published
    assert not again.lines
    os.truncate(file, 10)
    report = update_manifest(store, source_of(root), max_bytes=10**9)
    assert (report.too_large, report.changed) == (0, 1)


def test_a_file_that_grows_without_end_is_given_up(
    root: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = put(root / "a.jpg")
    listed = list(walk(source_of(root)))
    os.truncate(file, 8 * 10**12)
    monkeypatch.setattr(crawl, "walk", lambda *_, **__: iter(listed))
    report = update_manifest(store, source_of(root), max_bytes=10**6)
    assert report.unreadable == 1
    assert "more than 1,000,000 bytes" in read_manifest(store, "pictures").to_pylist()[0]["error"]


def test_a_crawl_stops_in_the_middle_of_a_file(root: Path, store: Store) -> None:
    put(root / "a.jpg", b"first")
    os.truncate(put(root / "b.jpg"), 8 * 10**12)
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(Stopped):
        update_manifest(store, source_of(root), stop=stop)
    assert paths(store) == ["a.jpg"]


@pytest.mark.parametrize("kind", ["fifo", "directory", "link"])
def test_only_regular_files_are_read(tmp_path: Path, kind: str) -> None:
    file = put(tmp_path / "a.jpg")
    becomes(file, kind)
    with pytest.raises(OSError, match=r"not a regular file|symbolic links"):
        content_id_of_file(file, follow_symlinks=False)


def test_a_manifest_with_an_unknown_status_is_one_line(root: Path, store: Store) -> None:
    put(root / "a.jpg")
    update_manifest(store, source_of(root))
    table = read_manifest(store, "pictures")
    number = table.schema.get_field_index("status")
    table = table.set_column(number, table.schema.field("status"), [["unheard-of"]])
    write_table(store.manifest("pictures"), table)
    with pytest.raises(StoreError, match=r"pictures\.parquet: 'unheard-of' is not a valid Status"):
        update_manifest(store, source_of(root))
