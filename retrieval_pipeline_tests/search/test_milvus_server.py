"""What a server of Milvus does that Milvus Lite does not: users, shards, kinds of index, failures.

The server is real, version 2.3.5, the oldest that is taken: it answers what newer ones do, but for
patterns, which it does not read.
"""

import queue
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_allclose
from starlette.testclient import TestClient

from retrieval_pipeline.config.settings import IndexSettings, Settings, Source
from retrieval_pipeline.errors import EngineError
from retrieval_pipeline.facts import places
from retrieval_pipeline.index.milvus.client import TOKEN as TOKEN_VARIABLE
from retrieval_pipeline.index.milvus.client import Client, connect, served
from retrieval_pipeline.index.milvus.publication import PublicationReport, publish
from retrieval_pipeline.maintenance.engine import collect_engine, verify_engine
from retrieval_pipeline.pipeline.engine import use_publication
from retrieval_pipeline.search.embedded_index import EmbeddedIndex
from retrieval_pipeline.search.milvus.index import MilvusIndex
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline.web.app import create_app
from retrieval_pipeline.web.security import Access
from retrieval_pipeline_tests.search.test_engines import numbers, told
from retrieval_pipeline_tests.support.milvus import no_waiting
from retrieval_pipeline_tests.support.milvus_server import TOKEN, MilvusServer
from retrieval_pipeline_tests.support.processes import shared_directory
from retrieval_pipeline_tests.support.web import BASE
from synthetic.random_questions import Pictures, Words
from synthetic.tables import clustered, content, write_manifest, write_part

__all__ = ["no_waiting"]

pytestmark = pytest.mark.slow

QUESTIONS = 30
SPACE, OTHER = VectorSpace("made-up", "1", 16, "p"), VectorSpace("made-up", "2", 16, "p")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MilvusServer]:
    programs = shared_directory(tmp_path_factory) / "milvus"
    server = MilvusServer(tmp_path_factory.mktemp("server"), programs)
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv(TOKEN_VARIABLE, TOKEN)
        # Reading all towns takes seconds.
        patched.setattr(places, "ALL_TOWNS", 15_000)
        try:
            server.start()
            yield server
        finally:
            server.kill()


def settings_of(server: MilvusServer, home: Path, collection: str, **index: Any) -> Settings:
    index = {"index_type": "FLAT", "timeout": 60, "collection": collection, **index}
    engine = IndexSettings(engine="milvus", uri=server.uri, **index)
    return Settings(
        home=home, index=engine, sources=[Source(name="a", path=home.parent / "pictures")]
    )


def names(count: int) -> list[str]:
    return [f"picture {number}" for number in range(count)]


def write(home: Path, count: int, space: VectorSpace = SPACE) -> None:
    """Write the vectors of so many pictures, all of which are there."""
    vectors = clustered(count, space.dim, seed=1)
    write_part(Store(home), space, "a", names(count), vectors)
    show(home, count)


def show(home: Path, count: int) -> None:
    """Let the first pictures be there."""
    write_manifest(Store(home), "a", {f"{name}.jpg": name for name in names(count)})


def update(settings: Settings, space: VectorSpace = SPACE) -> PublicationReport:
    store = Store(settings.home)
    with connect(settings) as client, store.locked():
        return publish(store, client, space, ["a"], settings.index)


def test_random_questions_have_the_answers_of_the_embedded_index(
    server: MilvusServer, tmp_path: Path
) -> None:
    pictures = Pictures()
    build = pictures.build(tmp_path)
    settings = settings_of(server, tmp_path, "pictures", shards=2)
    with connect(settings) as client:
        report = pictures.publish(Store(tmp_path), client, settings.index)
        assert client.describe_collection(report.collection)["num_shards"] == 2
        indexes = (EmbeddedIndex(build), MilvusIndex(client, served(client, settings)))
        both = [Searcher(settings, index, Words(16)) for index in indexes]  # type: ignore[arg-type]
        found = 0
        for _ in range(QUESTIONS):
            asked = pictures.query()
            k, offset = pictures.random.choice(((5, 0), (20, 0), (7, 13)))
            embedded, milvus = (searcher.answer(Query.of(asked), k, offset) for searcher in both)
            assert told(milvus) == told(embedded), (asked, k, offset)
            assert_allclose(numbers(milvus), numbers(embedded), atol=1e-3, err_msg=str(asked))
            found += len(embedded.hits)
        assert found > 3 * QUESTIONS


def test_a_loop_of_questions_sees_each_publication_whole_and_none_again(
    server: MilvusServer, tmp_path: Path
) -> None:
    write(tmp_path, 12)
    settings = settings_of(server, tmp_path, "loop")
    changes: queue.Queue[int] = queue.Queue()
    ended = threading.Event()

    def ask(searcher: Searcher) -> None:
        last = None
        try:
            while not ended.is_set():
                searcher = searcher.latest()
                hits = searcher.search(Query(like=(content("picture 0"),)), 50)
                found = {hit.content_id for hit in hits}
                # A picture is not like itself.
                assert found == {content(name) for name in names(len(found) + 1)[1:]}
                if len(found) != last:
                    changes.put(last := len(found))
                time.sleep(0.2)  # the publications need the processors as well
        finally:
            changes.put(0)

    counts, builds, seen = [8, 12, 5], [], []
    with ThreadPoolExecutor(1) as pool:
        asking = None
        try:
            for count in counts:
                show(tmp_path, count)
                builds.append(update(settings).info.build)
                asking = asking or pool.submit(ask, Searcher.open(settings))
                seen.append(changes.get(timeout=180))
            assert [finding.problem for finding in verify_engine(settings)] == [None]
            use_publication(settings, builds[1])
            seen.append(changes.get(timeout=180))
        finally:
            ended.set()
        asking.result()
    assert seen == [7, 11, 4, 11]
    # Another model: the collections of the former one can go.
    Store(tmp_path).release()
    write(tmp_path, 5, OTHER)
    new = update(settings, OTHER).collection
    collect_engine(settings, space=OTHER, other_models=True)
    with connect(settings) as client:
        assert {each for each in client.list_collections() if each.startswith("loop")} == {
            new,
            f"{new}_about",
        }


def test_an_approximate_index_is_built_and_its_recall_measured(
    server: MilvusServer, tmp_path: Path
) -> None:
    """A server builds none for less than 1,024 rows."""
    write(tmp_path, 1_500)
    settings = settings_of(server, tmp_path, "graph", index_type="HNSW")
    with pytest.raises(EngineError, match=r"too few query nodes for index.replicas"):
        update(settings_of(server, tmp_path, "graph", index_type="HNSW", replicas=2))
    report = update(settings)
    assert (report.info.index_type, report.info.sent) == ("HNSW", 1_500)
    assert 0.99 < report.info.recall_at_10 <= 1.0
    with connect(settings) as client:
        state = client.describe_index(report.collection, "vector")
    assert (state["index_type"], state["indexed_rows"]) == ("HNSW", 1_500)


@pytest.mark.parametrize("token", ["", "root:wrong", "guest:Guest-1"])
def test_who_may_not_is_told_to_give_another_token(
    token: str, server: MilvusServer, tmp_path: Path
) -> None:
    with Client(server.uri, token=TOKEN) as client:
        if "guest" not in client.list_users():
            client.create_user("guest", "Guest-1")
    with (
        pytest.raises(EngineError, match="the engine does not accept the token") as caught,
        Client(server.uri, token=token) as client,
    ):
        client.create_collection("mine", dimension=4)
    assert "\n" not in str(caught.value)


def test_a_page_says_when_the_server_does_not_answer_and_a_publication_goes_on(
    server: MilvusServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, 30)
    show(tmp_path, 20)
    settings = settings_of(server, tmp_path, "page", timeout=15)
    update(settings)
    show(tmp_path, 30)
    with TestClient(create_app(lambda: settings, Access()), base_url=BASE) as page:

        def status() -> int:
            answer = page.get("/api/search", params={"sort": "name", "k": 50})
            if answer.status_code == HTTPStatus.OK:
                return len(answer.json()["hits"])
            assert int(answer.headers["retry-after"]) > 0
            return answer.status_code

        assert status() == 20
        with connect(settings) as client, Store(tmp_path).locked():
            upsert = client.upsert

            def dying(name: str, rows: list[dict[str, Any]]) -> Any:
                done = upsert(name, rows)
                server.kill()
                return done

            monkeypatch.setattr(client, "upsert", dying, raising=False)
            with pytest.raises(EngineError, match="the engine is not there"):
                publish(Store(tmp_path), client, SPACE, ["a"], settings.index)
        assert status() == HTTPStatus.SERVICE_UNAVAILABLE
        server.start()
        # It answers before it has loaded what it answers from.
        give_up = time.monotonic() + 180
        while status() != 20:
            assert time.monotonic() < give_up
            time.sleep(0.2)
        assert update(settings).published
        with connect(settings) as client:
            rows = client.query(served(client, settings), filter='id != ""', output_fields=["id"])
        assert sorted(row["id"] for row in rows) == sorted(map(content, names(30)))
    with TestClient(create_app(lambda: settings, Access()), base_url=BASE) as page:
        assert status() == 30
        server.pause()
        assert status() == HTTPStatus.SERVICE_UNAVAILABLE
