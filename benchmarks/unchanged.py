"""What does a run cost that finds nothing changed? Peer: `find`, which looks at every file as well.

    python benchmarks/unchanged.py [--files 100000]

The files are hard links to one small picture under many directories. They are indexed once; then
the whole command (`retrieval index`, start of Python included) runs again a few times.
"""

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

PER_FOLDER = 500
# The most links that the common file systems allow to one file.
PER_PICTURE = 30_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=100_000)
    parser.add_argument("--runs", type=int, default=3)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        root = Path(directory)
        make_files(root / "pictures", options.files)
        (root / "retrieval.toml").write_text(
            'home = "home"\nmodel = "offline"\n[[sources]]\nname = "p"\npath = "pictures"\n'
        )
        retrieval = [sys.executable, "-m", "retrieval_pipeline", "index"]
        rows = [("first run", seconds(retrieval, root))]
        rows += [("nothing changed", seconds(retrieval, root)) for _ in range(options.runs)]
        find = ["find", "pictures", "-printf", "%s %T@ %p\\n"]
        rows += [("find", seconds(find, root)) for _ in range(options.runs)]
    print(f"{options.files:,} files\n\n| run | s | s of a core |\n|---|--:|--:|")
    for name, (wall, computing) in rows:
        print(f"| {name} | {wall:.1f} | {computing:.1f} |")


def make_files(root: Path, count: int) -> None:
    root.mkdir()
    for number in range(count):
        folder, picture = root / str(number // PER_FOLDER), root / f"{number // PER_PICTURE}.png"
        if number % PER_PICTURE == 0:
            Image.new("RGB", (64, 48), (number // PER_PICTURE * 40, 0, 90)).save(picture)
        folder.mkdir(exist_ok=True)
        os.link(picture, folder / f"{number}.png")


def seconds(command: Sequence[str], directory: Path) -> tuple[float, float]:
    """Return how long a command took, and how much of a core; the first depends on other load."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.monotonic()
    subprocess.run(command, cwd=directory, check=True, capture_output=True)
    wall = time.monotonic() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


if __name__ == "__main__":
    main()
