"""A disk that is really full: a small file system in memory, which takes root to mount."""

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import RetrievalError, StoreError
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.maintenance.verify import verify
from retrieval_pipeline.pipeline.run import index_sources
from retrieval_pipeline.recommend.votes import add_judgements, read_judgements
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline_tests.support.library import settings_of
from synthetic.checkpoints import make_clip
from synthetic.tables import content

pytestmark = pytest.mark.slow


def mount(*options: str, at: Path) -> None:
    subprocess.run(
        ["mount", "-t", "tmpfs", *options, "tmpfs", str(at)], check=True, capture_output=True
    )


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """The mount point of a file system of its own."""
    directory = tmp_path / "disk"
    directory.mkdir()
    if os.geteuid() or not shutil.which("mount"):
        pytest.skip("only root can mount a file system that fills up")
    try:
        mount("-o", "size=64k", at=directory)
    except subprocess.CalledProcessError as error:
        pytest.skip(f"a file system in memory cannot be mounted here: {error.stderr!r}")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


@pytest.fixture
def resize(disk: Path) -> Callable[[int], None]:
    return lambda kilobytes: mount("-o", f"remount,size={kilobytes}k", at=disk)


@pytest.fixture
def settings(disk: Path, tmp_path: Path) -> Settings:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(8):
        Image.new("RGB", (40, 30), (number * 30, 9, 9)).save(pictures / f"{number}.png")
    model = make_clip(tmp_path / "clip")
    home = settings_of(disk / "home", pictures=pictures)
    return home.model_copy(update={"model": str(model)})


def problems(store: Store) -> list[str]:
    return [finding.problem for finding in verify(store) if finding.problem]


@pytest.mark.slow
def test_wherever_the_disk_fills_up_it_is_told_and_the_next_run_goes_on(
    settings: Settings, resize: Callable[[int], None]
) -> None:
    store = Store(settings.home)
    failed: list[int] = []
    size = 4
    while True:
        resize(size)
        try:
            report = index_sources(settings)
        except StoreError as error:
            assert "no space left for" in str(error)
            assert not list(settings.home.glob("**/.tmp-*"))
            assert problems(store) == []
            failed.append(size)
            size = size * 3 // 2 + 4
        else:
            break
    # Also such small ones that nothing fits, and such large ones that only the map does not.
    assert len(failed) > 6
    assert report.map.info is not None
    assert report.build.info.items == 8
    assert problems(store) == []


def test_a_full_disk_keeps_index_and_votes_and_forgets_none(
    settings: Settings, disk: Path, resize: Callable[[int], None]
) -> None:
    resize(100_000)
    before = index_sources(settings).build.build
    store = Store(settings.home)
    add_judgements(store, "taste", [(content("x"), True)])
    with (
        (disk / "film").open("wb", buffering=0) as film,
        pytest.raises(OSError, match="No space left"),
    ):
        while True:
            film.write(bytes(4096))
    picture = settings.sources[0].path / "new.png"
    Image.new("RGB", (40, 30), "white").save(str(picture))
    with pytest.raises(RetrievalError, match="no space left for"):
        index_sources(settings)
    with pytest.raises(StoreError, match="no space left for"):
        add_judgements(store, "taste", [(content("y"), True)])
    assert open_current(store).path == before
    assert len(read_judgements(store, "taste")) == 1
    (disk / "film").unlink()
    assert index_sources(settings).build.info.items == 9
