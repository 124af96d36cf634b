"""Runs that are started from the page, and what open pages hear of them and of others."""

import json
import sys
import time
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import pytest
from PIL import Image
from starlette.applications import Starlette
from starlette.testclient import TestClient

from retrieval_pipeline.processes import python_command
from retrieval_pipeline.progress import Quiet
from retrieval_pipeline.storage.shared_progress import SharedProgress
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline_tests.support.web import WebLibrary, client_of


def index_command(library: WebLibrary) -> list[str]:
    file = str(library.settings_file)
    return python_command("retrieval_pipeline.cli.main", "main", "index", "--config", file)


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def run_of(client: TestClient) -> dict[str, Any]:
    state: dict[str, Any] = client.get("/api/run").json()
    return state


def ended(client: TestClient) -> dict[str, Any]:
    """Wait for the end of the run."""
    deadline = time.monotonic() + 60
    while (state := run_of(client))["running"]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    return state


def heard(client: TestClient, path: str) -> dict[str, Any]:
    """What a page hears in its first moment: event -> data."""
    app = client.app
    assert isinstance(app, Starlette)
    looks = iter([False, True])
    app.state.is_stopping = lambda: next(looks)
    events = [part.splitlines() for part in client.get(path).text.split("\n\n")]
    return {
        name.removeprefix("event: "): json.loads(data[0].removeprefix("data: "))
        for name, *data in filter(None, events)
        if name.startswith("event: ")
    }


@pytest.mark.slow
def test_a_run_that_is_started_from_the_page_brings_new_pictures_to_it(library: WebLibrary) -> None:
    with client_of(library, index_command=index_command(library)) as client:
        before = client.get("/api/current").json()["build"]
        assert run_of(client)["startable"]
        Image.new("RGB", (500, 300), "orange").save(library.photo("orange.png"))
        started = client.post("/api/run").json()
        assert (started["running"], started["stoppable"]) == (True, True)
        assert client.post("/api/run").status_code == HTTPStatus.CONFLICT
        assert ended(client)["failed"] == ""
        while client.get("/api/current").json()["build"] == before:
            time.sleep(0.05)
        told = heard(client, f"/events?build={before}")["index"]
        assert (told["images"], told["new"]) == (21, 1)
        new = client.get("/api/search", params={"since": before}).json()["hits"]
        assert [hit["path"] for hit in new] == ["orange.png"]
        gone = client.get("/api/search", params={"since": "20200101T000000.000000Z-00000000"})
        assert gone.status_code == HTTPStatus.NOT_FOUND


def test_a_run_of_another_program_is_shown_and_left_alone(indexed_library: WebLibrary) -> None:
    store = Store(indexed_library.settings.home)
    with client_of(indexed_library, index_command=python("")) as client:
        with store.locked():
            assert run_of(client)["stage"] == ""
            progress = SharedProgress(store, Quiet())
            progress.note("broken\x1b.jpg: truncated")
            progress.start("embedding photos", 200, "images")
            time.sleep(0.6)
            progress.advance(50)
            run = run_of(client)
            assert (run["stage"], run["done"], run["total"]) == ("embedding photos", 50, 200)
            assert run["unit"] == "images"
            assert run["rate"] > 0
            assert run["seconds_left"] == pytest.approx(150 / run["rate"], rel=0.1)
            assert run["failures"] == ["broken\\x1b.jpg: truncated"]
            assert heard(client, "/events")["run"] == run_of(client)
            assert client.post("/api/run").status_code == HTTPStatus.CONFLICT
            assert client.delete("/api/run").status_code == HTTPStatus.CONFLICT
        assert not run_of(client)["running"]


@pytest.mark.parametrize(
    ("code", "act", "failed"),
    [
        ("import sys; sys.exit('first\\nerror: the disk is full')", ended, "the disk is full"),
        ("import sys; sys.exit(3)", ended, "the run ended with code 3"),
        ("import time; time.sleep(60)", lambda client: client.delete("/api/run"), ""),
    ],
)
def test_the_end_of_a_run_is_explained(
    indexed_library: WebLibrary, code: str, act: Callable[[TestClient], object], failed: str
) -> None:
    with client_of(indexed_library, index_command=python(code)) as client:
        assert client.post("/api/run").is_success
        act(client)
        state = ended(client)
        assert (state["failed"], state["stoppable"]) == (failed, False)


@pytest.mark.parametrize(
    ("command", "status"),
    [(None, HTTPStatus.FORBIDDEN), (["/nowhere/retrieval"], HTTPStatus.SERVICE_UNAVAILABLE)],
)
def test_a_run_that_cannot_be_started_is_refused_in_a_line(
    indexed_library: WebLibrary, command: Sequence[str] | None, status: HTTPStatus
) -> None:
    with client_of(indexed_library, index_command=command) as client:
        answer = client.post("/api/run")
        assert answer.status_code == status
        assert len(answer.json()["detail"].splitlines()) == 1
        assert not run_of(client)["running"]
