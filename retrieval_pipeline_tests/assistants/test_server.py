"""What an assistant can do and cannot, asked by the SDK's own client."""

import asyncio
import base64
import json
import os
import pty
import sys
from collections.abc import Awaitable, Callable
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import pytest
from PIL import Image

from retrieval_pipeline.cli.commands.mcp import mcp as command
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline_tests.support.commands import extract_home

pytest.importorskip("mcp", reason="the extra `mcp` is not installed")

from click.testing import CliRunner
from mcp import Client

from retrieval_pipeline.assistants.server import create_server, with_token

T = TypeVar("T")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_home(tmp_path_factory.mktemp("assistants") / "library")


@pytest.fixture(scope="module")
def ask(library: Path) -> Callable[..., Any]:
    """Call a tool; its structured result, or its first content, or the text of its error."""
    server = create_server(lambda: load_settings(library / "retrieval.toml"))

    async def call(tool: str, arguments: dict[str, Any]) -> Any:
        async with Client(server) as client:
            result = await client.call_tool(tool, arguments)
        if result.is_error:
            return result.content[0].text  # type: ignore[union-attr]
        return result.structured_content or result.content[0]

    return lambda tool, **arguments: asyncio.run(call(tool, arguments))


@pytest.fixture(scope="module")
def cat(library: Path) -> str:
    from retrieval_pipeline.storage.content_id import content_id_of_file

    return content_id_of_file(library / "pictures" / "cat.jpg")


def run(work: Callable[[], Awaitable[T]]) -> T:
    async def main() -> T:
        return await work()

    return asyncio.run(main())


def test_every_tool_says_that_it_only_reads(library: Path) -> None:
    server = create_server(lambda: load_settings(library / "retrieval.toml"))

    async def tools() -> Any:
        async with Client(server) as client:
            return (await client.list_tools()).tools

    found = {tool.name: tool for tool in run(tools)}
    assert sorted(found) == ["facts", "search", "similar", "status", "thumbnail"]
    assert all(tool.annotations.read_only_hint for tool in found.values())
    assert all(tool.description for tool in found.values())


def test_pictures_are_found_looked_at_and_told_about(
    ask: Callable[..., Any], library: Path, cat: str
) -> None:
    answer = ask("similar", content_id=cat, count=2)
    assert len(answer["hits"]) == 2
    assert cat not in [hit["content_id"] for hit in answer["hits"]]
    facts = ask("facts", content_id=cat)
    assert facts["path"] == str(library / "pictures" / "cat.jpg")
    assert [place["path"] for place in facts["locations"]] == ["cat.jpg", "copy.jpg"]
    image = ask("thumbnail", content_id=cat, size=64)
    assert image.mime_type == "image/jpeg"
    assert max(Image.open(BytesIO(base64.b64decode(image.data))).size) == 64
    assert ask("status")["index"]["items"] == 5
    assert str(library) in json.dumps(ask("status"))


def test_only_pictures_that_are_what_was_indexed_are_shown(
    ask: Callable[..., Any], library: Path, cat: str
) -> None:
    assert "no indexed picture has the content id" in ask("thumbnail", content_id="f" * 32)
    names = ["cat.jpg", "copy.jpg"]
    whole = (library / "pictures" / "cat.jpg").read_bytes()
    for name in names:
        (library / "pictures" / name).write_bytes((library / "retrieval.toml").read_bytes())
    try:
        assert "holds another picture by now" in ask("thumbnail", content_id=cat)
    finally:
        for name in names:
            (library / "pictures" / name).write_bytes(whole)


@pytest.mark.parametrize(
    ("tool", "arguments", "why"),
    [
        ("thumbnail", {"content_id": "../../etc/passwd"}, "content_id"),
        ("thumbnail", {"content_id": "f" * 32, "size": 100_000}, "1024"),
        ("similar", {"content_id": "f" * 32, "count": 51}, "50"),
        ("search", {"text": "a" * 1_001}, "1000"),
        ("search", {"text": "a dog", "source": "nope"}, 'no source "nope"'),
        ("search", {"text": ""}, "the query is empty"),
        ("search", {"text": "a dog", "album": "nope"}, 'no album "nope"'),
    ],
)
def test_what_is_too_much_or_wrong_is_told(
    ask: Callable[..., Any], tool: str, arguments: dict[str, Any], why: str
) -> None:
    assert why in ask(tool, **arguments)


@pytest.mark.parametrize("header", [None, b"Bearer wrong", b"Basic 0123456789abcdef"])
def test_http_answers_only_those_who_know_the_token(header: bytes | None) -> None:
    reached, statuses = [], []

    async def app(*_: object) -> None:
        reached.append(True)

    async def send(message: Any) -> None:
        statuses.append(message.get("status"))

    async def request(given: bytes | None) -> None:
        headers = [] if given is None else [(b"authorization", given)]
        scope = {"type": "http", "headers": headers, "method": "POST", "path": "/mcp"}
        await with_token(app, "0123456789abcdef")(scope, None, send)  # type: ignore[arg-type]

    run(lambda: request(header))
    assert (reached, statuses[0]) == ([], 401)
    run(lambda: request(b"Bearer 0123456789abcdef"))
    assert reached == [True]


def test_http_needs_a_long_token(library: Path) -> None:
    config = ["--config", str(library / "retrieval.toml")]
    for token in ([], ["--token", "short"]):
        done = CliRunner().invoke(command, ["--http", *token, *config], env={"RETRIEVAL_TOKEN": ""})
        assert done.exit_code == 2
        assert "--http needs a secret" in done.output


def test_on_a_terminal_it_says_what_it_waits_for(
    library: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    parent, child = pty.openpty()
    os.write(parent, b"\x04")  # Ctrl-D
    with os.fdopen(child) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        command.main(["--config", str(library / "retrieval.toml")], standalone_mode=False)
    os.close(parent)
    assert "waits for what an assistant writes" in capfd.readouterr().err
