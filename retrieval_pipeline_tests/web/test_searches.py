"""Searches that people save on the page."""

import pytest
from starlette.testclient import TestClient

from retrieval_pipeline.storage.saved_searches import SavedSearch, read_saved_searches, save_search
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline_tests.support.web import WebLibrary, client_of

pytestmark = pytest.mark.slow


def told(client: TestClient) -> dict[str, tuple[str, int | None]]:
    found = client.get("/api/searches").json()["searches"]
    return {each["name"]: (each["search"], each["new"]) for each in found}


def test_a_saved_search_tells_how_many_of_its_hits_nobody_has_seen(library: WebLibrary) -> None:
    store = Store(library.settings.home)
    with client_of(library) as client:
        wanted = {"name": "Felder & Wiesen", "search": "source=drawings&path=field*&k=60"}
        refused = client.post("/api/searches", json=wanted)
        assert refused.status_code == 400  # a part of an answer is no search
        wanted["search"] = "source=drawings&path=field*"
        assert client.post("/api/searches", json=wanted).status_code == 200
        client.post("/api/searches", json={"name": "cats", "search": "text=a+photo+of+a+cat"})
        address = "source=drawings&path=field%2A"
        assert told(client) == {
            "Felder & Wiesen": (address, 0),
            "cats": ("text=a+photo+of+a+cat", 0),
        }
        # As if a picture had come since somebody looked.
        saved = read_saved_searches(store)[0]
        assert saved.seen is not None
        save_search(store, saved.model_copy(update={"seen": frozenset([*saved.seen][1:])}))
        assert told(client)["Felder & Wiesen"] == (address, 1)
        client.post("/api/searches/seen", json={"name": "Felder & Wiesen"})
        assert told(client)["Felder & Wiesen"] == (address, 0)
    with client_of(library) as client:
        assert set(told(client)) == {"Felder & Wiesen", "cats"}
        client.delete("/api/searches", params={"name": "cats"})
        assert set(told(client)) == {"Felder & Wiesen"}
        assert client.delete("/api/searches", params={"name": "cats"}).status_code == 400


def test_a_search_that_cannot_be_answered_any_more_says_why_and_the_others_go_on(
    library: WebLibrary,
) -> None:
    store = Store(library.settings.home)
    with client_of(library) as client:
        client.post("/api/searches", json={"name": "all", "search": "sort=newest"})
        (saved,) = read_saved_searches(store)
        gone = {"name": "gone", "parameters": {"source": ["left"]}}
        save_search(store, SavedSearch.model_validate(saved.model_dump() | gone))
        found = client.get("/api/searches").json()["searches"]
        assert [each["new"] for each in found] == [0, None]
        assert "left" in found[1]["problem"]


def test_a_search_by_a_dropped_picture_is_not_saved(indexed_library: WebLibrary) -> None:
    with client_of(indexed_library) as client:
        answer = client.post("/api/searches", json={"name": "x", "search": f"upload={'0' * 32}"})
        assert answer.status_code == 400
        assert "kept for a while only" in answer.json()["detail"]
