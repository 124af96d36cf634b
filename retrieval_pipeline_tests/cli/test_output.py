"""Who reads the output, and whether anybody does, never decides whether the work is done."""

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from retrieval_pipeline.cli.output import json_text
from retrieval_pipeline_tests.support.commands import (
    RETRIEVAL,
    assert_one_line,
    extract_home,
    retrieval,
)

# Each test starts programs or indexes pictures.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = extract_home(tmp_path_factory.mktemp("output"))
    # What an earlier version did not store yet is there before the tests.
    assert retrieval(directory, "index").returncode == 0
    return directory


@pytest.fixture
def changed(home: Path, tmp_path: Path) -> Path:
    """A home whose source lost a picture, so that the next run publishes another index."""
    directory = Path(shutil.copytree(home, tmp_path / "library"))
    (directory / "pictures" / "flower.jpg").unlink()
    return directory


def current(directory: Path) -> str:
    return (directory / "home" / "index" / "CURRENT").read_text()


def shell(directory: Path, script: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a script of bash in which $R is the command."""
    return subprocess.run(
        ["bash", "-c", script],
        cwd=directory,
        env=os.environ | {"R": " ".join(RETRIEVAL)} | environment,
        capture_output=True,
        text=True,
        stdin=subprocess.DEVNULL,
        timeout=120,
    )


@pytest.mark.parametrize(
    "script",
    [
        "$R index >/dev/full 2>&1",
        "$R index <&- >&- 2>&-",
        "$R index 2>&1 | true; exit ${PIPESTATUS[0]}",
        "$R index 2>&1 | grep -q hashing; exit ${PIPESTATUS[0]}",
    ],
)
def test_an_index_is_published_whoever_reads_the_output(changed: Path, script: str) -> None:
    former = current(changed)
    done = shell(changed, script)
    assert done.returncode == 0
    assert current(changed) != former


def test_bars_that_nobody_sees_any_more_stop_nothing(changed: Path) -> None:
    former = current(changed)
    parent, child = os.openpty()
    process = subprocess.Popen(
        [*RETRIEVAL, "index"],
        cwd=changed,
        stdin=subprocess.DEVNULL,
        stdout=child,
        stderr=child,
        env=os.environ | {"TERM": "xterm"},
    )
    os.close(child)
    os.read(parent, 1)
    # The window is closed; writing to a terminal without one is EIO.
    os.close(parent)
    assert process.wait(120) == 0
    assert current(changed) != former


def test_the_exit_code_tells_of_a_failure_that_nobody_reads(changed: Path) -> None:
    assert shell(changed, "$R index --source nowhere >/dev/full 2>/dev/full").returncode == 1
    assert shell(changed, "$R index --source nowhere >&- 2>&-").returncode == 1


def test_verify_tells_of_damage_by_its_exit_code_when_its_output_is_lost(changed: Path) -> None:
    next(changed.glob("home/index/*/*/items.arrow")).write_bytes(b"damaged")
    assert shell(changed, "$R verify | true; exit ${PIPESTATUS[0]}").returncode == 1
    assert shell(changed, "$R verify >/dev/full").returncode == 1


@pytest.mark.parametrize("command", ["status", "query cat --json", "use", "query --help", "--help"])
def test_results_that_cannot_be_written_are_one_line(home: Path, command: str) -> None:
    assert_one_line(shell(home, f"$R {command} >/dev/full"), "cannot be written", "No space left")


@pytest.mark.parametrize("command", ["status", "query cat", "--version"])
def test_a_closed_output_is_one_line(home: Path, command: str) -> None:
    assert_one_line(shell(home, f"$R {command} >&-"), "cannot be written", "Bad file descriptor")


def test_a_reader_that_has_enough_ends_a_pipe_of_queries_in_silence(home: Path) -> None:
    script = "yes cat | $R query -k 1 | head -1; exit ${PIPESTATUS[1]}"
    done = shell(home, script)
    assert (done.returncode, done.stdout, done.stderr) == (0, "cat\n", "likely\n")


def test_without_an_input_there_are_no_queries(home: Path) -> None:
    done = shell(home, "$R query <&-")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_what_the_terminal_cannot_show_is_an_escape(home: Path, tmp_path: Path) -> None:
    directory = extract_home(tmp_path / "library")
    (directory / "pictures").rename(directory / "絵")
    settings = directory / "retrieval.toml"
    settings.write_text(settings.read_text().replace('path = "pictures"', 'path = "絵"'))
    latin = {"PYTHONIOENCODING": "latin-1"}
    done = retrieval(directory, "query", "cat", "-k", "1", env=latin, started=True)
    assert done.returncode == 0, done.stderr
    assert "\\u7d75/cat.jpg" in done.stdout


def closed(*descriptors: int) -> Callable[[], None]:
    def close() -> None:
        for descriptor in descriptors:
            os.close(descriptor)

    return close


def test_no_file_takes_the_number_of_a_closed_stream(changed: Path) -> None:
    """What is printed would be written into it."""
    done = retrieval(changed, "index", preexec_fn=closed(0, 1, 2))
    assert done.returncode == 0
    assert retrieval(changed, "verify").returncode == 0
    for file in (changed / "home").rglob("*"):
        assert not file.is_file() or b"image files" not in file.read_bytes()


def test_json_has_letters_as_they_are_and_escapes_what_utf8_or_terminals_do_not_take() -> None:
    value = {"Müller 日本 \N{GRINNING FACE}": 'a\nb\t\x1b[2J\x9b\u202e\xa0\udcff\U000e0001 \\ "'}
    for indent in (None, 2):
        text = json_text(value, indent=indent)
        assert json.loads(text) == value
        assert "Müller 日本 \N{GRINNING FACE}" in text
        assert "".join(text.splitlines()).isprintable()
        text.encode()
