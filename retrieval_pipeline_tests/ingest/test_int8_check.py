"""The check of eight bits on the pictures of a home; the decode workers are real."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from retrieval_pipeline.config.settings import RaySettings, Settings
from retrieval_pipeline.encoders import from_settings, fused_vision
from retrieval_pipeline.encoders import int8 as int8_products
from retrieval_pipeline.encoders.base import BaseEncoder, Description, ThreadPlan, is_int8
from retrieval_pipeline.encoders.from_settings import describe_encoder, precision_line
from retrieval_pipeline.encoders.hardware import faithful_format
from retrieval_pipeline.errors import Stopped, StoreError
from retrieval_pipeline.images.transform import Pixels
from retrieval_pipeline.ingest import int8_check as checking
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.embed import embedded_ids
from retrieval_pipeline.ingest.int8_check import check_int8, compare
from retrieval_pipeline.maintenance.verify import verify
from retrieval_pipeline.pipeline.run import update_sources
from retrieval_pipeline.progress import Quiet
from retrieval_pipeline.storage import int8_check as record
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from synthetic.checkpoints import make_massive_clip

PICTURES = 24
FAITHFUL = faithful_format("cpu") or "the fastest that is faithful here"
NEEDS_PRODUCTS = pytest.mark.skipif(
    int8_products.weight_levels() is None, reason="there are no exact products in eight bits here"
)


class Notes(Quiet):
    """Keeps the lines for people."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, line: str) -> None:
        self.lines.append(line)


class Thumbnails(BaseEncoder):
    """A vector is the picture itself, with `noise` added; in eight bits or not."""

    def __init__(self, description: Description, noise: float) -> None:
        super().__init__(description, batch=8)
        self._noise = noise

    @property
    def number_format(self) -> str:
        return "int8" if is_int8(self.space) else "float32"

    @contextmanager
    def encode_threads(self) -> Iterator[ThreadPlan]:
        yield ThreadPlan(1, lambda: None)

    def _image_features(self, pixels: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        rows = np.stack([image[::4, ::4].ravel()[: self.dim] for image in pixels]) - 128.0
        lengths = np.linalg.norm(rows, axis=1, keepdims=True) / self.dim**0.5
        # Of each picture its own, whatever the batch.
        directions = np.sin(rows * np.arange(1, self.dim + 1))
        return (rows + self._noise * lengths * directions).astype(np.float32)

    def _text_features(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        raise NotImplementedError


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_massive_clip(tmp_path_factory.mktemp("massive"))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for number in range(PICTURES):
        colours = random.integers(0, 256, (4, 4, 3), np.uint8)
        picture = Image.fromarray(colours).resize((32, 32), Image.Resampling.BICUBIC)
        picture.save(directory / f"{number:03}.png")
    return directory


@pytest.fixture
def settings(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Settings:
    monkeypatch.setattr(checking, "FEWEST", PICTURES // 2)
    monkeypatch.setattr(checking, "PICTURES", PICTURES)
    settings = Settings.model_validate(
        {
            "home": tmp_path / "home",
            "model": str(model),
            "device": "cpu",
            "precision": "int8",
            "workers": 1,
            "sources": [{"name": "pictures", "path": pictures}],
        }
    )
    update_manifest(Store(settings.home), settings.sources[0], max_shrink=1.0)
    return settings


@pytest.fixture
def noise(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Encoders without a model; how much noise eight bits add to a vector of length 1."""
    noise = {"int8": 0.02}

    def load(settings: Settings, space: VectorSpace) -> Thumbnails:
        description = replace(describe_encoder(settings), space=space)
        return Thumbnails(description, noise["int8"] if is_int8(space) else 0.0)

    monkeypatch.setattr(checking, "load_settings_encoder", load)
    return noise


def check(settings: Settings, stop: threading.Event | None = None) -> list[str]:
    """Check, and return the lines for people."""
    notes = Notes()
    check_int8(settings, settings.sources, progress=notes, stop=stop)
    return notes.lines


def embedded(settings: Settings) -> tuple[bool, int]:
    """Tell whether the home uses eight bits, and how many pictures it has embedded so."""
    space = describe_encoder(settings).space
    return is_int8(space), len(embedded_ids(Store(settings.home), space))


@NEEDS_PRODUCTS
@pytest.mark.slow
def test_a_model_with_massive_activations_passes_and_fails_where_all_is_rounded(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    notes = Notes()
    report = update_sources(settings, progress=notes)
    assert (report.embeddings[0].known, report.embeddings[0].embedded) == (PICTURES, 0)
    assert embedded(settings) == (True, PICTURES)
    assert notes.lines == [f"{precision_line(settings)}; these {PICTURES} are embedded"]
    assert notes.lines[0].startswith(f"int8: on {PICTURES} pictures the mean cosine to ")
    assert not any(finding.problem for finding in verify(Store(settings.home)))

    monkeypatch.setattr(fused_vision, "LEAST_INT8_COSINE", -1.0)
    monkeypatch.setattr(int8_products, "OUTLIER_SHARE", 1 << 20)
    monkeypatch.setattr(int8_products, "LEAST_OUTLIERS", 0)
    again = settings.model_copy(update={"home": tmp_path / "again"})
    notes = Notes()
    report = update_sources(again, progress=notes)
    assert "int8 was refused" in notes.lines[0]
    assert (report.embeddings[0].known, embedded(again)) == (PICTURES, (False, PICTURES))


def test_what_was_refused_is_not_tried_again_and_its_vectors_are_kept(
    settings: Settings, noise: dict[str, float]
) -> None:
    noise["int8"] = 0.5
    (line,) = check(settings)
    assert line.startswith("float32: int8 was refused: on 24 pictures the mean cosine to float32")
    assert (embedded(settings), check(settings)) == ((False, PICTURES), [])
    assert line == f"{precision_line(settings)}; these {PICTURES} are embedded"


@pytest.mark.usefixtures("noise")
def test_a_check_that_was_interrupted_is_made_again(settings: Settings) -> None:
    stop = threading.Event()
    stop.set()
    with pytest.raises(Stopped, match="checks again"):
        check(settings, stop)
    assert embedded(settings) == (False, 0)
    assert len(check(settings)) == 1
    assert embedded(settings) == (True, PICTURES)


@pytest.mark.usefixtures("noise")
def test_of_too_few_pictures_nothing_is_concluded(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(checking, "FEWEST", PICTURES + 1)
    (line,) = check(settings)
    assert line == "int8 is not used yet: its check needs 25 pictures, and here are 24"
    assert embedded(settings) == (False, 0)


def test_a_run_on_ray_leaves_the_question_open_and_says_so(settings: Settings) -> None:
    far = settings.model_copy(update={"ray": RaySettings()})
    (line,) = check(far)
    assert line.startswith("int8 is not used yet") and "without Ray" in line
    assert embedded(settings) == (False, 0)


@pytest.mark.usefixtures("noise")
@pytest.mark.parametrize(
    ("has_instructions", "worthwhile", "line"),
    [(False, 0.0, None), (True, 1e6, "float32: int8 is only"), (True, 0.0, "int8: on 24 pictures")],
)
def test_by_itself_a_new_home_takes_eight_bits_where_they_are_worthwhile(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    has_instructions: bool,
    worthwhile: float,
    line: str | None,
) -> None:
    monkeypatch.setattr(int8_products, "has_full_products", lambda: has_instructions)
    monkeypatch.setattr(record, "WORTHWHILE", worthwhile)
    settings = settings.model_copy(update={"precision": "auto"})
    lines = check(settings)
    assert [found[: len(line)] for found in lines if line] == ([line] if line else [])
    assert embedded(settings)[0] == (worthwhile == 0.0 and has_instructions)
    assert precision_line(settings).startswith(line or FAITHFUL)
    # Whoever asks after that gets them, although they are hardly faster.
    asks = settings.model_copy(update={"precision": "int8"})
    assert embedded(asks)[0] == has_instructions
    assert precision_line(asks).startswith("int8: on 24 pictures") == has_instructions


@pytest.mark.parametrize(
    ("precision", "flags", "why"),
    [
        ("int8", {"avx2"}, "its check has not been made yet"),
        ("auto", {"avx2"}, "this processor has no instructions for it (VNNI)"),
        ("auto", {"avx_vnni"}, '"auto" checks it in new homes, on processors with VNNI'),
    ],
)
def test_a_home_without_eight_bits_says_what_it_computes_with_and_why(
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
    precision: str,
    flags: set[str],
    why: str,
) -> None:
    monkeypatch.setattr(from_settings, "processor_flags", lambda: flags)
    monkeypatch.setattr(from_settings, "faithful_format", lambda device: "float32")
    settings = settings.model_copy(update={"precision": precision})
    assert precision_line(settings) == f"float32; int8 is not used: {why}"


@pytest.mark.usefixtures("noise")
def test_a_home_with_faithful_vectors_is_not_switched_by_itself(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, noise: dict[str, float]
) -> None:
    noise["int8"] = 0.5
    check(settings)  # leaves faithful vectors
    store = Store(settings.home)
    (file,) = store.int8_checks()
    file.unlink()
    noise["int8"] = 0.0
    monkeypatch.setattr(int8_products, "has_full_products", lambda: True)
    monkeypatch.setattr(record, "WORTHWHILE", 0.0)
    unasked = settings.model_copy(update={"precision": "auto"})
    assert (check(unasked), embedded(unasked)) == ([], (False, PICTURES))
    # Whoever asks gets them, and goes back without embedding again.
    assert len(check(settings)) == 1
    assert embedded(settings) == (True, PICTURES)
    assert embedded(unasked) == (False, PICTURES)


def test_a_damaged_record_is_told_with_what_to_do(settings: Settings) -> None:
    settings = settings.model_copy(update={"precision": "int8"})
    store = Store(settings.home)
    space = replace(describe_encoder(settings).space)
    file = store.int8_check(replace(space, preprocessing=f"{space.preprocessing}, int8"))
    file.parent.mkdir(parents=True)
    file.write_text("{")
    with pytest.raises(StoreError, match="remove it, and the next run checks again"):
        describe_encoder(settings)
    assert [finding.file for finding in verify(store) if finding.problem] == [file]


def test_neighbours_that_are_equally_near_may_change_places() -> None:
    angles = np.repeat(np.arange(3) * 0.8, [12, 12, 1])
    true = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    moved = angles + np.linspace(0, 1e-3, 25)
    found = np.stack([np.cos(moved), np.sin(moved)], axis=1).astype(np.float32)
    mean, least, kept = compare(true, found)
    assert mean > least > 0.99999
    assert kept == 1.0
    assert compare(true, true[::2].repeat(2, axis=0)[:25])[2] == 1.0
    # Each of two groups is mixed from both.
    assert compare(true, np.concatenate([true[::2], true[1::2]]))[2] < 0.6
