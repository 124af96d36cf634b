"""Milvus Lite without the waiting."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace

import pytest


@contextmanager
def without_waiting() -> Iterator[None]:
    """pymilvus sleeps for half a second whenever it has asked for an index to be made."""
    handler = pytest.importorskip("pymilvus.client.grpc_handler")
    quick = SimpleNamespace(time=time.time, sleep=lambda _: None)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(handler, "time", quick)
        yield


@pytest.fixture(autouse=True)
def no_waiting() -> Iterator[None]:
    """The same for all tests of a module that imports it."""
    with without_waiting():
        yield
