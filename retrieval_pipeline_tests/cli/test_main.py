"""The command line as a person uses it: real processes, their output and their exit codes."""

import contextlib
import io
import json
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import pytest
from PIL import Image

from retrieval_pipeline.cli.main import cli
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline_tests.support.commands import RETRIEVAL, own_environment, retrieval
from synthetic.checkpoints import make_clip

# Each test starts programs or indexes pictures.
pytestmark = pytest.mark.slow


def run(directory: Path, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return retrieval(directory, *arguments, input=stdin)


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory, sample_photos: dict[str, Path]) -> Path:
    """A directory with settings and an index of a few photographs, made by the commands."""
    directory = tmp_path_factory.mktemp("cli")
    pictures = directory / "pictures"
    pictures.mkdir()
    for name, photo in sample_photos.items():
        (pictures / f"{name}{photo.suffix}").write_bytes(photo.read_bytes())
    (pictures / "copy of cat.png").write_bytes(sample_photos["cat"].read_bytes())
    (pictures / "no picture.jpg").write_text("text")
    assert run(directory, "init", "pictures", "--model", "offline").returncode == 0
    done = run(directory, "index")
    assert done.returncode == 0, done.stderr
    return directory


def test_help_teaches_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\n"
        "from retrieval_pipeline.cli.main import cli\n"
        "cli.main(['--help'], standalone_mode=False)\n"
        "heavy = {'torch', 'dagster', 'pyarrow', 'pydantic', 'webbrowser'} & set(sys.modules)\n"
        "sys.exit(f'imported {heavy}' if heavy else 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "retrieval init ~/Pictures" in done.stdout


@pytest.mark.parametrize(
    "command", ["demo", "init", "models", "index", "query", "status", "use", "verify", "gc"]
)
def test_every_command_has_help(tmp_path: Path, command: str) -> None:
    done = run(tmp_path, command, "--help")
    assert done.returncode == 0
    assert done.stdout.startswith(f"Usage: retrieval {command}")


def test_the_options_of_a_query_stand_under_headings_and_without_limits_of_the_program(
    tmp_path: Path,
) -> None:
    shown = run(tmp_path, "query", "--help").stdout
    looked_for, filters = (
        shown.index(f"\n{heading}:\n")
        for heading in ("What to look for", "Which pictures may be found")
    )
    assert looked_for < shown.index("--minus TEXT") < filters < shown.index("--source NAME")
    assert "1000000000" not in shown
    done = run(tmp_path, "query", "a dog", "-k", "0")
    assert "0 is not in the range" in done.stderr


def test_init_writes_a_file_that_is_not_overwritten_by_accident(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    first = run(tmp_path, "init", "a", "--model", "offline")
    assert first.returncode == 0
    assert "Look it over" in first.stdout
    second = run(tmp_path, "init", "a", "--model", "offline")
    assert second.returncode == 1
    assert "exists already" in second.stderr
    assert run(tmp_path, "init", "a", "--model", "offline", "--force").returncode == 0
    assert "is not a directory" in run(tmp_path, "init", "nowhere", "--force").stderr


def test_init_without_directories_writes_nothing_where_it_cannot_ask(tmp_path: Path) -> None:
    (tmp_path / "a b.jpg").touch()
    done = run(tmp_path, "init", "--model", "offline")
    assert done.returncode == 2
    assert (
        f"name the directories of your pictures, such as: retrieval init {tmp_path}" in done.stderr
    )
    assert [file.name for file in tmp_path.iterdir()] == ["a b.jpg"]


@pytest.mark.parametrize("typed", ["", "elsewhere"])
def test_init_asks_for_directories_and_writes_nothing_among_pictures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, typed: str
) -> None:
    pictures, config = tmp_path / "pictures", tmp_path / "config"
    (pictures / "elsewhere").mkdir(parents=True)
    (pictures / "a.jpg").touch()
    monkeypatch.setenv("XDG_CONFIG_HOME", str(config))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    monkeypatch.delenv("RETRIEVAL_CONFIG", raising=False)
    monkeypatch.chdir(pictures)
    monkeypatch.setattr("sys.stdin", Terminal(f"{typed}\n"))
    with contextlib.redirect_stderr(io.StringIO()) as asked:
        cli.main(["init", "--model", "offline"], standalone_mode=False)
    assert f"Directories of your pictures [{pictures}]: " in asked.getvalue()
    settings = load_settings()
    if typed:
        assert (pictures / "retrieval.toml").is_file()
        assert settings.sources[0].path == pictures / "elsewhere"
    else:
        (config / "retrieval" / "retrieval.toml").unlink()
        # The same if it is named.
        cli.main(["init", ".", "--model", "offline"], standalone_mode=False)
        settings = load_settings()
        assert sorted(file.name for file in pictures.iterdir()) == ["a.jpg", "elsewhere"]
        assert (config / "retrieval" / "retrieval.toml").is_file()
        assert settings.sources[0].path == pictures
        assert settings.home == tmp_path / "data" / "retrieval"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_list_of_commands_is_whole_and_says_the_exit_codes(tmp_path: Path) -> None:
    shown = run(tmp_path, "--help").stdout
    assert "..." not in shown.partition("Commands:")[2]
    assert "130, 143  interrupted" in shown


@pytest.mark.parametrize("command", [["index"], ["query", "a dog"], ["status"], ["verify"]])
def test_without_settings_one_line_says_what_to_do(tmp_path: Path, command: list[str]) -> None:
    done = run(tmp_path, *command)
    assert done.returncode == 1
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert "retrieval init" in done.stderr


def test_a_query_before_the_first_index_says_what_to_do(tmp_path: Path) -> None:
    run(tmp_path, "init", ".", "--model", "offline", "--config", "retrieval.toml")
    done = run(tmp_path, "query", "a dog")
    assert done.returncode == 1
    assert done.stderr.startswith("error: nothing is indexed yet")
    assert "nothing is stored" in run(tmp_path, "verify").stderr


@pytest.mark.parametrize(
    "arguments", [["query", "a dog", "-k", "0"], ["query", "--nonsense"], ["no-such-command"]]
)
def test_bad_usage_exits_with_2(library: Path, arguments: list[str]) -> None:
    done = run(library, *arguments)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_a_query_prints_rank_score_path_and_copies(library: Path) -> None:
    done = run(library, "query", "a cat", "-k", "3")
    lines = done.stdout.splitlines()
    assert done.returncode == 0
    rank, score, relevance, taken, path, camera = lines[0].split(maxsplit=5)
    assert rank == "1"
    assert 0 < float(score) <= 1
    assert relevance.endswith("%")
    assert Path(path) == library / "pictures" / "cat.png"
    # As the camera wrote them into the file.
    assert (taken, camera) == ("2009-02-09", "[Pentax K100D Super]")
    assert lines[1].strip() == "also in pictures: copy of cat.png"
    assert len(lines) == 4


def test_the_json_of_a_query_keeps_the_contract(library: Path) -> None:
    done = run(library, "query", "a rocket launch", "--json", "-k", "2")
    answer = json.loads(done.stdout)
    assert list(answer) == [
        *("query", "understood", "notes", "model", "build", "likely", "hits", "hints", "timings_ms")
    ]
    assert answer["query"] == "a rocket launch"
    assert answer["model"] == "offline"
    assert len(answer["hits"]) == 2
    assert [hit["likely"] for hit in answer["hits"]] == [True, False]
    assert answer["likely"] == 1
    hit = answer["hits"][0]
    assert {
        "content_id",
        "path",
        "source",
        "score",
        "relevance",
        "locations",
        "facts",
    } <= hit.keys()
    assert hit["path"] == str(library / "pictures" / "rocket.jpg")
    assert hit["locations"] == [{"source": "pictures", "path": "rocket.jpg"}]


def test_a_list_of_hits_ends_with_how_many_are_likely(library: Path) -> None:
    for text, verdict in (
        ("a rocket launch", "1 likely; the rest are only the nearest\n"),
        ("a piano", "nothing here looks like that: only the nearest are shown\n"),
    ):
        assert run(library, "query", text, "-k", "2").stderr == verdict


# Each takes from 30 ms to some seconds, and start-up is most of the time that these commands take.
SLOW = {
    *("torch", "transformers", "scipy", "sklearn", "pandas", "faiss", "onnxruntime"),
    *("PIL", "dagster", "ray", "jinja2", "joblib", "huggingface_hub", "pyarrow.dataset"),
    # What one command needs alone, or a settings file that is somewhere else.
    *("retrieval_pipeline.cli.commands.demo", "webbrowser", "platformdirs"),
    # Engines are for homes that have one.
    *("retrieval_pipeline.pipeline.engine", "retrieval_pipeline.index.milvus.ledger"),
}


@pytest.mark.parametrize(
    "command", [("query", "a cat"), ("index", "-q"), ("status",)], ids=" ".join
)
def test_a_command_that_has_no_picture_to_embed_imports_nothing_slow(
    library: Path, command: tuple[str, ...]
) -> None:
    code = (
        "import atexit, sys\n"
        "atexit.register(lambda: print(*sys.modules, file=sys.stderr))\n"
        "from retrieval_pipeline.cli.main import main\n"
        "main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *command],
        cwd=library,
        capture_output=True,
        text=True,
        env=own_environment(),
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert not SLOW.intersection(done.stderr.splitlines()[-1].split())
    # So that cron sends no mail.
    assert (done.stdout == "") == ("-q" in command)


def test_a_picture_can_be_the_query(library: Path) -> None:
    done = run(library, "query", "--image", "pictures/coffee.png", "-k", "1", "--json")
    assert json.loads(done.stdout)["hits"][0]["path"].endswith("coffee.png")


@pytest.mark.parametrize("image", ["pictures/no picture.jpg", "nowhere.jpg"])
def test_a_picture_that_cannot_be_read_is_one_line(library: Path, image: str) -> None:
    done = run(library, "query", "--image", image)
    assert done.returncode == 1
    assert len(done.stderr.splitlines()) == 1
    assert Path(image).name in done.stderr


def test_an_empty_query_is_one_line(library: Path) -> None:
    done = run(library, "query", "")
    assert done.returncode == 1
    assert done.stderr.startswith("error: the query is empty")


def test_piped_lines_are_answered_one_by_one_as_json_lines(library: Path) -> None:
    done = run(library, "query", "--json", "-k", "1", stdin="a cat\n\na cup of coffee\n")
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [answer["query"] for answer in answers] == ["a cat", "", "a cup of coffee"]
    assert answers[0]["hits"][0]["path"].endswith("cat.png")
    assert answers[1]["error"].startswith("the query is empty")
    assert answers[2]["hits"][0]["path"].endswith("coffee.png")
    assert done.returncode == 1


def test_exit_leaves_the_prompt(library: Path) -> None:
    done = run(library, "query", "-k", "1", stdin="a cat\nexit\na dog\n")
    assert done.returncode == 0
    assert done.stdout.splitlines()[0] == "a cat"
    assert "a dog" not in done.stdout


def test_on_a_terminal_it_prompts_until_ctrl_d(library: Path, tmp_path: Path) -> None:
    opener = tmp_path / "bin" / ("open" if sys.platform == "darwin" else "xdg-open")
    opener.parent.mkdir()
    opener.write_text(f'#!/bin/sh\necho "$1" > {tmp_path}/opened\n')
    opener.chmod(0o755)
    parent, child = pty.openpty()
    process = subprocess.Popen(
        [*RETRIEVAL, "query", "--minus", "a dog"],
        cwd=library,
        stdin=child,
        stdout=child,
        stderr=child,
        env=own_environment()
        | {"PATH": f"{opener.parent}:{os.environ['PATH']}", "XDG_STATE_HOME": str(tmp_path)},
    )
    os.close(child)
    said = []
    for text in ("", ":help", "a cat -k 1", "1", "2", "a dog's bed --json", "a -k x", "\x04"):
        said.append(_read_until(parent, "> "))
        os.write(parent, text.encode() + (b"" if text == "\x04" else b"\n"))
    end = _read_until(parent, None)
    assert process.wait(timeout=60) == 0
    start, nothing, helped, hits, opened, missing, refused, wrong = said
    assert '"exit" or Ctrl-D leaves' in start
    assert nothing.split() == [">"]
    assert "open the third hit" in helped
    # The terminal echoes what is typed; the answer does not repeat it.
    assert hits.count("a cat") == 1
    assert "cat.png" in hits
    assert "rocket.jpg" not in hits
    assert "error" not in opened
    assert (tmp_path / "opened").read_text() == f"{library / 'pictures' / 'cat.png'}\n"
    assert "error: there is no hit 2 to open" in missing
    assert "error: where answers go is said on the command line" in refused
    assert "error: Invalid value for '-k'" in wrong
    assert "Traceback" not in end
    history = tmp_path / "retrieval" / "history"
    assert "a cat -k 1" in history.read_text().splitlines()
    assert history.stat().st_mode & 0o777 == 0o600


def _read_until(terminal: int, mark: str | None) -> str:
    shown = ""
    while mark is None or not shown.endswith(mark):
        try:
            data = os.read(terminal, 4096)
        except OSError:
            break
        if not data:
            break
        shown += data.decode()
    return shown


def test_a_gallery_is_written_where_it_is_asked_for(library: Path, tmp_path: Path) -> None:
    page = tmp_path / "hits.html"
    done = run(library, "query", "a cat", "--gallery", str(page))
    assert done.returncode == 0
    assert str(page) in done.stderr
    assert "data:image/" in page.read_text(encoding="utf-8")


def test_index_says_what_it_did_and_a_second_run_has_nothing_to_do(library: Path) -> None:
    done = run(library, "index")
    assert done.returncode == 0
    assert "9 image files (nothing new)" in done.stdout
    assert "is up to date" in done.stdout


def test_the_status_names_what_failed(library: Path) -> None:
    text = run(library, "status").stdout
    assert "7 embedded, 0 to do" in text
    assert "in quarantine: 1 not an image" in text
    assert "cameras: 2 Pentax K100D Super" in text
    state = json.loads(run(library, "status", "--json").stdout)
    assert state["sources"][0]["quarantined"] == {"not_an_image": 1}
    assert state["index"]["items"] == 7


@pytest.mark.slow
def test_verify_finds_and_repairs_damage_and_gc_clears_away(library: Path, tmp_path: Path) -> None:
    import shutil

    copy = tmp_path / "copy"
    shutil.copytree(library, copy)
    assert run(copy, "verify").returncode == 0
    part = next((copy / "retrieval-home" / "embeddings").glob("*/*/part-*.parquet"))
    part.write_bytes(part.read_bytes()[:-50])
    done = run(copy, "verify")
    assert done.returncode == 1
    assert "part-000001.parquet" in done.stdout
    assert "Traceback" not in done.stderr
    done = run(copy, "verify", "--repair")
    assert done.returncode == 0, done.stderr
    assert "part-000001.parquet: 7 embeddings kept" in done.stdout
    assert "set aside by a repair" in run(copy, "gc", "--dry-run").stdout
    assert "given back" in run(copy, "gc").stdout
    assert run(copy, "gc").stdout == "there is nothing to give back\n"


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_work_and_says_how_to_go_on(
    tmp_path: Path, number: signal.Signals
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for index in range(64):
        Image.new("RGB", (300, 200), (index, 99, 99)).save(pictures / f"{index:04d}.png")
    run(tmp_path, "init", "pictures", "--model", "offline")
    process = subprocess.Popen(
        [*RETRIEVAL, "index"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=own_environment(),
    )
    home = tmp_path / "retrieval-home"
    while not (home / "manifest" / "pictures.parquet").exists():
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert "Run `retrieval index` again to go on" in errors
    assert "Traceback" not in errors
    assert not list(home.glob("**/.tmp-*"))
    assert run(tmp_path, "index").returncode == 0
    assert run(tmp_path, "verify").returncode == 0


def test_a_signal_stops_the_hashing_of_a_huge_file(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (30, 20)).save(pictures / "a.png")
    (pictures / "b.png").touch()
    os.truncate(pictures / "b.png", 900 * 10**9)
    run(tmp_path, "init", "pictures", "--model", "offline")
    with (tmp_path / "retrieval.toml").open("a") as file:
        file.write("[images]\nmax_megabytes = 1e6\n")
    process = subprocess.Popen(
        [*RETRIEVAL, "index"],
        cwd=tmp_path,
        stderr=subprocess.PIPE,
        text=True,
        env=own_environment(),
    )
    reads = f"{pictures}/b.png"
    try:
        while reads not in open_files(process.pid):
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 128 + signal.SIGTERM
    assert "stopped while hashing pictures: finished files are kept" in errors


def open_files(pid: int) -> list[str]:
    """Return the paths that a process has open."""
    found = []
    for descriptor in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(descriptor.readlink()))
    return found


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_ends_a_run_at_once_that_waits_for_a_dead_disk(
    number: signal.Signals,
) -> None:
    script = """
import threading
from retrieval_pipeline.cli.commands.common import stoppable
from retrieval_pipeline.concurrency import ordered_map
hangs = threading.Event().wait  # as a read from a disk that is gone
with stoppable():
    print("ready", flush=True)
    list(ordered_map(lambda _: hangs(), [1], threads=1))
"""
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=own_environment(),
    )
    assert process.stdout is not None and process.stderr is not None
    try:
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert "once more to end at once" in process.stderr.readline()
        process.send_signal(number)
        assert process.wait(timeout=60) == -number
    finally:
        process.kill()
        process.communicate()


def test_odd_times_and_sizes_of_files_end_no_command(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for name, color, year in (
        ("late", "red", 2300),
        ("early", "blue", 1600),
        ("now", "lime", None),
    ):
        Image.new("RGB", (30, 20), color).save(pictures / f"{name}.png")
        if year:
            moment = datetime(year, 1, 1, tzinfo=UTC).timestamp()
            os.utime(pictures / f"{name}.png", (moment, moment))
    (pictures / "huge.png").touch()
    os.truncate(pictures / "huge.png", 8 * 10**12)
    run(tmp_path, "init", "pictures", "--model", "offline")
    done = run(tmp_path, "index")
    assert done.returncode == 0, done.stderr
    assert "pictures/late.png: its time of change is stored as of 2262" in done.stderr
    assert "pictures/huge.png: too large: 8,000,000,000,000 bytes" in done.stderr
    assert "4 image files (4 new); 3 embedded (" in done.stdout
    (source,) = json.loads(run(tmp_path, "status", "--json").stdout)["sources"]
    assert source["quarantined"] == {"too_large": 1}
    assert (source["images"], source["embedded"], source["pending"]) == (4, 3, 0)
    assert source["unreadable"] == 0
    found = run(tmp_path, "query", "red", "--after", "2261-01-01", "--json")
    assert [hit["path"] for hit in json.loads(found.stdout)["hits"]] == [str(pictures / "late.png")]


def test_a_second_run_at_the_same_time_is_refused_with_the_holder(library: Path) -> None:
    from retrieval_pipeline.storage.store import Store

    with Store(library / "retrieval-home").locked():
        done = run(library, "index")
    assert done.returncode == 1
    assert f"process {os.getpid()}" in done.stderr


def test_a_changed_model_answers_with_the_old_index_until_it_is_indexed(
    library: Path, tmp_path: Path
) -> None:
    text = (library / "retrieval.toml").read_text().replace('"offline"', '"some/other-model"')
    config = library / "other.toml"
    config.write_text(text)
    done = run(library, "query", "a cat", "-k", "1", "--json", "--config", str(config))
    assert json.loads(done.stdout)["model"] == "offline"


def test_a_model_that_cannot_be_had_names_the_ways_out(tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    Image.new("RGB", (60, 40), "red").save(pictures / "red.png")
    run(tmp_path, "init", "pictures", "--model", "nobody/has-this-model")
    done = subprocess.run(
        [*RETRIEVAL, "index"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        env={**own_environment(), "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    for way in ("HF_HOME", 'model = "offline"', "director"):
        assert way in done.stderr
    *progress, last = done.stderr.splitlines()
    assert last.startswith("error: ")
    assert not any("error" in line for line in progress)


def test_output_into_a_closed_pipe_is_no_error(library: Path) -> None:
    command: Sequence[str] = [*RETRIEVAL, "query", "a cat", "-k", "7"]
    done = subprocess.run(
        f"{' '.join(command[:4])} 'a cat' | head -n 1; exit ${{PIPESTATUS[0]}}",
        shell=True,
        executable="/bin/bash",
        cwd=library,
        capture_output=True,
        text=True,
        env=own_environment(),
    )
    assert done.returncode == 0
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_a_change_of_model_and_the_way_back(library: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(library, copy)
    make_clip(copy / "tiny")
    offline = json.loads(run(copy, "status", "--json").stdout)["build"]
    done = run(copy, "index", "--model", "./tiny")
    assert done.returncode == 0, done.stderr
    assert "The settings still name offline, to which the next `retrieval index` goes back: " in (
        done.stderr
    )
    answer = json.loads(run(copy, "query", "a cat", "--json").stdout)
    assert answer["model"] == str(copy / "tiny")
    assert run(copy, "use", offline).returncode == 0
    listed = run(copy, "use").stdout.splitlines()
    assert len(listed) == 2
    assert listed[1].startswith(f"* {offline}  7 images, model offline")
    assert listed[1].endswith(", held")
    kept = run(copy, "index", "--model", "./tiny")
    assert "note: `retrieval use` holds it" in kept.stdout
    assert json.loads(run(copy, "query", "a cat", "--json").stdout)["build"] == offline
    assert run(copy, "use", "--latest").returncode == 0
    assert "held" not in run(copy, "use").stdout
