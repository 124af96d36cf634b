"""One run of the whole flow over a folder of odd, broken and hostile pictures.

What is right follows from Pillow itself, which is asked in a process of its own: what it can load
must be embedded, what it cannot must be in quarantine. No file is known here by its name.
"""

import contextlib
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import pyarrow.compute as pc
import pytest
from PIL import Image

from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.images.errors import Reason
from retrieval_pipeline.images.formats import FORMATS
from retrieval_pipeline.ingest.embed import embedded_ids
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, read_quarantine
from retrieval_pipeline_tests.support.library import FORMATS as WRITABLE
from retrieval_pipeline_tests.support.library import SHARED_DATA, settings_of
from synthetic.checkpoints import make_clip

pytestmark = pytest.mark.slow

ORACLE = """
import json, logging, sys, warnings
from pathlib import Path
from PIL import Image

warnings.simplefilter("ignore")
logging.disable()
Image.MAX_IMAGE_PIXELS = 150_000_000  # Pillow refuses twice as many, as the settings do
answers = {}
for path in sorted(Path(sys.argv[1]).iterdir()):
    try:
        with Image.open(path) as image:
            image.load()
            answers[path.name] = image.format
    except Exception as error:
        answers[path.name] = type(error).__name__
json.dump(answers, sys.stdout)
"""


@dataclass(frozen=True)
class Run:
    """What one `retrieval index` made of the folder.

    Attributes:
        errors: Its messages.
        outcomes: "embedded" or the reason of the quarantine, by file name.
        oracle: The format that Pillow loads, or the name of its exception, by file name.
        peak_mb: Memory of all its processes at their peaks, added up, MB.
        base_mb: Likewise, of a run over one sound picture.
    """

    errors: str
    outcomes: dict[str, list[str]]
    oracle: dict[str, str]
    peak_mb: float
    base_mb: float


def index(root: Path, pictures: Path) -> tuple[str, float]:
    """Run `retrieval index`; return its messages and the peaks of its processes, MB."""
    config = root / f"{pictures.name}.toml"
    config.write_text(
        f'home = "{root / pictures.name}-home"\nmodel = "{root / "clip"}"\ndevice = "cpu"\n'
        f'[[sources]]\nname = "odd"\npath = "{pictures}"\n'
    )
    with (root / "errors").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "retrieval_pipeline", "index", "--config", str(config)],
            stdout=subprocess.DEVNULL,
            stderr=errors,
        )
        peaks: dict[int, int] = {}
        while process.poll() is None:
            for pid in (process.pid, *children(process.pid)):
                with contextlib.suppress(OSError, IndexError):
                    status = Path(f"/proc/{pid}/status").read_text()
                    peaks[pid] = int(status.split("VmHWM:")[1].split()[0])
            time.sleep(0.02)
        errors.seek(0)
        messages = errors.read()
    assert process.returncode == 0, messages
    return messages, sum(peaks.values()) / 1e3


def children(pid: int) -> list[int]:
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return []
    return [int(child) for child in text.split()]


def make_odd_pictures(directory: Path, photos: dict[str, Path]) -> None:
    """Save photographs in every format, some of them cut off, and what is no picture."""
    directory.mkdir()
    for name, file in photos.items():
        with Image.open(file) as image:
            small = image.convert("RGB")
        small.thumbnail((200, 200))
        for format in WRITABLE:
            path = directory / f"{name}.{format}"
            small.save(path, format)
            if name == "cat":
                data = path.read_bytes()
                (directory / f"cut.{format}").write_bytes(data[: len(data) // 2])
    (directory / "text").write_text("no picture")
    (directory / "empty").touch()


@pytest.fixture(scope="module")
def run(sample_photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run over pictures made here, and over the collection of odd ones where it is at hand."""
    root = tmp_path_factory.mktemp("odd")
    make_clip(root / "clip")
    one, odd = root / "one", root / "odd"
    one.mkdir()
    odd.mkdir()
    shutil.copy(sample_photos["rocket"], one / "photo.jpg")
    make_odd_pictures(root / "made", sample_photos)
    files = sorted(
        path
        for directory in (root / "made", SHARED_DATA / "odd_images")
        for path in directory.rglob("*")
        if path.is_file()
    )
    for number, path in enumerate(files):
        # The extension is wrong for most of them.
        shutil.copy(path, odd / f"{number:04d}.jpg")
    _, base_mb = index(root, one)
    messages, peak_mb = index(root, odd)
    oracle = subprocess.run([sys.executable, "-c", ORACLE, str(odd)], capture_output=True)
    settings = settings_of(root / "odd-home", odd=odd).model_copy(
        update={"model": str(root / "clip")}
    )
    store, space = Store(settings.home), describe_encoder(settings).space
    embedded = embedded_ids(store, space)
    reasons = {
        row["content_id"]: row["reason"] for row in read_quarantine(store, space, "odd").to_pylist()
    }
    manifest = read_manifest(store, "odd")
    assert pc.all(pc.is_valid(manifest["content_id"])).as_py()
    outcomes: dict[str, list[str]] = {}
    for row in manifest.to_pylist():
        content = row["content_id"]
        found = ["embedded"] if content in embedded else []
        outcomes[row["path"]] = found + ([reasons[content]] if content in reasons else [])
    assert len(outcomes) == len(files)
    return Run(messages, outcomes, json.loads(oracle.stdout), peak_mb, base_mb)


def test_every_file_is_either_embedded_or_in_quarantine_with_a_reason(run: Run) -> None:
    assert {name: found for name, found in run.outcomes.items() if len(found) != 1} == {}
    tally = Counter(found[0] for found in run.outcomes.values())
    assert set(tally) <= {"embedded", *Reason}
    assert tally["embedded"] > 0.75 * tally.total()


def test_what_pillow_loads_is_embedded(run: Run) -> None:
    read = {*FORMATS, "MPO"}
    lost = {
        name: (run.oracle[name], found[0])
        for name, found in run.outcomes.items()
        if run.oracle[name] in read and found[0] != "embedded"
    }
    assert lost == {}


def test_what_pillow_does_not_load_is_in_quarantine_for_the_right_reason(run: Run) -> None:
    right = {
        "DecompressionBombError": {"too_large"},
        "UnidentifiedImageError": {"not_an_image", "unsupported", "truncated"},
        "NotImplementedError": {"unsupported"},
        "SyntaxError": {"truncated", "unsupported"},
        "EOFError": {"truncated"},
        "MemoryError": {"too_large"},
    }
    wrong = {
        name: (run.oracle[name], found[0])
        for name, found in run.outcomes.items()
        if found[0] not in right.get(run.oracle[name], {found[0]})
    }
    assert wrong == {}


def test_the_memory_stays_bounded(run: Run) -> None:
    assert run.peak_mb - run.base_mb < 1_500


def test_there_is_one_line_for_each_file_that_failed_and_no_other_talk(run: Run) -> None:
    failed = {name for name, found in run.outcomes.items() if found != ["embedded"]}
    lines = [line for line in run.errors.splitlines() if line.startswith("odd/")]
    assert {line.partition(":")[0].removeprefix("odd/") for line in lines} <= failed
    assert len(lines) <= len(failed)
    assert "Traceback" not in run.errors
    assert "Warning" not in run.errors
    assert len(run.errors.splitlines()) < len(failed) + 40
    assert max(map(len, run.errors.splitlines())) < 400
