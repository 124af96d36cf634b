"""Milvus Lite without the waiting."""

import time
from types import SimpleNamespace

import pytest


@pytest.fixture(autouse=True)
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> None:
    """pymilvus sleeps for half a second whenever it has asked for an index to be made."""
    handler = pytest.importorskip("pymilvus.client.grpc_handler")
    quick = SimpleNamespace(time=time.time, sleep=lambda _: None)
    monkeypatch.setattr(handler, "time", quick)
