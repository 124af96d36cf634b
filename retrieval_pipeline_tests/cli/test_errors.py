"""Whatever people type, own or break: one line says what is wrong. Bugs alone are tracebacks."""

import json
import os
import shutil
from pathlib import Path

import pytest

from retrieval_pipeline_tests.support.commands import (
    assert_one_line,
    extract_home,
    obey_permissions,
    retrieval,
)

# Each test starts programs or indexes pictures.
pytestmark = pytest.mark.slow

# A name that is not UTF-8, clears the screen, breaks the line and turns the text around.
NASTY = b"a\xff\x1b[2J\nb\xe2\x80\xaec"
STEERING = ("\x1b", "\u202e", "\udcff")
LONG = "a" * 5000


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_home(tmp_path_factory.mktemp("errors"))


@pytest.mark.parametrize(
    "arguments",
    [
        ["query", b"a \xff cat"],
        ["query", "cat", "--plus", b"\xff"],
        ["query", "cat", "--minus", b"\xff"],
        ["query", "cat", "--format", b"\xff"],
        ["query", "--like", b"\xff"],
        ["map", "--like", b"\xff"],
    ],
    ids=str,
)
def test_text_that_is_not_utf8_is_one_line(home: Path, arguments: list[str | bytes]) -> None:
    assert_one_line(retrieval(home, *arguments), "is not UTF-8 text")


def test_a_piped_line_that_is_not_utf8_leaves_the_next_ones_alone(home: Path) -> None:
    lines = b"a cat\n\xff\\\na rocket\n".decode(errors="surrogateescape")
    done = retrieval(home, "query", "--json", "-k", "1", input=lines)
    first, second, third = [json.loads(line) for line in done.stdout.splitlines()]
    assert first["hits"][0]["path"].endswith("cat.jpg")
    assert second["query"] == "\\xff\\"
    assert "is not UTF-8 text" in second["error"]
    assert third["hits"][0]["path"].endswith("rocket.jpg")
    assert "is not UTF-8 text" in done.stderr
    assert done.returncode == 1


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["init", NASTY, "--model", "offline", "--config", "new.toml"], 1),
        (["index", "--config", NASTY], 1),
        (["index", "--source", NASTY], 1),
        (["query", "cat", "--source", NASTY], 1),
        (["query", "cat", NASTY], 1),
        (["query", "cat", b"--" + NASTY], 2),
    ],
    ids=str,
)
def test_a_name_cannot_steer_the_terminal(
    home: Path, arguments: list[str | bytes], code: int
) -> None:
    done = retrieval(home, *arguments)
    assert done.returncode == code
    assert "\\x1b[2J\\nb\\u202ec" in done.stderr
    assert not any(char in done.stderr for char in STEERING)


def test_a_source_with_a_nasty_name_is_shown_on_one_line(home: Path, tmp_path: Path) -> None:
    directory = extract_home(tmp_path / "library")
    pictures = directory / "red\x1b[31m\nalert"
    (directory / "pictures").rename(pictures)
    done = retrieval(directory, "init", pictures.name, "--model", "offline", "--force")
    assert done.returncode == 0
    assert "red\\x1b[31m\\nalert" in done.stdout
    shutil.rmtree(pictures)
    done = retrieval(directory, "index")
    assert done.returncode == 1
    assert "red\\x1b[31m\\nalert" in done.stderr
    assert "\x1b" not in done.stderr


@pytest.mark.parametrize(
    "arguments",
    [
        ["query", "cat", "--config", LONG],
        ["query", "--image", LONG],
        ["query", "cat", "--gallery", LONG],
        ["map", "--output", LONG],
        ["recommend", "--from-json", LONG],
        ["init", LONG, "--model", "offline", "--config", "new.toml"],
    ],
    ids=lambda arguments: " ".join(arguments)[:30],
)
def test_a_path_that_is_too_long_is_one_line(home: Path, arguments: list[str]) -> None:
    assert_one_line(retrieval(home, *arguments), "File name too long")


@pytest.mark.parametrize("digits", [4000, 5000])
def test_a_number_of_thousands_of_digits_is_bad_usage(home: Path, digits: int) -> None:
    for arguments in (["query", "cat", "-k"], ["query", "cat", "--min-width"], ["map", "--sample"]):
        done = retrieval(home, *arguments, "9" * digits)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("vote", "why"),
    [
        ('{"path": "a\\u0000b", "liked": true}', "no such file"),
        (f'{{"path": "{LONG}", "liked": true}}', "File name too long"),
        (f'{{"path": {"9" * 4000}, "liked": true}}', "must be a text"),
        (f'{{"path": {"9" * 5000}, "liked": true}}', "not a JSON list"),
        ('{"path": "\\ud800", "liked": true}', "not a JSON list"),
    ],
    ids=["NUL", "long", "4000 digits", "5000 digits", "surrogate"],
)
def test_a_bad_vote_is_one_line_that_names_the_file(
    home: Path, tmp_path: Path, vote: str, why: str
) -> None:
    votes = tmp_path / "votes.json"
    votes.write_text(f"[{vote}]")
    assert_one_line(retrieval(home, "recommend", "--from-json", str(votes)), str(votes), why)


@pytest.mark.parametrize(
    "arguments", [["status"], ["query", "cat"], ["index"], ["init", "."], ["demo"]], ids=str
)
def test_a_working_directory_that_is_gone_is_one_line(tmp_path: Path, arguments: list[str]) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    done = retrieval(gone, *arguments, preexec_fn=gone.rmdir)
    assert_one_line(done, "working directory is gone")


@pytest.mark.parametrize("command", ["status", "index", "query", "init"])
def test_a_home_whose_name_is_not_utf8_is_one_line(tmp_path: Path, command: str) -> None:
    directory = extract_home(Path(os.fsdecode(os.fsencode(tmp_path) + b"/home\xff")))
    arguments = {"query": ["cat"], "init": [".", "--force"]}.get(command, [])
    assert_one_line(retrieval(directory, command, *arguments), "home\\xff", "UTF-8")


@pytest.mark.parametrize(
    ("part", "commands"),
    [
        ("home", ["status", "verify", "use", "gc", "map", "query cat"]),
        ("home/manifest", ["status", "gc --dry-run"]),
        ("home/index", ["use", "map", "query cat"]),
        ("home/index/*/*", ["use", "query cat"]),
        ("home/index/*/*/items.arrow", ["map", "verify"]),
        ("home/judgements", ["recommend --name pets --rank 1", "verify"]),
        ("home/embeddings/*/*", ["status", "index"]),
        ("retrieval.toml", ["status"]),
    ],
)
def test_what_may_not_be_read_is_never_a_traceback(
    tmp_path: Path, part: str, commands: list[str]
) -> None:
    directory = extract_home(tmp_path / "library")
    forbidden = next(directory.glob(part))
    mode = forbidden.stat().st_mode
    forbidden.chmod(0)
    try:
        for command in commands:
            done = retrieval(directory, *command.split(), preexec_fn=obey_permissions)
            assert "Traceback" not in done.stderr
            assert done.returncode in (0, 1)
    finally:
        forbidden.chmod(mode)


def test_an_error_of_the_system_names_the_file(tmp_path: Path) -> None:
    directory = extract_home(tmp_path / "library")
    home = directory / "home"
    home.chmod(0)
    try:
        done = retrieval(directory, "use", preexec_fn=obey_permissions)
        assert_one_line(done, str(home / "index"), "Permission denied")
    finally:
        home.chmod(0o755)


def test_ctrl_c_while_a_library_is_imported_is_one_word(home: Path, tmp_path: Path) -> None:
    (tmp_path / "pyarrow.py").write_text(
        "import os, signal\n"
        "try:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "except KeyboardInterrupt:\n"
        "    raise AttributeError('partially initialized') from None\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = retrieval(home, "status", env={"PYTHONPATH": path}, started=True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "interrupted\n")


def test_a_bug_stays_a_traceback(home: Path, tmp_path: Path) -> None:
    patch = tmp_path / "sitecustomize.py"
    patch.write_text(
        "from retrieval_pipeline.cli.commands import status\n"
        "def broken(config):\n"
        "    raise AttributeError('a bug')\n"
        "status.load_settings = broken\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = retrieval(home, "status", env={"PYTHONPATH": path}, started=True)
    assert done.returncode == 1
    assert done.stderr.startswith("Traceback")
    assert done.stderr.endswith("AttributeError: a bug\n")


def test_a_pipe_that_breaks_inside_is_an_error_and_not_the_end_of_the_output(
    home: Path, tmp_path: Path
) -> None:
    patch = tmp_path / "sitecustomize.py"
    patch.write_text(
        "from retrieval_pipeline.cli.commands import status\n"
        "def broken(config):\n"
        "    raise BrokenPipeError(32, 'Broken pipe')\n"
        "status.load_settings = broken\n"
    )
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = retrieval(home, "status", env={"PYTHONPATH": path}, started=True)
    assert_one_line(done, "Broken pipe")


@pytest.mark.parametrize(
    ("weight", "why"),
    [("9" * 39, "the largest weight is 100"), ("100.5", "largest weight"), ("0", "above 0")],
)
def test_a_weight_out_of_bounds_is_one_line(home: Path, weight: str, why: str) -> None:
    assert_one_line(retrieval(home, "query", "cat", "--minus", f"{weight}*dog"), why)


def test_a_wrong_date_says_what_is_wrong_with_it(home: Path) -> None:
    done = retrieval(home, "query", "cat", "--after", "2024-02-30")
    assert_one_line(done, '"2024-02-30" is no date', "day is out of range for month")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["query", "cat", "--near", ""], "'--near': it is empty"),
        (["query", "cat", "--after", " "], "'--after': it is empty"),
        (["query", "cat", "--copy-to", ""], "'--copy-to': it is empty"),
        (["query", "cat", "--min-relevance", "nan"], "nan is no number"),
    ],
    ids=str,
)
def test_a_value_that_nobody_can_have_meant_is_bad_usage(
    home: Path, arguments: list[str], why: str
) -> None:
    done = retrieval(home, *arguments)
    assert (done.returncode, done.stdout) == (2, "")
    assert why in done.stderr


def test_a_directory_that_is_named_twice_is_called_that(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to("a")
    assert_one_line(retrieval(tmp_path, "init", "a", "./a"), f"{tmp_path / 'a'} is given twice")
    assert_one_line(retrieval(tmp_path, "init", "a", "link"), "are the same directory")
    assert not (tmp_path / "retrieval.toml").exists()


def test_init_does_not_tell_of_its_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    done = retrieval(tmp_path, "init", "a", "a/b")
    assert_one_line(done, 'source "b"', "lies inside")
    assert ".tmp-" not in done.stderr


@pytest.mark.parametrize(
    "target", ["pictures", "retrieval.toml/page.html", "/proc/page.html", "pipe"]
)
@pytest.mark.parametrize(
    "arguments",
    [["query", "cat"], ["duplicates"], ["recommend", "--name", "pets", "--rank", "1"]],
    ids=str,
)
def test_a_gallery_that_cannot_be_written_is_told_before_the_work(
    home: Path, arguments: list[str], target: str
) -> None:
    if target == "pipe" and not (home / target).exists():
        os.mkfifo(home / target)
    done = retrieval(home, *arguments, "--gallery", target)
    assert_one_line(done, target)
    assert done.stdout == ""


def test_json_holds_the_escapes_of_the_manifest(tmp_path: Path) -> None:
    directory = extract_home(tmp_path / "library")
    odd = Path(os.fsdecode(os.fsencode(directory) + b"/\xff\\odd"))
    odd.mkdir()
    (directory / "pictures").rename(odd / "pictures")
    settings = (directory / "retrieval.toml").read_text()
    settings = settings.replace('home = "home"', f'home = "{directory}/home"')
    (odd / "retrieval.toml").write_text(settings)
    for arguments in (
        ["query", "cat", "--json"],
        ["query", "--image", "pictures/cat.jpg", "--json"],
        ["status", "--json"],
        ["duplicates", "--json"],
    ):
        done = retrieval(odd, *arguments)
        assert done.returncode == 0, done.stderr
        # What a strict parser does: a lone surrogate is no text.
        json.loads(done.stdout, object_hook=lambda value: str(value).encode() and value)
        assert "\\\\xff\\\\\\\\odd/pictures" in done.stdout
