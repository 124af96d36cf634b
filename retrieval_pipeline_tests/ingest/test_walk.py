"""Which files of a source are looked at, and what is said of the others."""

import os
from pathlib import Path

import pytest
from PIL import Image

from retrieval_pipeline.config.extensions import PICTURES, RAW
from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.ingest import walk as walk_module
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.manifest import read_not_looked_at
from retrieval_pipeline.ingest.walk import Beside, walk
from retrieval_pipeline.maintenance.verify import verify
from retrieval_pipeline.storage.remote import Remote
from retrieval_pipeline.storage.store import Store

NAMES = (
    *("a.jpg", "b.NEF", "b/c.mov", "b/d.MOV", "notes", "e.2019", "f.Txt", "g.xmp", "h.mp4"),
    *(".hidden", "out/i.txt"),
)
# What a walk over them tells.
COUNTS = {"": 2, ".txt": 1}


@pytest.fixture(params=["local", "remote"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> Path | Remote:
    """The directory of a source with files of these names."""
    directory = tmp_path / "pictures"
    place = directory if request.param == "local" else Remote(f"memory://{tmp_path.name}/pictures")
    for name in NAMES:
        write(place, name, b"nothing")
    return place


def write(root: Path | Remote, name: str, data: bytes) -> None:
    if isinstance(root, Path):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
    file = root / name
    file.write_bytes(data) if isinstance(file, Path) else file.write(data)


def source_of(root: Path | Remote, **keys: object) -> Source:
    return Source.model_validate({"name": "pictures", "path": root, "exclude": ["out"], **keys})


@pytest.mark.parametrize("with_raw", [True, False])
def test_what_is_not_looked_at_is_counted_by_its_extension(
    root: Path | Remote, with_raw: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(walk_module, "can_read_raw", lambda: with_raw)
    beside = Beside()
    found = [row.path for row in walk(source_of(root), beside=beside)]
    assert found == ["a.jpg"] + ["b.NEF"] * with_raw
    assert beside.not_looked_at == COUNTS | ({} if with_raw else {".nef": 1})
    assert sorted(row.path for row in beside.companions) == ["b/c.mov", "b/d.MOV", "g.xmp", "h.mp4"]


def test_more_extensions_are_looked_at_beside_the_others(root: Path | Remote) -> None:
    source = source_of(root, more_extensions=[".TXT"])
    assert {row.path for row in walk(source)} >= {"a.jpg", "f.Txt"}
    assert ".txt" in source.more_extensions


def test_pictures_of_any_name_are_found_by_their_first_bytes(
    root: Path | Remote, tmp_path: Path
) -> None:
    image = Image.new("RGB", (8, 8))
    names = {"photo": "PNG", "b/download.php": "JPEG", "x.dat": "WEBP", "y.txt": "TIFF", "z": "BMP"}
    for name, format in names.items():
        image.save(tmp_path / "picture", format)
        write(root, name, (tmp_path / "picture").read_bytes())
    if isinstance(root, Path):
        os.mkfifo(root / "pipe")  # opening it would wait for ever
        (root / "empty").touch()
    assert names.keys().isdisjoint(row.path for row in walk(source_of(root)))
    beside = Beside()
    found = [row.path for row in walk(source_of(root, sniff=True), beside=beside)]
    assert {*found} - {"a.jpg", "b.NEF"} == names.keys()
    assert beside.not_looked_at[""] == COUNTS[""] + isinstance(root, Path)


def test_the_counts_stay_with_the_manifest_and_follow_the_files(tmp_path: Path) -> None:
    root = tmp_path / "pictures"
    for name in ("a.jpg", "b.txt", "c.txt"):
        write(root, name, b"nothing")
    store = Store(tmp_path / "home")
    assert update_manifest(store, source_of(root)).not_looked_at == {".txt": 2}
    assert read_not_looked_at(store, "pictures") == {".txt": 2}
    assert not update_manifest(store, source_of(root)).published
    (root / "c.txt").rename(root / "c.doc")
    assert update_manifest(store, source_of(root)).published
    assert read_not_looked_at(store, "pictures") == {".doc": 1, ".txt": 1}
    assert [finding for finding in verify(store, ["pictures"]) if finding.problem] == []


def test_every_extension_is_in_lower_case_and_listed_once() -> None:
    names = (*PICTURES, *RAW)
    assert len(set(names)) == len(names)
    assert all(name == name.lower() and name.startswith(".") for name in names)
