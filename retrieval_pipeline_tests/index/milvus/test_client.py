"""What is said when the engine fails. Errors that only a server has are made up."""

import socket
from pathlib import Path
from typing import Any

import pytest
from pymilvus import MilvusException

from retrieval_pipeline.errors import EngineError
from retrieval_pipeline.index.milvus.client import Client, patterns_of


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> Any:
    with Client(str(tmp_path_factory.mktemp("lite") / "x.db"), token="root:secret") as client:
        yield client


@pytest.mark.parametrize(
    ("code", "message", "said"),
    [
        (1400, "permission deny", "does not accept the token"),
        (3, "memory limit exceeded", r"is full \(memory\)"),
        (7, "disk limit exceeded", r"is full \(disk\)"),
        (9, "quota exceeded", r"is full \(quota\)"),
        (8, "rate limit exceeded", "asked too much"),
        (10, "service unimplemented", "of another version"),
        (1, "StatusCode.DEADLINE_EXCEEDED", r"no answer within 30 s \(index.timeout\)"),
        (2, "Fail connecting to server on db:19530", "is not there"),
        (1100, "vector dimension mismatch, expected 8, actual 4", "of other dimensions"),
        (65535, "root:secret cannot\n  do that", r"refused: \*\*\* cannot do that"),
    ],
)
def test_each_failure_of_the_engine_is_one_line_without_the_token(
    client: Client, code: int, message: str, said: str
) -> None:
    with pytest.raises(EngineError, match=said) as caught, client.explained():
        raise MilvusException(code, message)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_a_server_that_is_away_or_mute_is_given_up_within_the_timeout() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        port = mute.getsockname()[1]
        with pytest.raises(EngineError, match=r"no answer within 0.3 s"):
            Client(f"http://127.0.0.1:{port}", timeout=0.3)
    with pytest.raises(EngineError, match="the engine is not there"):
        Client(f"http://127.0.0.1:{port}", timeout=0.3)


@pytest.mark.parametrize(
    ("version", "patterns"),
    [
        ("v2.3.5-lite", "none"),
        ("2.4-20240515-e1b9a2", "escapes"),
        ("v2.16.1", "escapes"),
        ("e1b9a2", "escapes"),
        ("milvus_lite-3.2.2", "wildcards"),
    ],
)
def test_what_an_engine_reads_in_patterns_is_known_by_its_version(
    version: str, patterns: str
) -> None:
    assert patterns_of(version) == patterns


def test_an_engine_that_is_too_old_is_refused() -> None:
    with pytest.raises(EngineError, match=r"is Milvus 2.2.16: Milvus 2.3.5 or later is needed"):
        patterns_of("v2.2.16")


def test_a_file_is_no_directory_of_milvus_lite(tmp_path: Path) -> None:
    (tmp_path / "x.db").write_text("something else")
    with pytest.raises(EngineError, match="must be a directory of its own"):
        Client(str(tmp_path / "x.db"))
    assert (tmp_path / "x.db").read_text() == "something else"


def test_what_is_not_there_is_said(client: Client) -> None:
    assert client.collection_of("nobody") is None
    with pytest.raises(EngineError, match="the engine refused: collection 'gone'"):
        client.describe_collection("gone")
