"""A small library with real photographs, real names and real trouble, and a server for it."""

import contextlib
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from starlette.testclient import TestClient

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.pipeline.run import index_sources
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.web.app import create_app
from retrieval_pipeline.web.security import Access

BASE = "http://127.0.0.1:8765"
# What a page must show as text.
NASTY = "<img src=x onerror=alert(1)>.jpg"


@dataclass(frozen=True)
class WebLibrary:
    """Settings file and sources of a library; every test may change its own copy."""

    root: Path

    @property
    def settings_file(self) -> Path:
        return self.root / "retrieval.toml"

    @property
    def settings(self) -> Settings:
        return load_settings(self.settings_file)

    def photo(self, name: str) -> Path:
        return self.root / "photos" / name

    def content(self, name: str) -> str:
        return content_id_of_file(self.photo(name))

    def index(self) -> None:
        index_sources(self.settings)

    def copied(self, root: Path) -> "WebLibrary":
        """Return a copy; the files keep their times."""
        shutil.copytree(self.root, root, symlinks=True)
        return WebLibrary(root)


def make_library(root: Path, photos: dict[str, Path]) -> WebLibrary:
    """Index photographs, drawings, a copy, a twin, a nasty name and a broken file."""
    library = WebLibrary(root)
    (root / "photos" / "deep").mkdir(parents=True)
    (root / "drawings").mkdir()
    for name, file in photos.items():
        shutil.copy(file, library.photo(f"{name}{file.suffix}"))
    shutil.copy(library.photo("cat.png"), library.photo("deep/cat again.png"))
    with Image.open(photos["flower"]) as flower:
        flower.save(library.photo(NASTY), quality=95)
    library.photo("broken.jpg").write_bytes(photos["rocket"].read_bytes()[:2_000])
    for number in range(12):
        colour = (20 * number, 255 - 20 * number, 128)
        size = (300 + 40 * number, 240)
        Image.new("RGB", size, colour).save(root / "drawings" / f"field{number:02}.png")
    library.settings_file.write_text(
        'home = "home"\nmodel = "offline"\ndevice = "cpu"\n'
        '[[sources]]\nname = "photos"\npath = "photos"\n'
        '[[sources]]\nname = "drawings"\npath = "drawings"\n'
    )
    library.index()
    return library


@contextlib.contextmanager
def client_of(
    library: WebLibrary,
    access: Access | None = None,
    *,
    index_command: Sequence[str] | None = None,
    **options: Any,
) -> Iterator[TestClient]:
    """Give a client of a running application."""
    access = access or Access()
    app = create_app(
        lambda: load_settings(library.settings_file), access, index_command=index_command
    )
    with TestClient(app, base_url=BASE, **options) as client:
        client.headers["x-retrieval-token"] = access.csrf_token
        yield client
