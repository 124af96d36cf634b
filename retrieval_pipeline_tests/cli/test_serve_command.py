"""`retrieval serve` as a process: ports, tokens, signals."""

import contextlib
import os
import pty
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from retrieval_pipeline.web.server import listen
from retrieval_pipeline_tests.support.web import WebLibrary

# Each test starts programs or indexes pictures.
pytestmark = pytest.mark.slow


@contextlib.contextmanager
def server(library: WebLibrary, *options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Give a running server and its address."""
    command = [sys.executable, "-m", "retrieval_pipeline", "serve", "--port", "0", *options]
    process = subprocess.Popen(
        [*command, "--config", str(library.settings_file)],
        stderr=subprocess.PIPE,
        text=True,
        cwd=library.root,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
    )
    assert process.stderr is not None
    try:
        # That a model cannot be had may be told first.
        told = []
        for line in process.stderr:
            if line.startswith("http://"):
                break
            told.append(line)
        else:
            raise AssertionError("it ended: " + "".join(told))
        yield process, line.split()[0]
    finally:
        process.kill()
        process.wait()
        process.stderr.close()


def run(library: WebLibrary, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "retrieval_pipeline", "serve", *options],
        capture_output=True,
        text=True,
        cwd=library.root,
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        stdin=subprocess.DEVNULL,
        timeout=60,
    )


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 0), (signal.SIGTERM, -15)])
def test_a_signal_stops_it_cleanly_and_the_port_is_free_at_once(
    library: WebLibrary, number: signal.Signals, code: int
) -> None:
    with server(library) as (process, address):
        # The search for duplicates, a thumbnail and a decode worker are under way.
        content = library.content("cat.png")
        for path in ("api/duplicates", f"api/pictures/{content}/thumbnail", "?text=a+cat"):
            assert urllib.request.urlopen(address + path).status == 200
        process.send_signal(number)
        assert process.wait(60) == code
        assert process.stderr is not None
        assert "Traceback" not in (rest := process.stderr.read())
        assert number != signal.SIGINT or rest.endswith("stopped\n")
        port = int(address.rstrip("/").rpartition(":")[2])
        with socket.socket() as again:
            again.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            again.bind(("127.0.0.1", port))


def test_a_port_in_use_is_one_line_and_names_a_free_one(library: WebLibrary) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        ended = run(library, "--port", str(port))
    assert ended.returncode == 1
    assert len(ended.stderr.splitlines()) == 1
    assert f"port {port} is in use" in ended.stderr
    assert "is free: add --port" in ended.stderr


def test_an_answer_does_not_wait_for_its_head_to_be_acknowledged() -> None:
    with listen("127.0.0.1", 0) as listener, socket.create_connection(listener.getsockname()):
        connection, _ = listener.accept()
        with connection:
            assert connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_at_a_terminal_the_next_free_port_is_offered(library: WebLibrary) -> None:
    keyboard, terminal = pty.openpty()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        process = subprocess.Popen(
            [sys.executable, "-m", "retrieval_pipeline", "serve", "--port", str(port)],
            stdin=terminal,
            stderr=subprocess.PIPE,
            text=True,
            cwd=library.root,
            env=os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])},
        )
        os.write(keyboard, b"y\n")
        assert process.stderr is not None
        try:
            said = process.stderr.readline() + process.stderr.readline()
            assert f"port {port} is in use" in said
            offered = re.search(r"Use (\d+) instead\?", said)
            assert offered and f"http://127.0.0.1:{offered[1]}/" in said
        finally:
            process.kill()
            process.wait()
            process.stderr.close()
            os.close(keyboard)
            os.close(terminal)


def test_other_machines_need_a_token_and_it_says_so(library: WebLibrary) -> None:
    ended = run(library, "--host", "0.0.0.0")
    assert ended.returncode == 2
    assert "--token" in ended.stderr and "not encrypted" in ended.stderr
    assert run(library, "--host", "0.0.0.0", "--token", "short").returncode == 2
    token = "0123456789abcdef"
    with server(library, "--host", "0.0.0.0", "--token", token) as (_, address):
        local = address.replace("0.0.0.0", "127.0.0.1")
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(local)
        request = urllib.request.Request(local, headers={"Authorization": f"Bearer {token}"})
        assert urllib.request.urlopen(request).status == 200


def test_any_loopback_address_answers(library: WebLibrary) -> None:
    with server(library, "--host", "127.0.0.2") as (_, address):
        assert address.startswith("http://127.0.0.2:")
        assert urllib.request.urlopen(address).status == 200


def test_a_token_can_come_from_a_file_or_the_environment(
    library: WebLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = library.root / "token"
    file.write_text("from a file 0123456789\n")
    with server(library, "--token-file", str(file)) as (process, address):
        _check_token(address, "from a file 0123456789")
        command_line = Path(f"/proc/{process.pid}/cmdline").read_bytes()
        assert b"0123456789" not in command_line
    monkeypatch.setenv("RETRIEVAL_TOKEN", "from the environment 0123456789")
    with server(library) as (_, address):
        _check_token(address, "from the environment 0123456789")
    # A file that is named counts more than a variable that happens to be set.
    with server(library, "--token-file", str(file)) as (_, address):
        _check_token(address, "from a file 0123456789")


def _check_token(address: str, token: str) -> None:
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(address)
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})
    assert urllib.request.urlopen(request).status == 200


@pytest.mark.parametrize(
    ("content", "code"), [(None, 1), (b"\xff" * 20, 1), (b"", 2), (b"short\n", 2)]
)
def test_a_bad_token_file_is_told(library: WebLibrary, content: bytes | None, code: int) -> None:
    file = library.root / "token"
    if content is not None:
        file.write_bytes(content)
    ended = run(library, "--token-file", str(file))
    assert ended.returncode == code
    assert "token" in ended.stderr and "Traceback" not in ended.stderr
    both = run(library, "--token-file", str(file), "--token", "0123456789abcdef")
    assert both.returncode == 2


def test_the_browser_gets_the_token_as_it_is(
    library: WebLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = library.root / "opened"
    browser = library.root / "browser"
    browser.write_text(f'#!/bin/sh\necho "$1" > {opened}.new\nmv {opened}.new {opened}\n')
    browser.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(browser))
    token = "a b&c=d#e%20f+0123456789"
    monkeypatch.setenv("RETRIEVAL_TOKEN", token)
    with server(library, "--open") as (_, address):
        while not opened.exists():
            time.sleep(0.05)
        url = opened.read_text().strip()
        assert url.startswith(f"{address}?")
        assert parse_qs(urlsplit(url).query) == {"token": [token]}


def test_an_address_of_another_machine_is_one_line(library: WebLibrary) -> None:
    ended = run(library, "--host", "192.0.2.1", "--token", "0123456789abcdef")
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: cannot listen on 192.0.2.1")
    assert len(ended.stderr.splitlines()) == 1


def test_the_help_imports_neither_the_server_nor_a_model() -> None:
    code = (
        "import sys; from retrieval_pipeline.cli.main import cli\n"
        "cli.main(['serve', '--help'], standalone_mode=False)\n"
        "assert not {'starlette', 'uvicorn', 'torch', 'numpy'} & set(sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True).returncode == 0


def test_a_server_that_was_killed_can_be_started_again_at_once(library: WebLibrary) -> None:
    with server(library) as (process, address):
        assert urllib.request.urlopen(address + "api/search?text=a+cat").status == 200
        process.kill()
        process.wait()
        port = address.rstrip("/").rpartition(":")[2]
        started = time.monotonic()
        with server(library, "--port", port) as (_, again):
            assert again == address
            assert urllib.request.urlopen(again + "api/search?text=a+cat").status == 200
        assert time.monotonic() - started < 60
