"""Takes the pictures of Dagster's pages in docs/pictures, of a library that it makes and indexes.

python docs/dagster_screenshots.py DIRECTORY_OF_PICTURES [PAGE ...]

It runs `dagster dev` in a folder of its own until the pictures are indexed. Half a JPEG is put
beside them, so that something has failed. Names of pages take only these.
"""

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
from PIL import Image
from playwright.sync_api import Page, sync_playwright
from screenshots import CHROMIUM, PATIENCE, PICTURES, QUALITY

from retrieval_pipeline.config.template import settings_text

ROOT = Path(__file__).parents[1]
MOST_PICTURES = 60
# Name of the picture, path of the page, the metadata whose picture is opened, height in pixels.
OF_A_SOURCE = "assets/image_embeddings?view=events&partition=pictures"
SHOTS = [
    ("assets", "asset-groups", "", 700),
    ("embeddings", OF_A_SOURCE, "", 900),
    ("failed", OF_A_SOURCE, "failed_thumbnails", 640),
    ("map", "assets/latent_map?view=events", "picture", 900),
    ("checks", "assets/image_embeddings?view=checks", "", 620),
]
WIDTH = 1280


def library(folder: Path, pictures: Path) -> Path:
    """Copy some pictures, and half of one more; return a settings file for them."""
    directory = folder / "pictures"
    directory.mkdir()
    files = sorted(each for each in pictures.rglob("*") if each.suffix in (".jpg", ".png"))
    for number, file in enumerate(files[:: max(1, len(files) // MOST_PICTURES)][:MOST_PICTURES]):
        shutil.copy(file, directory / f"{number:02}-{file.name}")
    whole = io.BytesIO()
    with Image.open(files[0]) as image:
        image.convert("RGB").save(whole, "JPEG")
    (directory / "half.jpg").write_bytes(whole.getvalue()[: len(whole.getvalue()) // 2])
    file = folder / "retrieval.toml"
    saved = '[[saved_queries]]\nname = "flowers"\ntext = "a yellow flower"\n'
    pairs = [("pictures", directory)]
    file.write_text(settings_text(pairs, model="offline", home="home") + saved)
    return file


@contextmanager
def running(file: Path) -> Iterator[str]:
    """Run `dagster dev` over a settings file, until all is indexed; give its address."""
    home = file.parent / "dagster"
    home.mkdir()
    shutil.copy(ROOT / "deploy" / "dagster.yaml", home)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    names = {"DAGSTER_HOME": str(home), "RETRIEVAL_CONFIG": str(file), "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "dagster", "dev", "-w", str(ROOT / "workspace.yaml")]
    with (home / "dev.log").open("w") as log:
        process = subprocess.Popen(
            [*command, "-p", port],
            env={**os.environ, **names},
            cwd=home,
            stdout=log,
            stderr=log,
            process_group=0,
        )
    address = f"http://127.0.0.1:{port}"
    try:
        wait_until_indexed(home)
        urllib.request.urlopen(address).close()
        yield address
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)


def wait_until_indexed(home: Path) -> None:
    """Wait until the saved query was asked, which comes last."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        while instance.get_latest_materialization_event(dg.AssetKey("saved_query")) is None:
            time.sleep(1)


def shoot(page: Page, metadata: str) -> Image.Image:
    """Take the page, with the picture that is the value of this metadata, if any is named."""
    if metadata:
        name = page.get_by_role("cell", name=metadata, exact=True)
        row = page.get_by_role("row").filter(has=name).last
        row.get_by_text("[Show Markdown]").click()
        page.wait_for_timeout(PATIENCE)
    with Image.open(io.BytesIO(page.screenshot())) as shot:
        return shot.convert("RGB")


def main(pictures: Path, wanted: list[str]) -> None:
    """Take all pictures, or the wanted ones."""
    with (
        tempfile.TemporaryDirectory() as folder,
        running(library(Path(folder), pictures)) as address,
        sync_playwright() as playwright,
    ):
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        for name, path, metadata, height in SHOTS:
            if wanted and name not in wanted:
                continue
            page = browser.new_page(viewport={"width": WIDTH, "height": height})
            page.goto(f"{address}/{path}")
            page.wait_for_timeout(4 * PATIENCE)
            shot = shoot(page, metadata)
            shot.save(PICTURES / f"dagster-{name}.webp", quality=QUALITY, method=6)
            page.close()
        browser.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
