"""What a client may take of the server before anybody knows who it is."""

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Iterator

import h11
import pytest
from starlette.responses import PlainTextResponse
from starlette.types import Receive, Scope, Send

from retrieval_pipeline.web import connections
from retrieval_pipeline.web.server import bounded_server, listen

GET = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"
# Longer than anything here takes: a test that waits for it fails.
PATIENCE = 20.0


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """A server with short times, on a thread."""
    monkeypatch.setitem(connections.SECONDS, h11.IDLE, 0.5)
    monkeypatch.setitem(connections.SECONDS, h11.SEND_BODY, 0.5)
    listener = listen("127.0.0.1", 0)
    server = bounded_server(here)
    thread = threading.Thread(target=asyncio.run, args=(server.serve([listener]),))
    thread.start()
    while not server.started:
        time.sleep(0.02)
    yield listener.getsockname()[1]
    server.should_exit = True
    thread.join(PATIENCE)
    assert not thread.is_alive()


async def here(scope: Scope, receive: Receive, send: Send) -> None:
    """Read the request whole, then say so."""
    if scope["type"] == "lifespan":
        for _ in range(2):
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
        return
    while (await receive()).get("more_body"):
        pass
    await PlainTextResponse("here")(scope, receive, send)


@contextlib.contextmanager
def connected(port: int, data: bytes = b"") -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", port), PATIENCE) as client:
        client.sendall(data)
        yield client


def is_answered(client: socket.socket) -> bool:
    """Whether an answer comes, with its body."""
    data = b""
    while not data.endswith(b"here") and (chunk := client.recv(65_536)):
        data += chunk
    return data.endswith(b"here")


def received(client: socket.socket) -> bytes:
    """All that comes until the server ends the connection."""
    data = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := client.recv(65_536):
            data += chunk
    return data


@pytest.mark.parametrize(
    "half",
    [
        b"",
        b"GET / HTTP/1.1\r\nhost: loc",
        b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 9\r\n\r\nhalf",
    ],
    ids=["nothing", "half a header", "half a body"],
)
def test_a_request_that_does_not_come_whole_loses_its_connection(port: int, half: bytes) -> None:
    with connected(port, half) as client:
        assert b"here" not in received(client)


def test_bytes_that_trickle_in_do_not_keep_a_connection(port: int) -> None:
    with connected(port, b"GET / HTTP/1.1\r\n") as client:
        for number in range(200):
            try:
                client.sendall(b"x-%d: y\r\n" % number)
            except OSError:
                return
            time.sleep(0.05)
    pytest.fail("the connection outlived its time")


def test_a_request_in_time_is_answered_and_so_is_the_next_on_the_connection(port: int) -> None:
    with connected(port, GET) as client:
        assert is_answered(client)
        client.sendall(GET)
        assert is_answered(client)


def test_an_endless_header_is_refused(port: int) -> None:
    with connected(port, b"GET / HTTP/1.1\r\nhost: localhost\r\n") as client:
        line = b"x: " + b"y" * 4_000 + b"\r\n"
        with contextlib.suppress(OSError):
            for _ in range(1_000):
                client.sendall(line)
        assert b"here" not in received(client)


def test_a_large_header_is_refused_that_comes_at_once(port: int) -> None:
    header = b"GET / HTTP/1.1\r\nhost: localhost\r\ncookie: " + b"a" * 100_000 + b"\r\n\r\n"
    with connected(port) as client:
        with contextlib.suppress(OSError):
            client.sendall(header)
        assert b"here" not in received(client)


def test_a_large_body_is_taken(port: int) -> None:
    body = b"x" * 1_000_000
    head = b"POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\n"
    with connected(port, head + body) as client:
        assert is_answered(client)


def test_connections_beyond_the_limit_are_refused_until_others_end(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 3)
    monkeypatch.setitem(connections.SECONDS, h11.IDLE, PATIENCE)
    with contextlib.ExitStack() as stack:
        for _ in range(3):
            client = stack.enter_context(connected(port, GET))
            assert is_answered(client)
        with contextlib.suppress(ConnectionError), connected(port, GET) as late:
            assert received(late) == b""
    for _ in range(100):
        with contextlib.suppress(ConnectionError), connected(port, GET) as client:
            if is_answered(client):
                return
        time.sleep(0.05)
    pytest.fail("no connection is taken after the others have ended")


def test_the_log_has_one_line_for_many_clients(port: int, caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(20):
        with connected(port, b"\0\r\n\r\n") as client:
            received(client)
    assert len([each for each in caplog.records if each.levelno >= logging.WARNING]) <= 1


def test_a_message_is_logged_again_after_a_minute() -> None:
    once = connections.OnceAMinute()
    record = logging.LogRecord("x", logging.WARNING, "", 0, "again and again", (), None)
    assert [once.filter(record) for _ in range(3)] == [True, False, False]
    record.created += connections.LOG_SECONDS
    assert once.filter(record)
