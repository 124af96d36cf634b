"""File systems without locks, without mapping, without sync of directories, or that fail."""

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from synthetic.faulty_system import (
    NO_DIRECTORY_SYNC,
    NO_LOCKS,
    NO_MAPPING,
    compiler,
    faulty_environment,
)
from synthetic.tables import random_vectors, write_manifest, write_part

pytestmark = pytest.mark.skipif(
    compiler() is None, reason="takes a C compiler, for calls that fail"
)

SPACE = VectorSpace("test/model", "r1", 16, "p")
HOLD = """
import sys, time
from pathlib import Path
from retrieval_pipeline.storage.store import Store
with Store(Path(sys.argv[1])).{lock}():
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """Two small parts, which `gc` makes one."""
    store = Store(tmp_path / "home")
    write_manifest(store, "a", {"x.jpg": "x", "y.jpg": "y"})
    for name in "xy":
        write_part(store, SPACE, "a", name, random_vectors(1, 16))
    (tmp_path / "pictures").mkdir()
    (tmp_path / "retrieval.toml").write_text(
        'home = "home"\nmodel = "offline"\n[[sources]]\nname = "a"\npath = "pictures"\n'
    )
    return store.home


def gc(home: Path, **faults: int) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "retrieval_pipeline", "gc"],
        cwd=home.parent,
        env=faulty_environment(home.parent / "faulty.so", home, **faults),
        capture_output=True,
        text=True,
    )


def holder(home: Path, lock: str = "locked") -> "subprocess.Popen[str]":
    """Start a process that holds a lock where there is no flock, until its input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(lock=lock), str(home)],
        env=faulty_environment(home.parent / "faulty.so", home, **NO_LOCKS),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


@pytest.mark.parametrize("faults", [NO_LOCKS, NO_DIRECTORY_SYNC], ids=["flock", "fsync"])
def test_a_home_works_without(home: Path, faults: dict[str, int]) -> None:
    done = gc(home, **faults)
    assert (done.returncode, done.stderr) == (0, "")
    assert [part.name for part in Store(home).parts(SPACE)] == ["part-000001-000002.parquet"]
    assert not list(home.rglob("*.owner"))


def test_without_flock_a_second_writer_is_told_who_writes(home: Path) -> None:
    with holder(home) as first:
        done = gc(home, **NO_LOCKS)
        assert done.returncode == 1
        assert f"written by another run (process {first.pid} on {os.uname().nodename}" in (
            done.stderr
        )
        assert first.stdin
        first.stdin.close()
        first.wait()
    assert gc(home, **NO_LOCKS).returncode == 0


def test_without_flock_the_lock_of_a_dead_process_is_free(home: Path) -> None:
    with holder(home) as first:
        first.send_signal(signal.SIGKILL)
        first.wait()
    assert (home / "lock.owner").exists()
    assert gc(home, **NO_LOCKS).returncode == 0
    assert not (home / "lock.owner").exists()


def test_without_flock_the_lock_of_another_machine_is_free_when_it_was_not_touched(
    home: Path,
) -> None:
    owner = home / "lock.owner"
    owner.write_text('{"machine": "elsewhere", "pid": 1, "started": "1"}')
    done = gc(home, **NO_LOCKS)
    assert "written by another run (process 1 on elsewhere)" in done.stderr
    os.utime(owner, (time.time() - 3600,) * 2)
    assert gc(home, **NO_LOCKS).returncode == 0
    assert not owner.exists()


def test_without_flock_one_votes_after_the_other(home: Path) -> None:
    with (
        holder(home, "writing_user_data") as first,
        subprocess.Popen(
            [sys.executable, "-c", HOLD.format(lock="writing_user_data"), str(home)],
            env=faulty_environment(home.parent / "faulty.so", home, **NO_LOCKS),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as second,
    ):
        assert first.stdin and second.stdout and second.stdin
        owner = home / "judgements" / "lock.owner"
        assert f'"pid":{first.pid}' in owner.read_text()
        first.stdin.close()
        assert second.stdout.readline() == "held\n"
        assert f'"pid":{second.pid}' in owner.read_text()
        second.stdin.close()


@pytest.mark.parametrize(
    ("faults", "message"),
    [
        (NO_MAPPING, "its file system cannot map files into memory, which a home needs"),
        ({"flock": errno.EIO}, "lock: cannot be locked: Input/output error"),
        ({"fsync": errno.EIO}, "cannot be written: Input/output error"),
        ({"rename": errno.EPERM}, "cannot be written: Operation not permitted"),
        ({"read": errno.EIO}, "cannot be read: Input/output error"),
    ],
)
def test_a_home_that_cannot_be_used_is_one_line_and_stays_as_it_is(
    home: Path, faults: dict[str, int], message: str
) -> None:
    parts = {part: part.read_bytes() for part in Store(home).parts(SPACE)}
    done = gc(home, **faults)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert message in done.stderr
    assert {part: part.read_bytes() for part in Store(home).parts(SPACE)} == parts
