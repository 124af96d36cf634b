"""`retrieval models`, and the model that `retrieval init` writes."""

import json
import tomllib
from pathlib import Path

import pytest
from click.testing import CliRunner

from retrieval_pipeline.cli.main import cli
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.settings import DEFAULT_MODEL
from retrieval_pipeline.encoders import checkpoint, hardware, on_this_machine
from retrieval_pipeline.encoders.catalogue import BALANCED
from retrieval_pipeline.encoders.on_this_machine import Speed


@pytest.fixture(autouse=True)
def _machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine of known speed, where one model is in the cache and no hub is asked."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    monkeypatch.setattr(on_this_machine, "measure_speed", lambda *_: Speed("cpu", 1e12))
    monkeypatch.setattr(checkpoint, "is_cached", lambda model: model == BALANCED)
    monkeypatch.setattr(checkpoint, "hub_answers", lambda seconds: False)
    monkeypatch.setattr(hardware, "has_gpu", lambda: False)


def run(*arguments: str) -> str:
    done = CliRunner().invoke(cli, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    return done.stdout


def test_models_counts_the_pictures_of_the_settings(tmp_path: Path) -> None:
    contents = json.loads(run("models", "--json"))
    assert contents["pictures"] == 10_000
    for number in range(3):
        (tmp_path / "photos" / f"{number}.jpg").touch()
    run("init", "photos")
    contents = json.loads(run("models", "--json"))
    assert contents["pictures"] == 3
    rows = {each["name"]: each for each in contents["models"]}
    assert rows[BALANCED]["hours"] == pytest.approx(3 * 35.4e9 / 1e12 / 3600)
    assert [name for name, each in rows.items() if each["cached"]] == ["offline", BALANCED]


def test_models_prints_a_line_for_each_model() -> None:
    lines = run("models").splitlines()
    (line,) = (line for line in lines if line.startswith(BALANCED))
    assert line.split() == [BALANCED, "52.1", "80.7", "109", "1,501", "yes", "5.9", "min"]


def test_init_writes_the_model_that_suits_the_machine_and_says_why(tmp_path: Path) -> None:
    run("init", "photos")
    text = (tmp_path / "retrieval.toml").read_text()
    assert tomllib.loads(text)["model"] == BALANCED
    comment = text.partition('model = "')[0]
    assert "# Chosen by `retrieval init`: there is no GPU here" in comment
    assert comment.count("\n# Or ") == 2


def test_clip_names_the_originals_model(tmp_path: Path) -> None:
    run("init", "photos", "--model", "clip")
    assert "Chosen by" not in (tmp_path / "retrieval.toml").read_text()
    assert load_settings().model == DEFAULT_MODEL
