"""What people look at: hits on a terminal, what failed, and why there is nothing."""

import contextlib
import io
import json
import os
import pty
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from retrieval_pipeline.cli.bars import BarProgress
from retrieval_pipeline.cli.styled import DIVIDER, styled_answer
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.results import Answer, Hit
from retrieval_pipeline_tests.support.commands import RETRIEVAL, extract_home, retrieval

DIM = "\x1b[2m"
CURSOR_UP = "\x1b[1A"


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_home(tmp_path_factory.mktemp("looking") / "library")


def hit(path: str, relevance: float) -> Hit:
    place = Location("a", Path(path).name)
    return Hit("id", Path(path), place, 0.2, relevance, (place,), 10, 10)


def shown(*hits: Hit) -> list[str]:
    """The lines of an answer as a terminal gets them, without the names of the columns."""
    answer = Answer(Query(text="x"), hits, "model", "build", {})
    console = Console(
        file=io.StringIO(), force_terminal=True, color_system="standard", soft_wrap=True
    )
    with console.capture() as captured:
        for line in styled_answer(answer, heading=False):
            console.print(line)
    names, *lines = captured.get().splitlines()
    assert names.startswith(f"{DIM}   #   score  relevance")
    return lines


def test_hits_that_are_not_likely_are_faint_below_a_divider() -> None:
    likely, divider, other = shown(hit("/p/a b.jpg", 0.9), hit("/p/\x1b[2J.jpg", 0.1))
    assert DIM not in likely.replace(DIVIDER, "")
    assert "'/p/a b.jpg'" in likely
    assert "\x1b]8;" in likely
    assert "file:///p/a%20b.jpg" in likely
    assert DIVIDER.strip() in divider
    assert "\x1b[2J" not in other
    assert "$'/p/\\033[2J.jpg'" in other
    assert len(shown(hit("/p/a.jpg", 0.1), hit("/p/b.jpg", 0.1))) == 2


def test_what_follows_a_path_has_its_own_line_where_the_terminal_is_narrow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Four characters of two columns each.
    one = replace(hit("/p/日本写真.jpg", 0.9), alike=2)
    line = "   1   0.200        90%  /p/日本写真.jpg  (and 2 pictures like it)"
    for columns, expected in ((len(line) + 4, 1), (len(line) + 3, 2)):
        monkeypatch.setenv("COLUMNS", str(columns))
        assert len(shown(one)) == expected


def test_bars_go_on_below_what_was_printed_meanwhile(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setenv("TTY_COMPATIBLE", "1")
    monkeypatch.setattr("sys.stderr", screen)
    progress = BarProgress()
    for stage in ("one", "two"):
        progress.start(stage, 1, "files")
        progress.advance()
        progress.finish()
    progress.pause()
    before = len(screen.getvalue())
    progress.start("three", None, "")
    progress.finish()
    progress.pause()
    later = screen.getvalue()[before:]
    assert "three" in later
    assert CURSOR_UP not in later
    assert "0/0" not in later


@pytest.mark.slow
def test_a_terminal_that_shows_pictures_has_one_beside_each_hit(library: Path) -> None:
    query = [*RETRIEVAL, "query", "--sort", "name", "-n", "2"]
    for options, pictures in (((), 2), (("--no-thumbnails",), 0), (("--paths",), 0)):
        parent, child = pty.openpty()
        process = subprocess.Popen(
            [*query, *options],
            cwd=library,
            stdout=child,
            stderr=subprocess.DEVNULL,
            env={name: value for name, value in os.environ.items() if name != "TMUX"}
            | {"TERM": "foot"},
        )
        os.close(child)
        text = b""
        with contextlib.suppress(OSError):  # The end of a terminal.
            while data := os.read(parent, 100_000):
                text += data
        os.close(parent)
        assert process.wait() == 0
        assert text.count(b"\x1b7\x1bPq") == text.count(b"\x1b\\\x1b8") == pictures
        # Five rows for each: made first, and then written.
        assert text.count(b"\x1b[5A") == pictures


@pytest.mark.slow
def test_a_terminal_gets_links_and_without_colour_none(library: Path) -> None:
    for variables in ({}, {"NO_COLOR": "1"}):
        parent, child = pty.openpty()
        subprocess.run(
            [*RETRIEVAL, "query", "--sort", "name", "-n", "1"],
            cwd=library,
            stdout=child,
            stderr=subprocess.PIPE,
            check=True,
            env=os.environ | {"TERM": "xterm-256color"} | variables,
        )
        os.close(child)
        text = os.read(parent, 10_000).decode()
        os.close(parent)
        assert "\x1b]8;" in text
        assert ("\x1b[36m" in text) == (not variables)


def test_no_picture_that_passes_the_filters_is_not_nothing_that_looks_so(library: Path) -> None:
    query = ("query", "--sort", "name", "--path", "nowhere/*")
    done = retrieval(library, *query)
    assert (done.returncode, done.stdout) == (0, "no picture passes the filters\n")
    assert retrieval(library, *query, "--fail-empty").returncode == 1
    assert "no query came" in retrieval(library, "query", "--path", "nowhere/*").stderr
    assert Answer(Query(text="x"), (), "", "", {}).verdict == "nothing here looks like that"
    assert Answer(Query(text="x"), (), "", "", {}, offset=9).verdict == "there are no more hits"


def test_the_status_lists_what_failed_with_the_reasons(library: Path) -> None:
    counted = json.loads(retrieval(library, "status", "--json").stdout)["sources"][0]["quarantined"]
    failed = json.loads(retrieval(library, "status", "--failed", "--json").stdout)
    assert [each["reason"] for each in failed] == list(counted)
    text = retrieval(library, "status", "--failed").stdout
    assert all(each["path"] in text and Path(each["path"]).exists() for each in failed)


def test_the_beginning_of_the_name_of_a_build_is_enough(library: Path) -> None:
    (build,) = (path.parent for path in (library / "home" / "index").rglob("build.json"))
    builds, name = build.parent, build.name
    done = retrieval(library, "use", name[:10])
    assert f"{name} answers now" in done.stdout, done.stderr
    (builds / f"{name[:-8]}00000000").mkdir()
    done = retrieval(library, "use", name[:10])
    assert done.returncode == 1
    assert "beginning of several" in done.stderr
    assert retrieval(library, "use", name).returncode == 0


def test_shells_complete_commands(tmp_path: Path) -> None:
    for shell in ("bash", "zsh", "fish"):
        done = retrieval(tmp_path, "completion", shell)
        assert f"_RETRIEVAL_COMPLETE={shell}_complete" in done.stdout, done.stderr
        if shell == "bash":
            subprocess.run(["bash", "-n"], input=done.stdout, text=True, check=True)
    env = {"_RETRIEVAL_COMPLETE": "bash_complete", "COMP_WORDS": "retrieval sta", "COMP_CWORD": "1"}
    assert retrieval(tmp_path, env=env).stdout == "plain,status\n"
