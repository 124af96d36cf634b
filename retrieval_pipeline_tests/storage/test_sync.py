"""A home in a bucket, used by several machines: each has a cache directory of its own."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.index import tiers
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.ingest.embed import embedded_ids
from retrieval_pipeline.maintenance.verify import verify
from retrieval_pipeline.pipeline.run import index_sources
from retrieval_pipeline.recommend.votes import add_judgements, read_judgements
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage import lease
from retrieval_pipeline.storage import sync as mirror
from retrieval_pipeline.storage.albums import add_to_album
from retrieval_pipeline.storage.atomic import discard, new_directory
from retrieval_pipeline.storage.home import MARKER
from retrieval_pipeline.storage.remote import Remote
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest
from retrieval_pipeline.vectors import VectorSpace
from synthetic.tables import random_vectors, write_manifest, write_part

pytestmark = pytest.mark.slow

Bucket = Callable[[str], str]
Machine = Callable[[str], Store]

SPACE = VectorSpace("tiny", "1", 8, "none")


@pytest.fixture
def home(bucket: Bucket, monkeypatch: pytest.MonkeyPatch) -> Remote:
    monkeypatch.setattr(mirror, "FRESH_SECONDS", 0.0)
    return Remote(bucket("home"))


@pytest.fixture
def machine(home: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    """From the name of a machine to the store as it sees it."""

    def store(name: str) -> Store:
        monkeypatch.setenv("RETRIEVAL_CACHE", str(tmp_path / name))
        store = Store(home)
        assert store.home.is_relative_to(tmp_path / name)
        return store

    return store


def keys(home: Remote) -> list[str]:
    return [info.path for info in home.files(missing_ok=True)]


def add_part(store: Store, *names: str) -> None:
    write_part(store, SPACE, "here", names, random_vectors(len(names), SPACE.dim))


def test_one_machine_indexes_and_another_answers(
    home: Remote, machine: Machine, sample_photos: dict[str, Path], bucket: Bucket
) -> None:
    pictures = Remote(bucket("pictures"))
    for name in ("cat", "rocket"):
        (pictures / f"{name}{sample_photos[name].suffix}").upload(sample_photos[name])
    settings = Settings.model_validate(
        {
            "home": home.url_with_credentials(),
            "model": "offline",
            "device": "cpu",
            "sources": [{"name": "far", "path": pictures.url_with_credentials()}],
        }
    )
    first = machine("first")
    index_sources(settings)
    second = machine("second")
    assert not second.home.exists()
    hit = Searcher.open(settings).search(Query(text="a cat"), k=1)[0]
    assert str(hit.path) == f"{pictures}/cat.png"
    assert not second.manifests(), "who only asks fetches no tables"
    report = index_sources(settings)
    assert (report.manifests[0].unchanged, report.embeddings[0].known) == (2, 2)
    assert not report.build.published
    assert not any(finding.problem for finding in verify(second))
    assert not [key for key in keys(home) if "claims" in key or key.endswith("lock")]
    assert first.home != second.home


def test_machines_take_turns_and_see_what_the_other_did(home: Remote, machine: Machine) -> None:
    first = machine("first")
    with first.locked():
        write_manifest(first, "here", {"a.jpg": "a", "b.jpg": "b"})
        add_part(first, "a")
    second = machine("second")
    with second.locked():
        assert len(embedded_ids(second, SPACE)) == 1
        add_part(second, "b")
        discard(second.manifest("here"))
    with first.locked():
        assert len(embedded_ids(first, SPACE)) == 2
        assert [part.name for part in first.parts(SPACE)] == [
            "part-000001.parquet",
            "part-000002.parquet",
        ]
        assert not first.manifest("here").exists()


def test_a_build_that_was_removed_goes_from_every_copy(machine: Machine) -> None:
    first, second = machine("first"), machine("second")
    with (
        first.locked(),
        new_directory(first.new_build(SPACE, "20250101T101010Z-0123abcd")) as build,
    ):
        (build / "build.json").write_text("{}")
    with second.locked():
        (old,) = second.all_builds()
        assert (old / "build.json").read_text() == "{}"
        (old / "checked.json").write_text("what this machine hashed")
    with first.locked():
        discard(first.all_builds()[0])
    with second.locked():
        assert not second.all_builds()


def test_one_machine_merges_segments_while_another_answers(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tiers, "FACTOR", 2)
    first, second = machine("first"), machine("second")

    def add(store: Store, names: str) -> None:
        with store.locked():
            vectors = random_vectors(3, SPACE.dim, seed=len(names))
            write_part(store, SPACE, "here", names[-3:], vectors)
            write_manifest(store, "here", {f"{each}.jpg": each for each in names})
            build_index(store, SPACE, ["here"])

    add(first, "abc")
    answering = open_current(second)
    add(first, "abcdef")
    (merged,) = open_current(first).info.segments
    assert merged.rows == 6
    assert answering.best(answering.vectors(np.array([2]))[0], 9)[0].tolist()[0] == 2
    after = open_current(second)
    assert after.info.segments[0].name == merged.name
    assert after.scan(after.vectors(np.arange(6))).argmax(axis=0).tolist() == [*range(6)]
    # The other goes on with what the first merged.
    add(second, "abcdefghi")
    assert sum(entry.alive for entry in open_current(first).info.segments) == 9


def test_copies_have_the_times_of_the_bucket(home: Remote, machine: Machine) -> None:
    first, second = machine("first"), machine("second")
    with first.locked():
        write_manifest(first, "here", {"a.jpg": "a"})
    with second.locked():
        info = (home / "manifest/here.parquet").info()
        assert second.manifest("here").stat().st_mtime_ns == info.mtime_ns


def test_two_machines_never_write_at_a_time(machine: Machine) -> None:
    first, second = machine("first"), machine("second")
    busy = pytest.raises(StoreError, match=r"being written by another run \(.*, process \d+\)")
    with first.locked(), busy, second.locked():
        pass
    with second.locked():
        pass


def test_the_claim_of_a_dead_run_ends(
    home: Remote, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    (home / "claims/manifest/dead").write(b"elsewhere, process 1")
    with pytest.raises(StoreError, match="elsewhere, process 1"), machine("first").locked():
        pass
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.5)
    time.sleep(1.1)  # The clock is that of the bucket, whose times are whole seconds.
    with machine("first").locked():
        assert "claims/manifest/dead" not in keys(home)


@pytest.mark.parametrize("sign", ["claim", "fence"])
def test_a_run_that_was_taken_for_dead_uploads_nothing(
    home: Remote, machine: Machine, sign: str
) -> None:
    store = machine("first")
    with pytest.raises(StoreError, match="taken for dead"), store.locked():
        (claim,) = (key for key in keys(home) if key.startswith("claims/"))
        if sign == "claim":
            (home / claim).delete()
        else:
            (home / "fences/manifest").write(b"another run")
        add_part(store, "a")
    assert keys(home) == ["fences/manifest", MARKER]


def test_a_run_that_slept_past_its_claim_publishes_nothing(
    home: Remote, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = machine("first")
    with first.locked():
        write_manifest(first, "here", {"a.jpg": "a"})
    script = """
import sys
from retrieval_pipeline.storage import sync as mirror
mirror.PUSH_SECONDS = 0.2
from retrieval_pipeline_tests.storage.test_sync import Remote, Store, add_part, write_manifest
store = Store(Remote(sys.argv[1]))
with store.locked():
    print("works", flush=True)
    sys.stdin.readline()
    write_manifest(store, "here", {"late.jpg": "late"})
    add_part(store, "late")
"""
    sleeper = subprocess.Popen(
        [sys.executable, "-c", script, home.url_with_credentials()],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert sleeper.stdout is not None and sleeper.stdout.readline() == "works\n"
    sleeper.send_signal(signal.SIGSTOP)
    monkeypatch.setattr(lease, "STALE_SECONDS", 0.5)
    time.sleep(2.1)  # The clock is that of the bucket, whose times are whole seconds.
    second = machine("second")
    with second.locked():
        sleeper.send_signal(signal.SIGCONT)
        time.sleep(1)  # It would renew its claim now.
        write_manifest(second, "here", {"new.jpg": "new"})
    assert not [key for key in keys(home) if key.startswith("claims/")], "the claim was renewed"
    _, errors = sleeper.communicate("go on\n", timeout=60)
    assert "was taken for dead" in errors
    third = machine("third")
    with third.locked():
        assert read_manifest(third, "here")["path"].to_pylist() == ["new.jpg"]
        assert not third.parts(SPACE)


STRANGE_KEYS = [
    "manifest/../../../../outside.parquet",
    "manifest//outside.parquet",
    "manifest/../lock",
    "manifest/./b.parquet",
    "manifest/a\\b.parquet",
    "manifest/two\nlines.parquet",
    "manifest/\N{RIGHT-TO-LEFT OVERRIDE}.parquet",
    "manifest/with space.parquet",
    "manifest/lock",
    "judgements/lock",
    "index/space/build/checked.json",
    "index/one/two/three/four/five",
    f"index/{'x' * 300}",
]


@pytest.mark.parametrize("key", STRANGE_KEYS)
def test_only_keys_that_the_store_makes_are_fetched(
    home: Remote,
    machine: Machine,
    put_key: Callable[[str, str, bytes], None],
    tmp_path: Path,
    key: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    first = machine("first")
    with first.locked():
        write_manifest(first, "here", {"a.jpg": "a"})
    put_key(home.url_with_credentials(), key, b"from somebody else")
    # This one is listed as the directory itself.
    put_key(home.url_with_credentials(), "manifest//", b"from somebody else")
    second = machine("second")
    with second.locked():
        assert read_manifest(second, "here")["path"].to_pylist() == ["a.jpg"]
    with second.writing_user_data():
        pass
    assert second.current_build() is None
    held = {path for path in tmp_path.rglob("*") if path.is_file()}
    assert not [path for path in held if path.read_bytes() == b"from somebody else"]
    assert key in keys(home)
    assert "not a name that this program makes: left alone" in caplog.text


def test_a_key_below_another_file_is_one_line(home: Remote, machine: Machine) -> None:
    (home / mirror.MARKER).write(b"")
    for key in ("map/build", "map/build/map.html"):
        (home / key).write(b"x")
    with pytest.raises(StoreError) as raised, machine("first").locked():
        pass
    assert "\n" not in str(raised.value)


OLD, NEW = "20250101T101010Z-0123abcd", "20250102T101010Z-0123abcd"


def test_a_clock_that_was_set_back_hides_no_new_build(
    home: Remote, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "FRESH_SECONDS", 10.0)
    first, second = machine("first"), machine("second")
    with first.locked():
        first.publish(first.new_build(SPACE, OLD))
    old = second.current_build()
    assert old is not None and old.name == OLD
    with first.locked():
        first.publish(first.new_build(SPACE, NEW))
    ahead = time.time() + 3600
    os.utime(second.home / "mirror" / "refreshed", (ahead, ahead))
    new = second.current_build()
    assert new is not None and new.name == NEW


def test_a_killed_run_keeps_what_was_uploaded_and_nothing_twice(
    home: Remote, machine: Machine, tmp_path: Path
) -> None:
    store = machine("first")
    script = """
import sys, time
from retrieval_pipeline.storage import lease
from retrieval_pipeline.storage import sync as mirror
mirror.PUSH_SECONDS = 0.2
from retrieval_pipeline_tests.storage.test_sync import Remote, Store, add_part
store = Store(Remote(sys.argv[1]))
with store.locked():
    add_part(store, "a")
    print("made", flush=True)
    time.sleep(60)
"""
    run = subprocess.Popen(
        [sys.executable, "-c", script, home.url_with_credentials()], stdout=subprocess.PIPE
    )
    assert run.stdout is not None and run.stdout.readline() == b"made\n"
    part = store.parts(SPACE)[0].relative_to(store.home).as_posix()
    while part not in keys(home):
        assert run.poll() is None
        time.sleep(0.1)
    run.send_signal(signal.SIGKILL)
    run.wait()
    run.stdout.close()
    add_part(store, "b")  # As if it had died before it could upload this.
    with pytest.raises(StoreError, match="being written by another run"), machine("third").locked():
        pass
    with store.locked():  # The claim that it left is of this machine, which holds the lock now.
        assert len(embedded_ids(store, SPACE)) == 1
        add_part(store, "b")
    other = machine("second")
    with other.locked():
        assert len(embedded_ids(other, SPACE)) == 2


def test_votes_and_albums_of_several_machines_all_count(machine: Machine) -> None:
    first, second = machine("first"), machine("second")
    add_judgements(first, "suns", [("a" * 32, True)])
    add_judgements(second, "suns", [("b" * 32, False)])
    add_judgements(first, "suns", [("c" * 32, True)])
    assert len(read_judgements(first, "suns")) == 3
    add_to_album(first, "suns", {"a" * 32: None})
    assert len(add_to_album(second, "suns", {"b" * 32: None})) == 2


def test_a_bucket_that_was_emptied_empties_no_copy(home: Remote, machine: Machine) -> None:
    store = machine("first")
    with store.locked():
        write_manifest(store, "here", {"a.jpg": "a"})
    for key in keys(home):
        (home / key).delete()
    with pytest.raises(StoreError, match="is empty now, and was not"), store.locked():
        pass
    assert len(read_manifest(store, "here")) == 1


def test_a_home_out_of_reach_is_one_line(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine("first")
    far = Store(Remote("s3://bucket/x?endpoint_override=127.0.0.1:9&scheme=http&region=us-east-1"))
    refused = pytest.raises(StoreError, match=r"^the home cannot be used: s3://bucket/x")
    with refused as raised, far.locked():
        pass
    assert "\n" not in str(raised.value)


def test_the_copy_lies_in_the_cache_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("RETRIEVAL_CACHE", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    here = Store(Remote("s3://bucket/x?region=a")).home
    assert here.parent == tmp_path / "retrieval"
    assert here == Store(Remote("s3://key:secret@bucket/x")).home
    assert here != Store(Remote("s3://bucket/y")).home
    # The name of a bucket means something else at another service, and a path to another user.
    places = [
        "s3://bucket/x?endpoint_override=one.example",
        "s3://bucket/x?endpoint_override=two.example",
        "s3://bucket/x?endpoint_override=two.example&scheme=http",
        "abfs://one@account/x",
        "abfs://two@account/x",
        "sftp://one:secret@host/x",
        "sftp://two:secret@host/x",
    ]
    homes = {Store(Remote(place)).home for place in places}
    assert len(homes | {here}) == len(places) + 1
    again = Remote("s3://key:secret@bucket/x?region=b&endpoint_override=one.example")
    assert Store(again).home in homes
