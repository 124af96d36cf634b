"""How long from a picture's last byte until it can be found, while `retrieval watch` runs?

    python benchmarks/watch.py [--files 100000]

The library has so many files (links to a few small pictures), whose content ids and vectors are
made up. Then `retrieval watch` runs with the offline model, and pictures are written: one at a
time, a burst of many at once, and one that is renamed. A picture counts as found when the index
that holds it is the current one, which every query looks up first. Processor time is that of
`watch` and its decode workers, from `/proc`.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.encoders.load import describe
from retrieval_pipeline.facts.model import PictureFacts
from retrieval_pipeline.ingest.facts import record_facts
from retrieval_pipeline.ingest.manifest import manifest_metadata, save_rows
from retrieval_pipeline.ingest.walk import walk
from retrieval_pipeline.storage.home import mark_home
from retrieval_pipeline.storage.store import Store
from synthetic.tables import clustered, content, write_part

PER_FOLDER = 500
# The most links that the common file systems allow to one file.
PER_PICTURE = 30_000
PART_ROWS = 20_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--pictures", type=int, default=7, help="written one at a time")
    parser.add_argument("--burst", type=int, default=50, help="written at once")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        store = make_library(root, options.files)
        command = [sys.executable, "-m", "retrieval_pipeline", "watch"]
        with (root / "said.txt").open("w") as said:
            process = subprocess.Popen(command, cwd=root, stdout=said, stderr=subprocess.DEVNULL)
        try:
            began = time.monotonic()
            wait_for(lambda: "Watching" in (root / "said.txt").read_text(), process)
            print(f"{options.files:,} files, first look {time.monotonic() - began:.1f} s\n")
            print("| | last byte to found, s | s of a core |\n|---|--:|--:|")
            measure(root / "pictures" / "7", store, process, options.pictures, options.burst)
        finally:
            process.terminate()
            process.wait()
        print("\n" + (root / "said.txt").read_text())


def measure(
    folder: Path, store: Store, process: subprocess.Popen[bytes], pictures: int, burst: int
) -> None:
    rng = np.random.default_rng(1)

    def changed(change: Callable[[], object]) -> tuple[float, float]:
        """Change something; return the time until another index answers, and processor time."""
        before, computed = store.current_file.read_text(), computing(process.pid)
        change()
        began = time.monotonic()
        wait_for(lambda: store.current_file.read_text() != before, process)
        return time.monotonic() - began, computing(process.pid) - computed

    def put(name: str) -> None:
        pixels = rng.integers(0, 255, (480, 640, 3), np.uint8)
        Image.fromarray(pixels).save(folder / name)

    runs = [changed(lambda name=f"new{number}.jpg": put(name)) for number in range(pictures)]
    times, work = zip(*runs, strict=True)
    row(f"one picture, median of {pictures}", statistics.median(times), statistics.median(work))
    row("one picture, slowest", max(times), max(work))
    row(f"{burst} pictures at once", *changed(lambda: [put(f"b{n}.jpg") for n in range(burst)]))
    time.sleep(5)  # those of the burst that came later
    row("a picture renamed", *changed(lambda: (folder / "new0.jpg").rename(folder / "other.jpg")))


def row(name: str, seconds: float, work: float) -> None:
    print(f"| {name} | {seconds:.1f} | {work:.1f} |", flush=True)


def make_library(root: Path, count: int) -> Store:
    """Write files, a manifest of invented content ids, and vectors for these."""
    pictures = root / "pictures"
    pictures.mkdir()
    for number in range(count):
        folder, picture = (
            pictures / str(number // PER_FOLDER),
            root / f"{number // PER_PICTURE}.png",
        )
        if number % PER_PICTURE == 0:
            Image.new("RGB", (64, 48), (number // PER_PICTURE * 40, 0, 90)).save(picture)
        folder.mkdir(exist_ok=True)
        os.link(picture, folder / f"{number}.png")
    (root / "retrieval.toml").write_text(
        'home = "home"\nmodel = "offline"\n[[sources]]\nname = "p"\npath = "pictures"\n'
    )
    store = Store(root / "home")
    store.home.mkdir()
    mark_home(store.home)
    source = Source(name="p", path=pictures)
    rows = {each.path: replace(each, content_id=content(each.path)) for each in walk(source)}
    save_rows(store, "p", rows, manifest_metadata({}, grouped=True))
    space = describe("offline").space
    ids = [each.content_id or "" for each in rows.values()]
    for start in range(0, len(ids), PART_ROWS):
        part = ids[start : start + PART_ROWS]
        write_part(store, space, "p", part, clustered(len(part), space.dim, start), (64, 48))
    record_facts(store, "p", dict.fromkeys(ids, PictureFacts()))
    return store


def wait_for(found: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    while not found():
        if process.poll() is not None:
            raise SystemExit("`retrieval watch` has ended")
        time.sleep(0.01)


def computing(pid: int) -> float:
    """Return the processor time of a process and of its children, s."""
    total = 0
    for each in (pid, *map(int, Path(f"/proc/{pid}/task/{pid}/children").read_text().split())):
        fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        total += int(fields[11]) + int(fields[12])
    return total / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
