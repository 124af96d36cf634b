"""A watched library, with an encoder that sees colours."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from click.testing import CliRunner
from PIL import Image

from retrieval_pipeline.cli.main import cli
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import Stopped
from retrieval_pipeline.ingest import changes
from retrieval_pipeline.pipeline import run
from retrieval_pipeline.pipeline import watch as watching
from retrieval_pipeline.pipeline.run import index_sources
from retrieval_pipeline.pipeline.watch import BatchReport, watch
from retrieval_pipeline.storage.shared_progress import RunProgress
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline_tests.support.encoders import DESCRIPTION, MeanColour
from retrieval_pipeline_tests.support.library import settings_of

# Each test starts decode workers.
pytestmark = pytest.mark.slow


class Colours(MeanColour):
    """Sees colours, and knows some for every word."""

    def _text_features(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return np.random.default_rng(0).random((len(texts), 3), np.float32)


@pytest.fixture
def loaded(monkeypatch: pytest.MonkeyPatch) -> list[Colours]:
    """The encoders that were loaded; waiting is short."""
    encoders: list[Colours] = []

    def load(*_: object) -> Colours:
        encoders.append(Colours())
        return encoders[-1]

    monkeypatch.setattr(run, "describe_encoder", lambda _: DESCRIPTION)
    monkeypatch.setattr(run, "load_settings_encoder", load)
    monkeypatch.setattr(changes, "SETTLE_SECONDS", 0.2)
    monkeypatch.setattr(changes, "LOOK_SECONDS", 0.5)
    return encoders


@pytest.fixture
def root(tmp_path: Path) -> Path:
    directory = tmp_path / "pictures"
    directory.mkdir()
    for number in range(4):
        put(directory / f"{number}.png", number)
    return directory


@pytest.fixture
def settings(root: Path, tmp_path: Path) -> Settings:
    return settings_of(tmp_path / "home", pictures=root)


def put(path: Path, number: int) -> None:
    Image.new("RGB", (20, 20), (10 + 20 * number, 90, 200 - 20 * number)).save(path)


def wait_for(found: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not found():
        assert time.monotonic() < deadline, "nothing came"
        time.sleep(0.02)


class Running:
    """`watch` on a thread of its own."""

    def __init__(self, settings: Settings) -> None:
        self.batches: list[BatchReport] = []
        self.lines: list[str] = []
        self.ended_by: Exception | None = None
        self._settings, self._stop = settings, threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            watch(self._settings, told=self.batches.append, tell=self.lines.append, stop=self._stop)
        except Exception as error:  # noqa: BLE001  # the test looks at it
            self.ended_by = error

    def wait(self, count: int) -> BatchReport:
        wait_for(lambda: len(self.batches) >= count or self.ended_by)
        assert self.ended_by is None
        return self.batches[count - 1]

    def end(self) -> None:
        self._stop.set()
        self._thread.join()


@pytest.fixture
def running(settings: Settings, loaded: list[Colours]) -> Iterator[Running]:
    process = Running(settings)
    yield process
    process.end()


def counts(batch: BatchReport) -> tuple[int, int, int, int, int]:
    return batch.new, batch.changed, batch.removed, batch.embedded, batch.items


def test_what_changes_in_a_watched_source_changes_in_the_index(
    running: Running, root: Path, settings: Settings, loaded: list[Colours]
) -> None:
    assert counts(running.wait(1)) == (4, 0, 0, 4, 4)
    put(root / "new.png", 7)
    added = running.wait(2)
    assert counts(added) == (1, 0, 0, 1, 5)
    assert added.seconds is not None
    # What it does is told to the page.
    told = Store(settings.home).lock_file.read_text().splitlines()[1]
    assert RunProgress.model_validate_json(told).stage
    (root / "new.png").rename(root / "moved.png")
    (root / "0.png").unlink()
    assert counts(running.wait(3)) == (1, 0, 2, 0, 4)
    # Others can write in between, and meanwhile nothing is lost.
    with Store(settings.home).locked(wait=True):
        put(root / "meanwhile.png", 9)
        wait_for(lambda: running.lines)
    assert "is being written by another run" in running.lines[0]
    assert counts(running.wait(4)) == (1, 0, 0, 1, 5)
    assert len(loaded) == 1
    running.end()
    assert isinstance(running.ended_by, Stopped)


def test_the_map_is_drawn_when_nothing_has_changed_for_a_while(
    monkeypatch: pytest.MonkeyPatch, running: Running, settings: Settings
) -> None:
    monkeypatch.setattr(watching, "CALM_SECONDS", 0.1)
    running.wait(1)
    wait_for(lambda: Store(settings.home).maps())


def test_an_index_whose_map_was_being_drawn_when_the_run_was_stopped_answers(
    settings: Settings, loaded: list[Colours]
) -> None:
    stop, store = threading.Event(), Store(settings.home)
    with pytest.raises(Stopped, match="the index is published"):
        index_sources(settings, published=lambda _: stop.set(), stop=stop)
    build = store.current_build()
    assert build is not None
    assert not store.maps()
    assert index_sources(settings).build.build == build
    assert [each.name for each in store.maps()] == [build.name]


def test_the_command_says_what_each_batch_did_and_ends_by_a_signal(
    tmp_path: Path, root: Path, loaded: list[Colours], capfd: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "retrieval.toml"
    file.write_text(
        'home = "home"\nmodel = "offline"\n[[sources]]\nname = "pictures"\npath = "pictures"\n'
    )
    before = signal.getsignal(signal.SIGINT)

    def change() -> None:
        store = Store(tmp_path / "home")
        wait_for(store.current_file.exists)
        first = store.current_build()
        put(root / "new.png", 7)
        wait_for(lambda: store.current_build() != first)
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=change)
    thread.start()
    done = CliRunner().invoke(cli, ["watch", "--config", str(file)])
    thread.join()
    assert done.exit_code == 130
    first, second = done.stdout.splitlines()
    assert first == "4 new pictures; 4 images in the index. Watching 1 source"
    assert second.startswith("1 new picture, findable after ")
    assert signal.getsignal(signal.SIGINT) == before
