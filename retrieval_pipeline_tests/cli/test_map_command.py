from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result
from PIL import Image

from retrieval_pipeline.cli.commands.map import latent_map
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.latent_map.coordinates import read_map_info
from retrieval_pipeline.pipeline.publish import update_map
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline_tests.support.library import settings_of
from synthetic.tables import random_vectors, write_manifest, write_part

SPACE = VectorSpace("offline", "a revision that is gone", 8, "p")
FILES = {"map.html", "map.png", "map.json", "basis.npz", "coordinates.parquet"}

Library = Callable[[int], Settings]
Run = Callable[..., Result]


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """Indexes so many pictures and gives the settings."""

    def make(count: int) -> Settings:
        names = [f"{number}.jpg" for number in range(count)]
        (tmp_path / "a").mkdir(exist_ok=True)
        for name in names:
            Image.new("RGB", (30, 20), "green").save(tmp_path / "a" / name)
        store = Store(tmp_path / "home")
        write_manifest(store, "a", {name: name for name in names})
        write_part(store, SPACE, "a", names, random_vectors(count, SPACE.dim))
        build_index(store, SPACE, ["a"])
        return settings_of(tmp_path / "home", a=tmp_path / "a")

    return make


@pytest.fixture
def run(tmp_path: Path) -> Run:
    text = settings_text([("a", tmp_path / "a")], model="offline", home=str(tmp_path / "home"))
    (tmp_path / "retrieval.toml").write_text(text)

    def invoke(*arguments: str) -> Result:
        config = ("--config", str(tmp_path / "retrieval.toml"))
        return CliRunner().invoke(latent_map, [*arguments, *config])

    return invoke


def current(settings: Settings) -> Path:
    build = Store(settings.home).current_build()
    assert build
    return build


def test_a_build_gets_one_map_that_is_not_drawn_again(library: Library) -> None:
    settings = library(12)
    report = update_map(settings, current(settings))
    assert {file.name for file in report.directory.iterdir()} == FILES
    before = {file: file.stat().st_mtime_ns for file in report.directory.iterdir()}

    assert update_map(settings, current(settings)) == report
    assert {file: file.stat().st_mtime_ns for file in report.directory.iterdir()} == before


def test_a_damaged_map_is_drawn_again(library: Library) -> None:
    settings = library(12)
    report = update_map(settings, current(settings))
    (report.directory / "map.json").write_text("{")
    assert update_map(settings, current(settings)) == report
    assert read_map_info(report.directory) == report.info


def test_a_new_build_is_mapped_like_the_one_before(library: Library) -> None:
    settings = library(12)
    assert update_map(settings, current(settings)).info
    settings = library(13)
    info = update_map(settings, current(settings)).info
    assert info
    assert info.items == 13
    assert info.drift is not None


def test_two_images_are_indexed_without_a_map_and_it_is_said_why(
    library: Library, run: Run
) -> None:
    settings = library(2)
    report = update_map(settings, current(settings))
    assert report.info is None
    assert report.problem == "a map needs at least 3 images; here are 2"
    assert not report.directory.exists()
    result = run()
    assert isinstance(result.exception, RetrievalError)
    assert str(result.exception) == report.problem


def test_nothing_is_left_of_a_map_that_could_not_be_written(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = library(12)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("retrieval_pipeline.latent_map.coordinates.np.savez", full)
    with pytest.raises(RetrievalError, match="no space left"):
        update_map(settings, current(settings))
    assert not list(Store(settings.home).map("x").parent.iterdir())


def test_images_that_have_gone_leave_a_map_of_points(library: Library) -> None:
    settings = library(12)
    for file in settings.source("a").path.iterdir():
        file.unlink()
    report = update_map(settings, current(settings))
    assert report.info
    assert (report.directory / "map.png").exists()


def test_the_command_draws_the_standing_map_once_and_says_where_it_is(
    library: Library, run: Run
) -> None:
    settings = library(12)
    result = run()
    assert result.exit_code == 0, result.output
    page = Store(settings.home).map(current(settings).name) / "map.html"
    assert f"page     {page}" in result.stdout
    assert "12 images" in result.stdout
    drawn = page.stat().st_mtime_ns
    assert run().exit_code == 0
    assert page.stat().st_mtime_ns == drawn


def test_a_map_to_order_leaves_the_standing_one_alone(
    library: Library, run: Run, tmp_path: Path
) -> None:
    settings = library(12)
    output = tmp_path / "out"
    result = run("--sample", "9", "--clusters", "2", "--size", "640x320", "--output", str(output))
    assert result.exit_code == 0, result.output
    assert "9 images" in result.stdout
    with Image.open(output / "map.png") as picture:
        assert picture.size == (640, 320)
    assert not Store(settings.home).maps()
    assert run("--color", "source", "--3d").exit_code == 0
    assert (Store(settings.home).last_map / "map.html").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--clusters", "13"), "ask for at most 12"),
        (("--path", "nothing*"), "here are 0"),
        (("--source", "nowhere"), 'no source "nowhere"'),
        (("--color", "score"), "say which, with --like"),
        (("--size", "big"), "write it as 4096x2048"),
        (("--size", "4096x1"), "256 to 20000"),
    ],
)
def test_what_cannot_be_drawn_is_one_clear_line(
    library: Library, run: Run, arguments: tuple[str, ...], message: str
) -> None:
    library(12)
    result = run(*arguments)
    assert result.exit_code != 0
    assert message in (result.output + str(result.exception))


def test_without_an_index_the_command_says_how_to_make_one(run: Run) -> None:
    assert "run `retrieval index` first" in str(run().exception)
