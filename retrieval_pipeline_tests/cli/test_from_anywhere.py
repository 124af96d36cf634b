"""Commands find the settings from every directory below them, and from none that is not safe."""

import json
import os
from pathlib import Path

import pytest

from retrieval_pipeline_tests.support.commands import assert_one_line, extract_home, retrieval


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_home(tmp_path_factory.mktemp("anywhere") / "library")


def test_settings_are_found_above_the_working_directory(library: Path) -> None:
    below = library / "pictures" / "deep" / "er"
    below.mkdir(parents=True)
    done = retrieval(below, "status", "--json")
    assert json.loads(done.stdout)["home"] == str(library / "home"), done.stderr


def test_a_named_file_wins_over_one_that_is_found_and_the_users_own_comes_last(
    library: Path, tmp_path: Path
) -> None:
    config = tmp_path / "config" / "retrieval"
    config.mkdir(parents=True)
    (config / "retrieval.toml").write_text(f'home = "{library / "home"}"\nmodel = "offline"\n')
    env = {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    done = retrieval(tmp_path, "status", "--json", env=env)
    assert json.loads(done.stdout)["home"] == str(library / "home"), done.stderr
    env["RETRIEVAL_CONFIG"] = str(tmp_path / "other.toml")
    done = retrieval(library, "status", env=env)
    assert_one_line(done, f"no settings file at {tmp_path / 'other.toml'}")


def test_without_any_the_error_names_the_three_places(tmp_path: Path) -> None:
    done = retrieval(tmp_path, "status", env={"XDG_CONFIG_HOME": str(tmp_path / "config")})
    users = tmp_path / "config" / "retrieval" / "retrieval.toml"
    assert_one_line(done, f"{tmp_path} and above", "$RETRIEVAL_CONFIG", str(users), "init")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file to another user")
def test_a_found_file_of_another_user_is_obeyed_only_if_it_is_named(tmp_path: Path) -> None:
    file = tmp_path / "retrieval.toml"
    file.write_text('model = "offline"\n')
    os.chown(file, 12345, -1)
    (tmp_path / "mine").mkdir()
    done = retrieval(tmp_path / "mine", "status")
    assert_one_line(done, str(file), "another user", "--config")
    assert retrieval(tmp_path / "mine", "status", "--config", str(file)).returncode == 0


def test_search_is_query_and_words_without_quotes_are_one_text(library: Path) -> None:
    # Words that are all facts list what passes, for which no model is loaded.
    options = ("--json", "--sort", "name", "-n", "2")
    done = retrieval(library, "search", "in", "2009", *options)
    assert json.loads(done.stdout)["query"] == "in 2009", done.stderr
    assert len(json.loads(retrieval(library, "query", *options).stdout)["hits"]) == 2


@pytest.mark.slow
def test_a_quiet_run_without_news_prints_nothing(tmp_path: Path) -> None:
    # The home is of an earlier version: the first run has something to publish.
    home = extract_home(tmp_path / "library")
    assert "published" in retrieval(home, "index", "-q").stdout
    done = retrieval(home, "index", "-q")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    details = retrieval(home, "index", "-q", "-v")
    assert details.stdout == ""
    said = [line.split()[0] for line in details.stderr.splitlines()]
    assert said == ["settings", "format", "index:"]
