"""`retrieval recommend` as a person and as a script use it."""

import json
import os
import pty
import re
import select
import subprocess
import sys
import time
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from retrieval_pipeline.cli.commands.recommend import recommend
from retrieval_pipeline.cli.main import cli
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.errors import RecommendError, StoreError
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.recommend.active_learning import STRATEGIES
from retrieval_pipeline.recommend.votes import read_judgements
from retrieval_pipeline.storage.content_id import content_id
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from synthetic.tables import random_vectors, write_manifest, write_part

SPACE = VectorSpace("offline", "r1", 16, "p")
VECTORS = random_vectors(40, SPACE.dim)
NAMES = [f"{'good' if vector[0] > 0 else 'bad'}{n}" for n, vector in enumerate(VECTORS)]


def picture_of(name: str) -> bytes:
    """A picture of its own for each name."""
    buffer = BytesIO()
    Image.new("RGB", (60, 40), (200, 10, NAMES.index(name))).save(buffer, "PNG")
    return buffer.getvalue()


CONTENT = {name: content_id(picture_of(name)) for name in NAMES}


@pytest.fixture
def directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with settings and an index of forty pictures."""
    (tmp_path / "pictures").mkdir()
    for name in NAMES:
        (tmp_path / "pictures" / f"{name}.png").write_bytes(picture_of(name))
    store = Store(tmp_path / "home")
    write_manifest(store, "pictures", {f"{name}.png": CONTENT[name] for name in NAMES})
    write_part(store, SPACE, "pictures", list(CONTENT.values()), VECTORS)
    build_index(store, SPACE, ["pictures"])
    text = settings_text([("pictures", tmp_path / "pictures")], model="offline", home="home")
    (tmp_path / "retrieval.toml").write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RETRIEVAL_CONFIG", raising=False)
    return tmp_path


def run(*arguments: str, keys: str = "") -> Result:
    result = CliRunner().invoke(cli, ["recommend", *arguments], input=keys)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def votes(directory: Path, name: str = "default") -> list[bool]:
    return [vote.liked for vote in read_judgements(Store(directory / "home"), name)]


def write_votes(directory: Path, count: int = len(NAMES)) -> Path:
    entries = [
        {"content_id": CONTENT[name], "liked": name.startswith("good")} for name in NAMES[:count]
    ]
    file = directory / "votes.json"
    file.write_text(json.dumps(entries))
    return file


def test_the_command_offers_the_strategies_there_are() -> None:
    choice = next(option for option in recommend.params if option.name == "strategy").type
    assert list(choice.choices) == list(STRATEGIES)


def test_a_line_of_a_pipe_is_a_key(directory: Path) -> None:
    result = run(keys="y\nn\n?\nu\nn\nyes\nq\nn\n")
    assert result.exit_code == 0
    assert votes(directory) == [True, False, True]
    shown = result.stdout.splitlines()
    assert len(shown) == 6
    assert shown[1] == shown[3]
    assert all(Path(path).is_file() for path in shown)
    assert "undone" in result.stderr
    assert "y = like, n = not" in result.stderr
    assert "2 liked, 1 not; missing 1 liked and 2 not liked" in result.stderr


def test_the_end_of_the_input_ends_it_and_the_next_run_goes_on(directory: Path) -> None:
    first = run(keys="y\nn\n")
    second = run(keys="n\n")
    assert votes(directory) == [True, False, False]
    assert first.stdout.splitlines()[-1] == second.stdout.splitlines()[0]


def test_the_accuracy_runs_along_and_the_end_is_told(directory: Path) -> None:
    result = run(keys="y\nn\n" * 30)
    assert len(votes(directory)) == 40
    assert re.search(r"20 liked, 20 not; \d+ of 3\d predicted right", result.stderr)
    assert "there is no image left to vote on" in result.stderr
    assert "--rank 50" in result.stderr
    assert "every image has been judged" in run("--rank", "3").stdout


def test_pictures_that_have_gone_are_left_out(directory: Path) -> None:
    first = Path(run(keys="").stdout.splitlines()[0])
    first.unlink()
    result = run(keys="y\n")
    assert "left out, because it has gone" in result.stderr
    assert str(first) not in result.stdout


def test_votes_from_a_file_rank_the_rest(directory: Path) -> None:
    file = write_votes(directory, 30)
    result = run("--from-json", str(file), "--rank", "50", "--json", "--gallery", "out.html")
    answer = json.loads(result.stdout)
    assert (answer["liked"] + answer["not_liked"], answer["gone"]) == (30, 0)
    assert {Path(hit["path"]).stem for hit in answer["hits"]} == set(NAMES[30:])
    scores = [hit["score"] for hit in answer["hits"]]
    assert scores == sorted(scores, reverse=True)
    page = (directory / "out.html").read_text()
    assert page.count("data:image/webp") == 10
    assert "Recommended: default" in page
    text = run("--rank", "2").stdout.splitlines()
    assert [line.split()[-1] for line in text] == [hit["path"] for hit in answer["hits"][:2]]


def test_a_path_in_a_file_of_votes_means_its_bytes(directory: Path) -> None:
    picture = directory / "pictures" / f"{NAMES[0]}.png"
    picture.write_bytes(picture.read_bytes() + b"changed")
    (directory / "votes.json").write_text(json.dumps([{"path": str(picture), "liked": True}]))
    result = run("--from-json", "votes.json")
    # The file's bytes are no longer what this index was made of.
    assert "1 vote added" in result.stderr
    assert "1 more on images that are not in the index" in result.stderr


def test_a_vote_may_name_a_path_in_a_source(
    directory: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    votes = directory / "votes.json"
    votes.write_text(json.dumps([{"path": f"{NAMES[0]}.png", "liked": True}]))
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    result = run("--from-json", str(votes), "--config", str(directory / "retrieval.toml"))
    assert result.stderr.startswith("1 vote added: 1 liked, 0 not;")


def test_each_wrong_entry_is_named_and_then_none_counts(directory: Path) -> None:
    entries = [
        {"content_id": "0" * 32, "liked": True},
        {"content_id": "x", "liked": True},
        {"content_id": "0" * 32},
        {"path": "nowhere.jpg", "liked": True},
        {"path": "nowhere.jpg", "content_id": "0" * 32, "liked": True},
        {"liked": True},
        {"content_id": "0" * 32, "liked": "yes", "why": 1},
        "x",
    ]
    (directory / "votes.json").write_text(json.dumps(entries))
    with pytest.raises(RecommendError) as caught:
        run("--from-json", "votes.json")
    assert str(caught.value).splitlines() == [
        f"votes.json: entry {line}"
        for line in (
            "2: content_id: must be 32 hex digits",
            "3: liked: missing",
            "4: nowhere.jpg: there is no such file, and no such path in a source",
            '5: give "content_id" or "path", one of them',
            '6: give "content_id" or "path", one of them',
            "7: liked: must be true or false",
            "7: why: unknown key (allowed: content_id or path, liked)",
            '8: must be like {"path": "cat.jpg", "liked": true}',
        )
    ]
    assert votes(directory) == []


@pytest.mark.parametrize("text", ["", "{}", "[1", "\udcff"])
def test_a_file_that_is_no_list_is_refused(directory: Path, text: str) -> None:
    (directory / "votes.json").write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(RecommendError, match=r"votes\.json: not a JSON list"):
        run("--from-json", "votes.json")
    with pytest.raises(RecommendError, match="No such file"):
        run("--from-json", "nowhere.json")


def test_ranking_an_unknown_recommender_lists_the_known_ones(directory: Path) -> None:
    run("--name", "cats", keys="y\n")
    with pytest.raises(RecommendError, match=r'no recommender "dogs" \(recommenders: cats\)'):
        run("--name", "dogs", "--rank", "5")
    with pytest.raises(RecommendError, match="1 liked, 0 not; missing 2 liked and 3 not liked"):
        run("--name", "cats", "--rank", "5")


def test_a_damaged_table_is_named_and_kept(directory: Path) -> None:
    table = Store(directory / "home").judgements("default")
    run(keys="y\n")
    table.write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"default\.parquet: damaged"):
        run(keys="y\n")
    assert table.read_bytes() == b"PAR1"


@pytest.mark.parametrize(
    "arguments", [["--json"], ["--gallery", "x.html"], ["--rank", "0"], ["--strategy", "best"]]
)
def test_options_that_make_no_sense_are_bad_usage(directory: Path, arguments: list[str]) -> None:
    assert run(*arguments).exit_code == 2


def test_single_keys_work_in_a_terminal_that_shows_pictures(directory: Path) -> None:
    ours, theirs = pty.openpty()
    environment = {name: value for name, value in os.environ.items() if name != "TMUX"}
    child = subprocess.Popen(
        [sys.executable, "-c", "from retrieval_pipeline.cli.main import main; main()", "recommend"],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=environment | {"TERM": "xterm-kitty"},
    )
    os.close(theirs)
    seen = b""
    for key in b"ynuq":
        seen = read_until(ours, b"q = quit: ")
        assert b"\x1b_Ga=T" in seen
        press(ours, bytes([key]))
    assert child.wait(timeout=60) == 0
    os.close(ours)
    assert b"undone" in seen
    assert votes(directory) == [True]


def read_until(terminal: int, mark: bytes) -> bytes:
    seen = b""
    while mark not in seen:
        assert select.select([terminal], [], [], 30)[0], seen[-500:]
        seen += os.read(terminal, 65536)
    return seen


def press(terminal: int, key: bytes) -> None:
    """Press a key as soon as the terminal is in raw mode; earlier ones are discarded."""
    import termios

    while termios.tcgetattr(terminal)[3] & termios.ICANON:
        time.sleep(0.01)
    os.write(terminal, key)
