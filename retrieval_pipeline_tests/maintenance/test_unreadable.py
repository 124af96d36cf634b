"""A file that cannot be read is not damaged: it is reported, and a repair touches nothing."""

import errno
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import StoreError, UnreadableError
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.maintenance.repair import repair
from retrieval_pipeline.maintenance.verify import check_builds, verify
from retrieval_pipeline.recommend.votes import add_judgements
from retrieval_pipeline.storage.schemas import MANIFEST
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, read_space, read_table
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline_tests.support.library import settings_of
from synthetic.faulty_system import compiler, faulty_environment
from synthetic.tables import content, random_vectors, write_manifest, write_part

# Each test starts programs or indexes pictures.
pytestmark = pytest.mark.slow

DIM = 16
SPACE = VectorSpace("test/model", "r1", DIM, "p")
NOBODY = 65534

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="takes root, to become another user")


# `retrieval verify --repair`, whose children fail as well: they inherit what is to fail.
VERIFY = """
import sys
from retrieval_pipeline import processes
from retrieval_pipeline.cli.main import main
processes.INHERITED_PREFIXES += ("FAULTS",)
sys.argv[1:] = ["verify", "--repair"]
main()
"""


@pytest.fixture
def root() -> Iterator[Path]:
    """A directory that every user can reach."""
    directory = Path(tempfile.mkdtemp())
    directory.chmod(0o755)
    yield directory
    shutil.rmtree(directory)


@pytest.fixture
def settings(root: Path) -> Settings:
    (root / "pictures").mkdir()
    settings = settings_of(root / "home", a=root / "pictures")
    (root / "retrieval.toml").write_text(
        'home = "home"\nmodel = "offline"\n[[sources]]\nname = "a"\npath = "pictures"\n'
    )
    store = Store(settings.home)
    with store.locked():
        write_manifest(store, "a", {f"{name}.jpg": name for name in "abcd"})
        write_part(store, SPACE, "a", "abcd", random_vectors(4, DIM))
        build_index(store, SPACE, ["a"])
    add_judgements(store, "taste", [(content("a"), True)])
    store.saved_query("cats").parent.mkdir()
    store.saved_query("cats").write_text('{"asked": "", "hits": {}}')
    return settings


@pytest.fixture
def store(settings: Settings) -> Store:
    return Store(settings.home)


def tree(store: Store) -> dict[str, bytes]:
    """Every file of home but the lock, which holds the id of its last owner."""
    return {
        str(path.relative_to(store.home)): path.read_bytes()
        for path in store.home.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def as_user(task: Callable[[], None]) -> None:
    """Run `task` in a fork as a user who owns nothing; what it asserts must hold."""
    pid = os.fork()
    if not pid:
        status = 1
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            task()
            status = 0
        finally:
            if status:
                traceback.print_exc()
            os._exit(status)
    assert os.waitpid(pid, 0)[1] == 0


def give(store: Store, user: int) -> None:
    for path in (store.home, *store.home.rglob("*")):
        os.chown(path, user, user)


@pytest.mark.skipif(compiler() is None, reason="takes a C compiler, for calls that fail")
@pytest.mark.parametrize(
    ("call", "folder", "code", "message"),
    [
        ("read", "manifest", errno.EIO, "Input/output error"),
        ("read", "embeddings", errno.ESTALE, "Stale file handle"),
        ("read", "index", errno.EIO, "Input/output error"),
        ("read", "judgements", errno.ETIMEDOUT, "Connection timed out"),
        ("read", "saved", errno.EIO, "Input/output error"),
        ("mmap", "index", errno.ENOMEM, "Cannot allocate memory"),
        ("mmap", "index", errno.ENODEV, "cannot map files into memory"),
    ],
)
def test_a_system_that_refuses_to_read_stops_a_repair(
    store: Store, root: Path, call: str, folder: str, code: int, message: str
) -> None:
    before = tree(store)
    done = subprocess.run(
        [sys.executable, "-c", VERIFY],
        cwd=root,
        env=faulty_environment(root / "faulty.so", store.home / folder, **{call: code}),
        capture_output=True,
        text=True,
    )
    output = done.stdout + done.stderr
    assert done.returncode == 1
    assert message in output
    assert "nothing was repaired" in output
    assert "--repair" not in output
    assert "Traceback" not in output
    assert tree(store) == before


def test_too_many_open_files_stop_a_repair(store: Store) -> None:
    before = tree(store)
    # Few enough that some check of the builds' files fails, in the process or in its child.
    for most in (8, 16):
        code = (
            "import resource; from pathlib import Path\n"
            "from retrieval_pipeline.storage.store import Store\n"
            "from retrieval_pipeline.index.build import Build\n"
            "from retrieval_pipeline.errors import UnreadableError\n"
            f"build, = Store(Path({str(store.home)!r})).all_builds(); kept = []\n"
            f"resource.setrlimit(resource.RLIMIT_NOFILE, ({most}, {most}))\n"
            "try:\n"
            "    for _ in range(20): kept.append(Build.open(build))\n"
            "except UnreadableError as error: print(error)\n"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
        assert "Too many open files" in done.stdout, done.stderr
    assert tree(store) == before


def test_without_room_for_a_table_it_is_not_damaged(store: Store) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    files = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, hard))
        with pytest.raises(OSError, match="Too many open files"):
            while True:
                files.append(store.manifest("a").open("rb"))
        for read in (
            lambda: read_table(store.manifest("a"), MANIFEST),
            lambda: read_space(store.parts(SPACE)[0]),
            lambda: list(verify(store)),
            lambda: list(check_builds(store.all_builds())),
        ):
            with pytest.raises(UnreadableError, match="Too many open files"):
                read()
    finally:
        for file in files:
            file.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@needs_root
@pytest.mark.parametrize(
    "name", ["manifest/*", "embeddings/*/*/*", "judgements/taste*", "saved/*", "index/CURRENT"]
)
def test_a_file_without_permission_stops_a_repair(
    settings: Settings, store: Store, name: str
) -> None:
    # Whether a process can be started to check builds is another question.
    shutil.rmtree(store.all_builds()[0].parent)
    before = tree(store)
    give(store, NOBODY)
    (file,) = store.home.glob(name)
    file.chmod(0)

    def try_to() -> None:
        with pytest.raises(UnreadableError, match=r"nothing was repaired.*Permission denied"):
            repair(settings)

    as_user(try_to)
    assert tree(store) == before


@needs_root
@pytest.mark.parametrize(
    "name",
    [
        "*Z-*/build.json",
        "*Z-*/runs.npy",
        "blocks/*.arrow",
        "segments/*/*.json",
        "segments/*/vectors.npy",
    ],
)
def test_a_build_without_permission_is_not_damaged(store: Store, name: str) -> None:
    (build,) = store.all_builds()
    give(store, NOBODY)
    file = next(each for each in build.parent.glob(name) if each.name != "checked.json")
    file.chmod(0)

    def open_it() -> None:
        with pytest.raises(UnreadableError, match=f"{file.name}: cannot be read: Perm"):
            Build.open(build, rehash=True)

    as_user(open_it)


@needs_root
@pytest.mark.parametrize("name", ["manifest", "embeddings", "embeddings/*/a", "index", "index/*@*"])
def test_a_directory_that_cannot_be_listed_is_not_empty(store: Store, name: str) -> None:
    (directory,) = store.home.glob(name)
    give(store, NOBODY)
    directory.chmod(0)

    def look() -> None:
        for task in (lambda: list(verify(store)), lambda: read_manifest(store, "a")):
            try:
                task()
            except UnreadableError as error:
                assert "Permission denied" in str(error)
                return
        raise AssertionError("nothing was noticed")

    as_user(look)


@needs_root
def test_a_repair_by_another_user_changes_nothing(settings: Settings, store: Store) -> None:
    store.manifest("a").write_bytes(b"damaged")
    before = tree(store)
    give(store, NOBODY)
    with pytest.raises(StoreError, match="belongs to the user with the id 65534"):
        repair(settings)
    assert tree(store) == before


@needs_root
def test_a_repair_that_may_write_only_half_of_home_changes_nothing(
    settings: Settings, store: Store
) -> None:
    shutil.rmtree(store.home / "index")
    store.manifest("a").write_bytes(b"damaged")
    before = tree(store)
    give(store, NOBODY)
    store.parts(SPACE)[0].parent.chmod(0o555)

    def try_to() -> None:
        with pytest.raises(StoreError, match="may not be written: nothing was repaired"):
            repair(settings)

    as_user(try_to)
    assert tree(store) == before


def test_a_reader_that_the_system_ended_says_nothing_about_the_build(
    store: Store, root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (root / "code").mkdir()
    (root / "code" / "sitecustomize.py").write_text(
        "import os, signal, sys\n"
        "if any('retrieval_pipeline.maintenance.verify' in each for each in sys.orig_argv):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(root / "code"), prepend=os.pathsep)
    (finding,) = check_builds(store.all_builds())
    assert finding.unreadable
    assert "ended with exit code -9" in str(finding.problem)


def test_a_build_that_can_be_read_opens(store: Store) -> None:
    assert len(Build.open(store.all_builds()[0], rehash=True)) == 4
