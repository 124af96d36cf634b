"""Publication to Milvus Lite; `search/test_milvus_server.py` publishes to a server."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from retrieval_pipeline.config.settings import IndexSettings
from retrieval_pipeline.errors import EngineError
from retrieval_pipeline.facts.model import PictureFacts
from retrieval_pipeline.index.builder import RefusedBuildError
from retrieval_pipeline.index.milvus import checks, filling
from retrieval_pipeline.index.milvus.client import Client
from retrieval_pipeline.index.milvus.collections import ledgers
from retrieval_pipeline.index.milvus.publication import PublicationReport, publish
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace
from retrieval_pipeline.views import View, further_views
from retrieval_pipeline_tests.support.milvus import no_waiting
from synthetic.tables import (
    content,
    random_vectors,
    write_facts,
    write_manifest,
    write_part,
    write_view_part,
)

__all__ = ["no_waiting"]

pytestmark = pytest.mark.slow

DIM = 8
BLUE = VectorSpace("made-up", "1", DIM, "p")
OTHER = VectorSpace("made-up", "2", 4, "p")
NAMES = [f"picture {number}" for number in range(30)]
ALIAS = "retrieval"
INDEX = IndexSettings(engine="milvus", uri="x.db", index_type="FLAT")


def files_of(names: list[str], folder: str = "a") -> dict[str, str]:
    return {f"{folder}/{name}.jpg": name for name in names}


def encode(texts: Any) -> Vectors:
    return random_vectors(len(texts), DIM, seed=9)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    store = Store(tmp_path / "home")
    vectors = random_vectors(len(NAMES), DIM)
    write_part(store, BLUE, "s", NAMES[:20], vectors[:20])
    write_part(store, BLUE, "s", NAMES[20:], vectors[20:])
    write_manifest(store, "s", files_of(NAMES[:25]))
    return store


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with Client(str(tmp_path / "engine.db"), timeout=60) as client:
        yield client


def update(store: Store, client: Client, **options: Any) -> PublicationReport:
    arguments = {"space": BLUE, "encode_texts": encode, "index": INDEX, **options}
    with store.locked():
        return publish(
            store,
            client,
            arguments.pop("space"),
            ["s"],
            arguments.pop("index"),
            **arguments,
        )


def held(client: Client, collection: str = ALIAS) -> dict[str, dict[str, Any]]:
    """Everything that a collection holds, by primary key; fails if a key is there twice."""
    name = client.collection_of(collection) or collection
    client.load_collection(name)
    rows = client.query(name, filter='id != ""', output_fields=["*"], limit=1000)
    found = {row["id"]: dict(row) for row in rows}
    assert len(found) == len(rows)
    return found


def axis(number: int) -> list[float]:
    return [float(each == number) for each in range(DIM)]


def ids(names: list[str]) -> set[str]:
    return {content(name) for name in names}


def test_only_differences_are_sent_and_the_former_collection_stays_as_it_was(
    store: Store, client: Client
) -> None:
    first = update(store, client)
    assert (first.published, first.info.sent, first.info.recall_at_10) == (True, 25, 1.0)
    assert not update(store, client).published
    write_manifest(store, "s", files_of(NAMES[2:27]))
    waiting = update(store, client, move=False)
    assert (waiting.published, client.collection_of(ALIAS)) == (False, first.collection)
    second = update(store, client)
    assert (second.published, second.info) == (True, waiting.info)
    assert second.collection != first.collection
    assert held(client).keys() == ids(NAMES[2:27])
    assert held(client, first.collection).keys() == ids(NAMES[:25])
    # One has moved since this collection answered, two are new, three have gone.
    write_manifest(store, "s", files_of(NAMES[4:27]) | {"b/moved.jpg": NAMES[3]})
    third = update(store, client)
    assert third.collection == first.collection
    assert (third.info.sent, third.info.deleted) == (3, 3)
    assert held(client).keys() == ids(NAMES[3:27])
    assert held(client)[content(NAMES[3])]["path"] == "b/moved.jpg"


def test_rows_tell_what_the_tables_do(store: Store, client: Client) -> None:
    facts = PictureFacts(camera_make="Nikon", camera_model="D750", keywords=("Tree",), rating=4)
    write_facts(store, "s", {"a/picture 1.jpg": facts})
    view = View(0.0, 0.0, 0.5, 1.0)
    write_manifest(store, "s", files_of(NAMES[:25]) | {"b/copy.jpg": NAMES[1]})
    write_part(store, BLUE, "s", ["wide"], random_vectors(1, DIM, 5), size=(4000, 500))
    views = further_views(4000, 500, "whole", own_is_cropped=False)
    vectors = random_vectors(len(views), DIM, 6)
    write_view_part(store, BLUE, "s", [("wide", each) for each in views], vectors)
    write_manifest(store, "s", files_of([*NAMES[:25], "wide"]) | {"b/copy.jpg": NAMES[1]})
    info = update(store, client).info
    assert (info.items, info.views, info.locations) == (26, len(views), 27)
    rows = held(client)
    row = rows[content(NAMES[1])]
    assert (row["source"], row["path"], row["name"], row["files"]) == (
        "s",
        "a/picture 1.jpg",
        "picture 1.jpg",
        2,
    )
    assert (row["keywords"], row["rating"], row["view"]) == (["tree"], 4, 0)
    assert row["shown"]["facts"]["keywords"] == ["Tree"]
    assert [path for _, path, *_ in row["shown"]["locations"]] == ["a/picture 1.jpg", "b/copy.jpg"]
    further = rows[f"{content('wide')}#2"]
    assert np.allclose(further["vector"], vectors[1].astype(np.float16), atol=1e-6)
    assert View(*further["shown"]["view"]) == views[1] != view


class Killed(BaseException):
    """Ends a publication as a kill does: nothing of the program handles it."""


class Dying:
    """A client that dies at its n-th call that changes something, before it or after it."""

    def __init__(self, client: Client, at: int, *, after: bool) -> None:
        self.client, self.at, self.after = client, at, after
        self.changes: tuple[str, ...] = (
            *("upsert", "delete", "flush", "create_collection", "drop_collection"),
            *("create_alias", "alter_alias", "load_collection"),
        )
        self.sent = 0

    def __getattr__(self, name: str) -> Any:
        method: Callable[..., Any] = getattr(self.client, name)
        if name not in self.changes:
            return method

        def called(*args: Any, **kwargs: Any) -> Any:
            self.at -= 1
            if self.at == 0 and not self.after:
                raise Killed
            if name == "upsert" and "about" not in args[0]:
                self.sent += len(args[1])
            result = method(*args, **kwargs)
            if self.at == 0:
                raise Killed
            return result

        return called


@pytest.mark.parametrize("after", [False, True])
def test_killed_at_one_call_after_another_it_goes_on_and_each_row_is_there_once(
    store: Store, client: Client, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    monkeypatch.setattr(filling, "CALL_BYTES", 4 * (4 * DIM + filling.ROW_BYTES))
    monkeypatch.setattr(filling, "ROWS_IN_MEMORY", 8)
    monkeypatch.setattr(filling, "SAMPLE_PICTURES", 4)
    update(store, client, encode_texts=None)
    before = held(client)
    write_manifest(store, "s", files_of(NAMES[3:], "b"))
    sent, kills = 0, 0
    while True:
        dying = Dying(client, kills + 1, after=after)
        try:
            update(store, dying, encode_texts=None)  # type: ignore[arg-type]
            break
        except Killed:
            kills += 1
            sent += dying.sent
            # Until the alias moves, which may be the last call, the former pictures answer.
            assert held(client).keys() in (before.keys(), ids(NAMES[3:]))
    assert kills >= 8
    # What was known to have arrived was not sent again: each kill costs a few calls at most.
    assert sent < 27 + 8 * 12
    rows = held(client)
    assert rows.keys() == ids(NAMES[3:])
    assert all(row["path"].startswith("b/") for row in rows.values())


def test_what_was_sent_before_a_kill_and_is_not_wanted_any_more_is_deleted(
    store: Store, client: Client
) -> None:
    for count in (25, 26, 27):
        write_manifest(store, "s", files_of(NAMES[:count]))
        answering = update(store, client).collection
    write_manifest(store, "s", files_of(NAMES))
    assert any(_dies_in_upsert(store, client, at) for at in range(1, 100))
    # What a run has begun to change is no publication to go back to.
    assert [each.directory.name for each in ledgers(store, ALIAS) if each.published()] == [
        answering
    ]
    write_manifest(store, "s", files_of(NAMES[1:26]))
    report = update(store, client)
    # The pictures 27 to 30 had arrived, though no run had time to write that down.
    assert (report.info.sent, report.info.deleted) == (0, 5)
    assert held(client).keys() == ids(NAMES[1:26])


def test_what_was_deleted_before_a_kill_and_is_wanted_again_is_sent_again(
    store: Store, client: Client
) -> None:
    for count in (25, 26, 27):
        write_manifest(store, "s", files_of(NAMES[:count]))
        update(store, client)
    write_manifest(store, "s", files_of(NAMES[2:27]))
    # The first deletion takes back what was told of the former publication.
    dying = Dying(client, 2, after=True)
    dying.changes = ("delete",)
    with pytest.raises(Killed):
        update(store, dying)  # type: ignore[arg-type]
    write_manifest(store, "s", files_of(NAMES[:28]))
    report = update(store, client)
    assert (report.info.sent, report.info.deleted) == (3, 0)
    assert held(client).keys() == ids(NAMES[:28])


def test_what_was_overwritten_before_a_kill_and_is_wanted_as_it_was_is_sent_again(
    store: Store, client: Client
) -> None:
    """Nothing of the block has changed since it was sent, but not all of it is there any more."""
    for count in (25, 26):
        write_manifest(store, "s", files_of(NAMES[:count]))
        update(store, client)
    moved = files_of(NAMES[:4], "b") | files_of(NAMES[4:25])
    write_manifest(store, "s", moved)
    dying = Dying(client, 1, after=True)
    dying.changes = ("upsert",)
    with pytest.raises(Killed):
        update(store, dying)  # type: ignore[arg-type]
    write_manifest(store, "s", files_of(NAMES[:25]))
    report = update(store, client)
    assert (report.info.sent, report.info.deleted) == (4, 0)
    assert {row["path"][:2] for row in held(client).values()} == {"a/"}


def test_a_collection_that_lost_a_row_meanwhile_is_not_gone_back_to_as_it_is(
    store: Store, client: Client
) -> None:
    first = update(store, client)
    write_manifest(store, "s", files_of(NAMES[:26]))
    update(store, client)
    client.delete(first.collection, ids=[content(NAMES[3])])
    write_manifest(store, "s", files_of(NAMES[:25]))
    again = update(store, client)
    assert again.collection == first.collection
    assert held(client).keys() == ids(NAMES[:25])


def test_what_a_later_run_overwrote_before_it_was_killed_is_sent_again(
    store: Store, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    update(store, client)
    monkeypatch.setattr(filling, "CALL_BYTES", 4 * (4 * DIM + filling.ROW_BYTES))
    monkeypatch.setattr(filling, "ROWS_IN_MEMORY", 8)
    # The first run writes down that eight rows have arrived, the second overwrites some of them.
    for folder, calls in (("b", 4), ("c", 1)):
        write_manifest(store, "s", files_of(NAMES[:25], folder))
        dying = Dying(client, calls, after=True)
        dying.changes = ("upsert",)
        with pytest.raises(Killed):
            update(store, dying)  # type: ignore[arg-type]
    write_manifest(store, "s", files_of(NAMES[:25], "b"))
    update(store, client)
    assert {row["path"][0] for row in held(client).values()} == {"b"}


def _dies_in_upsert(store: Store, client: Client, at: int) -> bool:
    dying = Dying(client, at, after=True)
    with pytest.raises(Killed):
        update(store, dying)  # type: ignore[arg-type]
    return dying.sent > 0


CHILD = """
import os, signal, sys
from pathlib import Path
from retrieval_pipeline_tests.index.milvus import test_publication as tests
from retrieval_pipeline.index.milvus import checks, filling
filling.CALL_BYTES = 4 * (4 * tests.DIM + filling.ROW_BYTES)
filling.ROWS_IN_MEMORY = 8
client = tests.Client(sys.argv[2], timeout=60)
upsert, calls = client.upsert, []
def dying(name, rows, **options):
    result = upsert(name, rows, **options)
    calls.append(name)
    if len([each for each in calls if "about" not in each]) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
    return result
client.upsert = dying
tests.update(tests.Store(Path(sys.argv[1])), client)
"""


def test_a_process_that_was_killed_while_it_sent_leaves_what_the_next_one_completes(
    store: Store, tmp_path: Path
) -> None:
    file = tmp_path / "engine.db"
    child = subprocess.run(
        [sys.executable, "-c", CHILD, str(store.home), str(file)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        check=False,
        timeout=300,
    )
    assert child.returncode == -signal.SIGKILL
    with Client(str(file), timeout=60) as client:
        assert client.collection_of(ALIAS) is None
        report = update(store, client)
        assert report.info.sent < 25
        assert held(client).keys() == ids(NAMES[:25])


def test_readers_see_the_former_or_the_new_pictures_while_the_alias_moves(
    store: Store, client: Client
) -> None:
    update(store, client)
    seen, ended = set(), threading.Event()
    problems: list[Exception] = []

    def ask() -> None:
        while not ended.wait(0.01):
            try:
                (found,) = client.query(ALIAS, filter="", output_fields=["count(*)"])
                seen.add(found["count(*)"])
            except Exception as error:  # noqa: BLE001
                problems.append(error)

    reader = threading.Thread(target=ask)
    reader.start()
    try:
        for count in (28, 26):
            write_manifest(store, "s", files_of(NAMES[:count]))
            update(store, client)
    finally:
        ended.set()
        reader.join()
    assert not problems
    assert seen <= {25, 28, 26}
    assert len(held(client)) == 26


def test_another_model_fills_a_collection_of_its_own(store: Store, client: Client) -> None:
    former = update(store, client)
    write_part(store, OTHER, "s", NAMES, random_vectors(len(NAMES), 4))
    new = update(store, client, space=OTHER, encode_texts=None)
    assert new.published
    assert client.collection_of(ALIAS) == new.collection != former.collection
    assert len(held(client, former.collection)) == 25
    # And back: what is there of the former model is used.
    back = update(store, client)
    assert (back.published, back.info) == (True, former.info)


@pytest.mark.parametrize("change", ["row gone", "row nobody sent", "other vector"])
def test_what_was_changed_behind_the_ledgers_back_is_filled_anew(
    store: Store, client: Client, change: str
) -> None:
    update(store, client)
    write_manifest(store, "s", files_of(NAMES[:26]))
    second = update(store, client).collection
    write_manifest(store, "s", files_of(NAMES[:27]))
    third = update(store, client).collection
    row = held(client, second)[content(NAMES[0])]
    changed = {"id": content("stray")} if change == "row nobody sent" else {"vector": axis(0)}
    if change == "row gone":
        client.delete(second, ids=[row["id"]])
    else:
        client.upsert(second, [row | changed])
    write_manifest(store, "s", files_of(NAMES[:28]))
    report = update(store, client)
    assert (report.collection, report.info.sent) == (second, 28)
    assert third != second
    assert held(client).keys() == ids(NAMES[:28])


def test_a_collection_that_loses_rows_again_and_again_is_not_filled_again_and_again(
    store: Store, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    update(store, client)
    for count in (26, 27):
        write_manifest(store, "s", files_of(NAMES[:count]))
        answering = update(store, client).collection
    sent: list[int] = []
    upsert = client.upsert

    def losing(name: str, rows: list[dict[str, Any]], **options: Any) -> None:
        sent.append(len(rows))
        upsert(name, rows if "about" in name else rows[1:], **options)

    monkeypatch.setattr(client, "upsert", losing, raising=False)
    write_manifest(store, "s", files_of(NAMES[:28]))
    for rows in ([2, 1, 28], []):
        with pytest.raises(RefusedBuildError, match="anew once it is dropped in the engine"):
            update(store, client)
        assert sent == rows
        sent.clear()
    monkeypatch.undo()
    (other,) = {each.directory.name for each in ledgers(store, ALIAS)} - {answering}
    client.drop_collection(other)
    assert update(store, client).info.sent == 28


def test_an_index_that_finds_too_little_does_not_answer(
    store: Store, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    update(store, client)
    write_manifest(store, "s", files_of(NAMES[:26]))
    answering = update(store, client)
    write_manifest(store, "s", files_of(NAMES[:28]))
    search = client.search

    def without_the_nearest(*args: Any, limit: int, **options: Any) -> list[Any]:
        return [each[3:] for each in search(*args, limit=limit + 3, **options)]

    monkeypatch.setattr(client, "search", without_the_nearest, raising=False)
    made: list[str] = []
    create = client.create_collection

    def making(name: str, **options: Any) -> None:
        made.append(name)
        create(name, **options)

    monkeypatch.setattr(client, "create_collection", making, raising=False)
    # Also where only some of the rows are compared, each of which then stands for several.
    for scanned, recall in ((28, "700"), (14, "[67]")):
        monkeypatch.setattr(checks, "SCANNED_ROWS", scanned)
        with pytest.raises(
            RefusedBuildError, match=rf"recall@10 is 0\.{recall}.*index\.index_type"
        ):
            update(store, client)
    # Sending all rows anew, which may be a billion, would not make it find more.
    assert not made
    assert client.collection_of(ALIAS) == answering.collection
    assert held(client).keys() == ids(NAMES[:26])


def test_a_collection_of_another_home_is_left_alone(
    store: Store, client: Client, tmp_path: Path
) -> None:
    update(store, client)
    other = Store(tmp_path / "other")
    write_part(other, BLUE, "s", NAMES, random_vectors(len(NAMES), DIM))
    write_manifest(other, "s", files_of(NAMES[:3]))
    with pytest.raises(EngineError, match="which was not made from this home"):
        update(other, client)
    client.drop_alias(ALIAS)
    with pytest.raises(EngineError, match="was made from another home"):
        update(other, client)
    assert len(held(client, "retrieval_" + BLUE.key[-8:] + "_blue")) == 25
