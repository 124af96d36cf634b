"""How does the search page feel in a browser: does it move, how soon is it there, does it scroll?

Chromium against the real server, over an index of synthetic vectors; all thumbnails are one grey
picture, so that the page is measured and not the decoder. The large view opens real photographs of
12 megapixels from a library of their own. Milliseconds are medians.

    python benchmarks/page.py --rows 100000
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, Playwright, sync_playwright

from retrieval_pipeline.encoders.load import load_encoder
from retrieval_pipeline.index.build import Build, open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.latent_map.coordinates import make_map, save_map
from retrieval_pipeline.search.facets import FacetCounter
from retrieval_pipeline.storage.store import Store
from synthetic.tables import clustered, write_manifest, write_part

LOADS = 7
PHOTOS = 6
QUERIES = ("a dog", "a red car", "snow", "a tree by a lake", "people at night")
FRAMES = 240

# https://web.dev/articles/cls and https://web.dev/articles/fcp
SHIFT = """() => new Promise((resolve) => { new PerformanceObserver((list) =>
  resolve(list.getEntries().reduce((sum, shift) => sum + shift.value, 0))
).observe({ type: "layout-shift", buffered: true }); setTimeout(() => resolve(0), 300); })"""
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
# Milliseconds from the key that ends a search to its first card.
ANSWER = """(text) => new Promise((resolve) => {
  const box = document.querySelector("[name=text]");
  const state = document.getElementById("state");
  const start = performance.now();
  new MutationObserver((_, observer) => {
    if (document.getElementById("summary")?.textContent.trim() !== text) return;
    observer.disconnect();
    requestAnimationFrame(() => resolve(performance.now() - start));
  }).observe(state, { childList: true, subtree: true });
  box.value = text;
  box.dispatchEvent(new Event("input", { bubbles: true }));
})"""
# Milliseconds from a click on a card until the large view shows 1,600 pixels, and from a double
# click on that until it shows the file's own.
SHARP = """([selector, number, type, wanted]) => new Promise((resolve) => {
  const image = document.querySelector("#viewer .frame > img");
  const start = performance.now();
  new MutationObserver((_, observer) => {
    if (!image.src.includes(wanted)) return;
    observer.disconnect();
    requestAnimationFrame(() => resolve(performance.now() - start));
  }).observe(image, { attributeFilter: ["src"] });
  const target = document.querySelectorAll(selector)[number];
  target.dispatchEvent(new MouseEvent(type, { bubbles: true, cancelable: true,
    clientX: innerWidth / 3, clientY: innerHeight / 2 }));
})"""
# Milliseconds of each frame while the map is dragged to and fro and enlarged.
MAP = """(frames) => new Promise((resolve) => {
  const map = document.getElementById("map");
  const box = map.getBoundingClientRect();
  const times = [];
  let last = performance.now();
  const step = (now) => {
    times.push(now - last);
    last = now;
    map.dispatchEvent(new WheelEvent("wheel", { deltaY: times.length % 120 < 60 ? -25 : 25,
      clientX: box.x + box.width / 2, clientY: box.y + box.height / 2, cancelable: true }));
    if (times.length < frames) requestAnimationFrame(step);
    else resolve(times.slice(1));
  };
  requestAnimationFrame(step);
})"""
# Milliseconds of each frame while the page scrolls by half a screen a frame.
SCROLL = """(frames) => new Promise((resolve) => {
  const times = [];
  let last = performance.now();
  const step = (now) => {
    times.push(now - last);
    last = now;
    scrollBy(0, innerHeight / 2);
    if (times.length < frames) requestAnimationFrame(step);
    else resolve(times);
  };
  requestAnimationFrame(step);
})"""


def make_library(root: Path, rows: int) -> None:
    """Write settings and an index of `rows` pictures that have no files."""
    (root / "photos").mkdir()
    (root / "retrieval.toml").write_text(
        'home = "home"\nmodel = "offline"\n[[sources]]\nname = "photos"\npath = "photos"\n'
    )
    encoder = load_encoder("offline")
    store, space = Store(root / "home"), encoder.space
    names = [f"n{number:06d}" for number in range(rows)]
    write_manifest(store, "photos", {f"{name}.jpg": name for name in names})
    write_part(store, space, "photos", names, clustered(rows, space.dim))
    build_index(store, space, ["photos"])
    build = open_current(store)
    directory = store.map(build.path.name)
    directory.mkdir(parents=True)
    save_map(make_map(build), directory)


def make_photos(root: Path) -> None:
    """Write settings and JPEGs of 12 megapixels, and index them."""
    (root / "photos").mkdir(parents=True)
    (root / "retrieval.toml").write_text(
        'home = "home"\nmodel = "offline"\n[[sources]]\nname = "photos"\npath = "photos"\n'
    )
    rng = np.random.default_rng(0)
    for number in range(PHOTOS):
        coarse = Image.fromarray(rng.integers(0, 256, (300, 400, 3), np.uint8))
        coarse.resize((4000, 3000), Image.Resampling.BICUBIC).save(
            root / "photos" / f"{number}.jpg", quality=90
        )
    command = [sys.executable, "-m", "retrieval_pipeline", "index", "-q"]
    subprocess.run([*command, "--config", str(root / "retrieval.toml")], check=True)


def heap(page: Page) -> float:
    """Return the megabytes of JavaScript objects after a collection."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(each["value"] for each in metrics if each["name"] == "JSHeapUsedSize") / 1e6


def measure(playwright: Playwright, address: str, grey: Path) -> None:
    """Measure the page of a server, with `grey` for each thumbnail, and print the figures."""
    browser = launch(playwright)
    shifts, paints = [], []
    for _ in range(LOADS):
        context = browser.new_context(viewport={"width": 1280, "height": 900})
        page = context.new_page()
        page.route("**/thumbnail*", lambda route: route.fulfill(path=grey))
        page.goto(address)
        page.wait_for_selector("[data-ready]")
        page.wait_for_timeout(500)
        shifts.append(page.evaluate(SHIFT))
        paints.append(page.evaluate(PAINT))
        if len(paints) < LOADS:
            context.close()
    print(f"cumulative layout shift, worst: {max(shifts):.4f}")
    print(f"first contentful paint: {statistics.median(paints):.0f} ms")
    page.evaluate(ANSWER, "warm up")
    answers = [page.evaluate(ANSWER, query) for query in QUERIES]
    print(f"last key to first card: {statistics.median(answers):.0f} ms, of which 150 are a pause")
    page.goto(address)
    page.wait_for_selector(".card[aria-setsize]:not([aria-setsize='-1'])")
    before = heap(page)
    print(f"frames while scrolling: {percentiles(page.evaluate(SCROLL, FRAMES))}")
    page.wait_for_timeout(1_000)
    print(f"JavaScript objects: {before:.1f} MB before, {heap(page):.1f} MB after")
    page.goto(f"{address}map")
    page.wait_for_selector("[data-ready]")
    page.wait_for_timeout(1_000)
    print(f"frames while enlarging the map: {percentiles(page.evaluate(MAP, FRAMES))}")
    sizes = page.evaluate(
        "performance.getEntriesByType('resource').filter((each) => !/thumbnail/.test(each.name))"
        ".reduce((sum, each) => sum + each.transferSize, 0)"
    )
    print(f"scripts, styles and data of the map: {sizes / 1e6:.2f} MB as they are sent")
    browser.close()


def measure_viewer(playwright: Playwright, address: str) -> None:
    """Measure how soon the large view of a server's photographs is sharp."""
    browser = launch(playwright)
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(address)
    page.wait_for_selector("[data-ready]")
    page.wait_for_timeout(1_000)
    fits, originals = [], []
    for number in range(PHOTOS):
        fits.append(page.evaluate(SHARP, [".card a.picture", number, "click", "size=large"]))
        frame = "#viewer .frame > img"
        originals.append(page.evaluate(SHARP, [frame, 0, "dblclick", "/image"]))
        page.keyboard.press("Escape")
        page.wait_for_timeout(500)
    print(f"click to a sharp picture that fits the window: {statistics.median(fits):.0f} ms")
    print(f"double click to the 12 megapixels of the file: {statistics.median(originals):.0f} ms")
    browser.close()


def measure_facets(build: Build) -> None:
    """Measure what counting the facets of an answer costs, the first time and later."""
    counter = FacetCounter(build)
    flags = np.arange(len(build)) % 3 == 0
    times = []
    for _ in range(LOADS):
        started = time.perf_counter()
        counter.count(flags)
        times.append(1000 * (time.perf_counter() - started))
    print(f"facets: {times[0]:.0f} ms the first time, {statistics.median(times[1:]):.1f} ms later")


def launch(playwright: Playwright) -> Browser:
    """Start Chromium."""
    return playwright.chromium.launch(
        executable_path="/usr/bin/chromium", args=["--no-sandbox", "--disable-dev-shm-usage"]
    )


def percentiles(times: list[float]) -> str:
    """Say the middle and the 95th percentile of frames."""
    middle, slow = np.percentile(times, [50, 95])
    return f"{middle:.0f} ms, 95th percentile {slow:.0f} ms"


@contextmanager
def served(root: Path) -> Iterator[str]:
    """Serve a library, and give the address of its page."""
    command = [sys.executable, "-m", "retrieval_pipeline", "serve", "--port", "0"]
    server = subprocess.Popen(
        [*command, "--config", str(root / "retrieval.toml")], stderr=subprocess.PIPE, text=True
    )
    try:
        assert server.stderr is not None
        yield next(line for line in server.stderr if line.startswith("http")).split()[0]
    finally:
        server.kill()
        server.wait()


def main() -> None:
    """Make libraries, serve them, and measure their pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory, sync_playwright() as playwright:
        root = Path(directory)
        make_library(root, arguments.rows)
        measure_facets(open_current(Store(root / "home")))
        grey = root / "grey.webp"
        Image.fromarray(np.full((200, 300, 3), 90, np.uint8)).save(grey)
        with served(root) as address:
            measure(playwright, address, grey)
        make_photos(root / "large")
        with served(root / "large") as address:
            measure_viewer(playwright, address)


if __name__ == "__main__":
    main()
