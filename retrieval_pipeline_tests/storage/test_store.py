import errno
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pytest

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.storage.atomic import new_directory, replacing
from retrieval_pipeline.storage.schemas import MANIFEST, embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, read_space, read_table, write_table
from retrieval_pipeline.vectors import VectorSpace

SPACE = VectorSpace("some/model", "r1", 4, "p")


def manifest_of(*names: str) -> pa.Table:
    rows = [
        {"path": name, "size": 1, "mtime_ns": 2, "content_id": "0" * 32, "status": "ok"}
        for name in names
    ]
    return pa.Table.from_pylist(rows, schema=MANIFEST)


def test_a_table_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    store = Store(tmp_path)
    write_table(store.manifest("a"), manifest_of("x.jpg"))
    assert read_manifest(store, "a").to_pylist() == manifest_of("x.jpg").to_pylist()
    assert len(read_manifest(store, "b")) == 0


def test_a_table_of_vectors_says_which_model_made_it(tmp_path: Path) -> None:
    path = tmp_path / "part.parquet"
    write_table(path, embedding_schema(4).empty_table(), SPACE)
    assert read_space(path) == SPACE
    with pytest.raises(StoreError, match="does not say which model"):
        write_table(path, embedding_schema(4).empty_table())
        read_space(path)


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"no parquet at all" * 100])
def test_a_damaged_table_is_refused_by_name(tmp_path: Path, damage: bytes) -> None:
    path = Store(tmp_path).manifest("a")
    write_table(path, manifest_of("x.jpg"))
    path.write_bytes(damage)
    with pytest.raises(StoreError, match=r"a\.parquet: damaged"):
        read_table(path, MANIFEST)


def test_a_table_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = Store(tmp_path).manifest("a")
    write_table(path, manifest_of(*"abcdefgh"))
    whole = path.read_bytes()
    for length in range(0, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(StoreError):
            read_table(path, MANIFEST)


def test_a_table_with_other_columns_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    write_table(path, pa.table({"path": ["x"]}))
    with pytest.raises(StoreError, match="not a table of this program's version"):
        read_table(path, MANIFEST)


def test_a_failed_write_leaves_the_former_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "t"
    path.write_text("former")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "former"
    assert [file.name for file in tmp_path.iterdir()] == ["t"]


def test_a_full_disk_is_one_clear_line(tmp_path: Path) -> None:
    message = r"no space left for .*finished work is kept"
    with pytest.raises(StoreError, match=message), replacing(tmp_path / "t"):
        raise OSError(errno.ENOSPC, "No space left on device")


def test_no_file_takes_the_place_of_a_device_or_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "link").symlink_to("pipe")
    for name in ("pipe", "link"):
        refused = pytest.raises(StoreError, match=f"{name} is a device or a pipe")
        with refused, replacing(tmp_path / name) as temporary:
            temporary.touch()
    assert (tmp_path / "link").is_fifo()


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError), new_directory(tmp_path / "d") as temporary:
        (temporary / "f").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []
    with new_directory(tmp_path / "d") as temporary:
        (temporary / "f").write_text("x")
        assert not (tmp_path / "d").exists()
    assert (tmp_path / "d" / "f").read_text() == "x"


def test_a_second_writer_is_told_who_writes(tmp_path: Path) -> None:
    with Store(tmp_path).locked():
        code = (
            "from pathlib import Path; from retrieval_pipeline.storage.store import Store\n"
            f"with Store(Path({str(tmp_path)!r})).locked(): pass"
        )
        child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 1
    assert f"written by another run (process {os.getpid()})" in child.stderr


def test_the_lock_of_a_dead_process_is_free_and_its_leftovers_go(tmp_path: Path) -> None:
    store = Store(tmp_path)
    code = (
        "import os, signal; from pathlib import Path\n"
        "from retrieval_pipeline.storage.store import Store, replacing\n"
        f"store = Store(Path({str(tmp_path)!r}))\n"
        "with store.locked(), replacing(store.manifest('a')) as temporary:\n"
        "    temporary.write_text('half'); os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert subprocess.run([sys.executable, "-c", code]).returncode < 0
    assert any(store.manifest("a").parent.iterdir())
    with store.locked():
        assert list(store.manifest("a").parent.iterdir()) == []


def test_a_run_leaves_alone_what_voters_and_the_web_page_are_writing(tmp_path: Path) -> None:
    store = Store(tmp_path)
    with (
        replacing(store.judgements("a")) as vote,
        replacing(store.thumbnail("ab12", "small")) as thumbnail,
    ):
        vote.write_text("v")
        thumbnail.write_text("t")
        with store.locked():
            assert vote.exists() and thumbnail.exists()
    assert store.thumbnail("ab12", "small").read_text() == "t"


@pytest.mark.parametrize("text", ["", "x", "../../etc", "a/b/c", "a/.."])
def test_a_pointer_that_names_no_build_is_refused(tmp_path: Path, text: str) -> None:
    store = Store(tmp_path)
    with store.locked():
        store.current_file.parent.mkdir()
        store.current_file.write_text(text)
    with pytest.raises(StoreError, match="CURRENT"):
        store.current_build()


def test_every_space_has_a_directory_of_its_own() -> None:
    keys = {
        VectorSpace(model, revision, dim, preprocessing).key
        for model in ("a/b", "a--b", "/models/a/b")
        for revision in ("1", "2")
        for dim in (4, 5)
        for preprocessing in ("p", "q")
    }
    assert len(keys) == 24
    assert all("/" not in key for key in keys)
