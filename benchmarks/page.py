"""How does the search page feel in a browser: does it move, how soon is it there, does it scroll?

Chromium against the real server, over an index of synthetic vectors; all thumbnails are one grey
picture, so that the page is measured and not the decoder. Milliseconds are medians.

    python benchmarks/page.py --rows 10000
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image
from playwright.sync_api import Page, sync_playwright

from retrieval_pipeline.encoders.load import load_encoder
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.storage.store import Store
from synthetic.tables import random_vectors, write_manifest, write_part

LOADS = 7
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
    write_part(store, space, "photos", names, random_vectors(rows, space.dim))
    build_index(store, space, ["photos"])


def heap(page: Page) -> float:
    """Return the megabytes of JavaScript objects after a collection."""
    session = page.context.new_cdp_session(page)
    session.send("HeapProfiler.collectGarbage")
    session.send("Performance.enable")
    metrics = session.send("Performance.getMetrics")["metrics"]
    return next(each["value"] for each in metrics if each["name"] == "JSHeapUsedSize") / 1e6


def measure(address: str, grey: Path) -> None:
    """Measure the page of a server, with `grey` for each thumbnail, and print the figures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path="/usr/bin/chromium",
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
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
        print(
            f"last key to first card: {statistics.median(answers):.0f} ms, of which 250 are a pause"
        )
        page.goto(address)
        page.wait_for_selector(".card[aria-setsize]:not([aria-setsize='-1'])")
        before = heap(page)
        times = page.evaluate(SCROLL, FRAMES)
        page.wait_for_timeout(1_000)
        print(f"frames while scrolling, 95th percentile: {np.percentile(times, 95):.0f} ms")
        print(f"JavaScript objects: {before:.1f} MB before, {heap(page):.1f} MB after")
        browser.close()


def main() -> None:
    """Make a library, serve it, and measure its page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=10_000)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        make_library(root, arguments.rows)
        grey = root / "grey.webp"
        Image.fromarray(np.full((200, 300, 3), 90, np.uint8)).save(grey)
        command = [sys.executable, "-m", "retrieval_pipeline", "serve", "--port", "0"]
        server = subprocess.Popen(
            [*command, "--config", str(root / "retrieval.toml")],
            stderr=subprocess.PIPE,
            text=True,
            env=os.environ,
        )
        try:
            assert server.stderr is not None
            address = next(line for line in server.stderr if line.startswith("http")).split()[0]
            measure(address, grey)
        finally:
            server.kill()
            server.wait()


if __name__ == "__main__":
    main()
