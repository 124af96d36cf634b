"""The page with an index in Milvus: in the home that published it, and in one that only asks."""

from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path

import numpy as np
import pytest
from starlette.testclient import TestClient

from retrieval_pipeline.config.settings import Settings, Source
from retrieval_pipeline.facts import places
from retrieval_pipeline.latent_map.coordinates import make_map, read_coordinates, save_map
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.web.app import create_app
from retrieval_pipeline.web.security import Access
from retrieval_pipeline_tests.support.engines import Engines
from retrieval_pipeline_tests.support.milvus import without_waiting
from retrieval_pipeline_tests.support.web import BASE
from synthetic.random_questions import Pictures

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def settings(engines: Engines, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Two publications of one home, the second with more pictures and a map."""
    home = tmp_path_factory.mktemp("page") / "home"
    settings = engines.settings_of(Store(home)).model_copy(
        update={
            "model": "offline",
            "sources": tuple(Source(name=name, path=home / name) for name in "ab"),
        }
    )
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(places, "ALL_TOWNS", 15_000)
        for count in (40, 50):
            pictures = Pictures(seed=5, count=count)
            with without_waiting():
                pictures.publish(pictures.write(home), engines.client, settings.index)
        searcher = Searcher.open(settings)
        save_map(make_map(searcher.corpus, clusters=3), Store(home).map(searcher.index.name))
        yield settings


@pytest.fixture(scope="module")
def page(settings: Settings) -> Iterator[TestClient]:
    yield from opened(settings)


@pytest.fixture(scope="module")
def elsewhere(settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestClient]:
    """A server that has the settings and the engine, and no tables."""
    home = tmp_path_factory.mktemp("elsewhere")
    yield from opened(settings.model_copy(update={"home": home}))


def opened(settings: Settings) -> Iterator[TestClient]:
    access = Access()
    with TestClient(create_app(lambda: settings, access), base_url=BASE) as client:
        client.headers["x-retrieval-token"] = access.csrf_token
        yield client


def found(client: TestClient, **asked: object) -> set[str]:
    answer = client.get("/api/search", params={"sort": "name", "k": 200, **asked})  # type: ignore[dict-item]
    assert answer.status_code == HTTPStatus.OK, answer.json()
    return {hit["content_id"] for hit in answer.json()["hits"]}


def test_the_map_and_its_regions_are_there_where_the_tables_are(
    page: TestClient, elsewhere: TestClient, settings: Settings
) -> None:
    store = Store(settings.home)
    (drawn,) = store.maps()
    table = read_coordinates(drawn)
    ids, x = (table[name].to_numpy() for name in ("content_id", "x"))
    middle = float(np.median(x))
    region = f"-9,-9;{middle},-9;{middle},9;-9,9"
    assert found(page, region=region) == set(ids[(x < middle)])
    like = str(ids[0])
    told = page.get("/api/map", params={"like": like}).json()
    assert told["images"] == len(ids) and told["score"] and len(told["clusters"]) == 3
    assert sum(each["images"] for each in told["sources"]) == len(ids)
    html = page.get("/map").text
    assert 'href="/map"' in html and 'href="/duplicates"' in html
    assert page.get(f"/api/pictures/{like}").json()["cluster"] is not None
    assert elsewhere.get(f"/api/pictures/{like}").json()["cluster"] is None
    assert elsewhere.get("/map").status_code == HTTPStatus.NOT_FOUND
    refused = elsewhere.get("/api/search", params={"region": region})
    assert "has no map here" in refused.json()["detail"]


def test_what_is_new_since_a_former_publication_is_shown_by_every_server(
    page: TestClient, elsewhere: TestClient
) -> None:
    status = page.get("/api/status")
    assert status.status_code == HTTPStatus.OK, status.text
    new, old = status.json()["runs"]
    assert (new["current"], old["current"]) == (True, False)
    (only,) = elsewhere.get("/api/status").json()["runs"]
    assert only == new
    added = found(elsewhere, since=old["build"])
    assert len(added) == new["items"] - old["items"] and added == found(page, since=old["build"])
    assert found(page, since=new["build"]) == set()


def test_saved_searches_albums_and_labels_are_those_of_the_home(page: TestClient) -> None:
    ids = sorted(found(page, source="a"))
    kept = page.post("/api/searches", json={"name": "of a", "search": "source=a"}).json()
    assert [(each["name"], each["new"]) for each in kept["searches"]] == [("of a", 0)]
    album = {"name": "best", "content_ids": ids[:3]}
    assert page.post("/api/albums/add", json=album).status_code == HTTPStatus.OK
    assert found(page, album="best") == set(ids[:3])
    assert len(found(page, like_album="best") & set(ids[:3])) == 0


def test_what_there_is_to_choose_from_is_on_the_page_of_every_server(
    page: TestClient, elsewhere: TestClient
) -> None:
    for client in (page, elsewhere):
        html = client.get("/", params={"year": 2018, "sort": "name"}).text
        assert "<h2>Camera</h2>" in html and "<h2>Folder</h2>" in html


def test_duplicates_are_looked_for_where_the_tables_are(
    page: TestClient, elsewhere: TestClient
) -> None:
    assert page.get("/duplicates").status_code == HTTPStatus.OK
    refused = elsewhere.get("/api/duplicates")
    assert refused.status_code == HTTPStatus.NOT_IMPLEMENTED
    assert "run it where `retrieval index` runs" in refused.json()["detail"]


def test_the_vote_page_says_where_it_looks_at_a_sample(
    page: TestClient, elsewhere: TestClient
) -> None:
    line = "a sample and the neighbours of judged ones are looked at"
    told = [line in client.get("/vote").text for client in (page, elsewhere)]
    assert told == [False, True]


def test_thumbnails_of_pictures_that_left_the_engine_go(
    page: TestClient, settings: Settings, tmp_path: Path
) -> None:
    store = Store(tmp_path / "home")
    there, gone = (store.thumbnail(name, "small") for name in (min(found(page)), "0" * 32))
    for thumbnail in (there, gone):
        thumbnail.parent.mkdir(parents=True)
        thumbnail.write_bytes(b"WebP")
    server = opened(settings.model_copy(update={"home": store.home}))
    next(server)
    assert (there.exists(), gone.exists()) == (True, False)
    server.close()


def test_damaged_tables_take_away_what_needs_them_and_nothing_else(settings: Settings) -> None:
    store = Store(settings.home)
    (ledger,) = [
        directory
        for directory in store.engine_collections()
        if Searcher.open(settings).index.name in (directory / "published.json").read_text()
    ]
    file = ledger / "blocks.json"
    whole = file.read_text()
    file.write_text(whole[:-9])
    try:
        for client in opened(settings):
            assert 'href="/map"' not in client.get("/").text
            assert found(client)
            assert client.get("/api/duplicates").status_code >= HTTPStatus.INTERNAL_SERVER_ERROR
    finally:
        file.write_text(whole)
