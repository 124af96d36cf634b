"""Does anything get lost? Random edits, kills, full disks, failing system calls, two runs at once.

    python benchmarks/soak.py [--rounds 30] [--seed 1] [--model offline]

Each round edits the pictures, also while they are indexed, and lets `retrieval index` meet a fate:
it may finish, be killed, be asked to stop, run out of disk space (which takes root, for a file
system of its own), meet a second run, or have system calls on its files fail (which takes a C
compiler): flock, fsync, mmap, read, rename or link, at random. Files that a person put into home
must all be there at the end. Meanwhile this process opens the current build again and
again, asks for the nearest items of a random one and compares them with an exact scan. At the end,
everything is compared with a fresh index of the same files.
"""

import argparse
import contextlib
import errno
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.maintenance.verify import verify
from retrieval_pipeline.storage.schemas import MANIFEST, QUARANTINE
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_table
from synthetic.faulty_system import compiler, faulty_environment

PICTURES = 60
# A killed run has got anywhere between its start and its end.
LONGEST_LIFE = 12.0
# What file systems answer: some lack a call, others fail now and then.
FAULTS = (
    ("flock", errno.ENOLCK, 100),
    ("fsync_directory", errno.EINVAL, 100),
    ("fsync", errno.EIO, 5),
    ("mmap", errno.ENODEV, 100),
    ("mmap", errno.ENOMEM, 5),
    ("read", errno.EIO, 2),
    ("rename", errno.EIO, 5),
    ("link", errno.EPERM, 100),
)
# In places and under names that look like the program's, relative to home.
FOREIGN = (
    "notes.txt",
    ".tmp-note.txt",
    ".tmp-drafts/draft.txt",
    "map/holiday/beach.jpg",
    "index/photos/2019/a.jpg",
    "damaged/prints/p.tif",
    "manifest/mine.parquet",
    "embeddings/notes/a/part-000001.parquet",
)


class Soak:
    """The library, its chaos, and what was counted."""

    def __init__(self, root: Path, home: Path, seed: int, model: str) -> None:
        self.root, self.home, self.model = root, home, model
        self.pictures = root / "pictures"
        self.pictures.mkdir()
        self.chance = random.Random(seed)
        self.counts: Counter[str] = Counter()
        self.made = 0
        self.settings = self.write_settings("soak", home)
        for _ in range(PICTURES):
            self.add()
        with Store(home).locked():
            for name in FOREIGN:
                (home / name).parent.mkdir(parents=True, exist_ok=True)
                (home / name).write_text(name)

    def write_settings(self, name: str, home: Path) -> Path:
        file = self.root / f"{name}.toml"
        file.write_text(
            f'home = "{home}"\nmodel = "{self.model}"\ndevice = "cpu"\nmax_shrink = 0.9\n'
            f'[[sources]]\nname = "pictures"\npath = "{self.pictures}"\n'
        )
        return file

    # Edits

    def files(self) -> list[Path]:
        return sorted(path for path in self.pictures.rglob("*") if path.is_file())

    def add(self) -> None:
        self.made += 1
        folder = self.pictures / str(self.chance.randrange(5))
        folder.mkdir(exist_ok=True)
        self.paint(folder / f"{self.made}.png")

    def paint(self, path: Path) -> None:
        noise = np.frombuffer(self.chance.randbytes(8 * 8 * 3), np.uint8).reshape(8, 8, 3)
        size = self.chance.randrange(30, 90)
        Image.fromarray(noise).resize((size, 50)).save(path)

    def edit(self) -> None:
        """Add, change, remove, move, copy or break a file."""
        files = self.files()
        path = self.chance.choice(files)
        target = path.with_name(f"moved {self.made}-{path.name[-60:]}")
        what = self.chance.choice(["add", "add", "change", "remove", "move", "copy", "break"])
        match what:
            case "add":
                self.add()
            case "change":
                self.paint(path)
            case "remove" if len(files) > PICTURES // 2:
                path.unlink()
            case "move":
                path.rename(target)
            case "copy":
                shutil.copy(path, target)
            case "break":
                data = path.read_bytes()
                path.write_bytes(data[: self.chance.randrange(len(data) + 1)])
        self.counts["edits"] += 1

    # Runs

    def start(
        self, *arguments: str, environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(
            [sys.executable, "-m", "retrieval_pipeline", *arguments],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=environment,
        )

    def index(
        self, settings: Path | None = None, environment: Mapping[str, str] | None = None
    ) -> "subprocess.Popen[bytes]":
        file = str(settings or self.settings)
        return self.start("index", "--config", file, environment=environment)

    def faults(self) -> dict[str, str]:
        """Return the environment of a process for which one system call fails on home."""
        call, code, percent = self.chance.choice(FAULTS)
        self.counts[f"fault {call}"] += 1
        library = self.root / "faulty.so"
        return faulty_environment(library, self.home, percent=percent, **{call: code})

    def play_round(self, full_disk: bool) -> None:
        """Edit, run to one of the fates, and look at what is left."""
        for _ in range(self.chance.randrange(1, 10)):
            self.edit()
        fates = ["finish", "kill", "kill", "kill", "stop", "twice"] + ["fill"] * full_disk
        fates += ["fault"] * 3 * (compiler() is not None)
        fate = self.chance.choice(fates)
        life = self.chance.uniform(0.2, LONGEST_LIFE)
        with self.filled_disk() if fate == "fill" else contextlib.nullcontext():
            run = self.index(environment=self.faults() if fate == "fault" else None)
            other = self.index() if fate == "twice" else None
            ends = time.monotonic() + life
            while run.poll() is None:
                self.query()
                if self.chance.random() < 0.02:
                    self.edit()
                if fate in ("kill", "stop") and time.monotonic() > ends:
                    run.send_signal(signal.SIGKILL if fate == "kill" else signal.SIGTERM)
                    fate = {"kill": "killed", "stop": "stopped"}[fate]
            if other is not None:
                other.wait()
        odd = ("killed", "stopped", "fill", "twice", "fault")
        self.counts[fate if fate in odd else "finished"] += 1
        if self.chance.random() < 0.2:
            self.counts["gc"] += 1
            self.start("gc", "--config", str(self.settings)).wait()
        if fate == "fault":
            repair = ("verify", "--repair", "--config", str(self.settings))
            self.start(*repair, environment=self.faults()).wait()
        for finding in verify(Store(self.home)):
            if finding.problem:
                self.counts["problems"] += 1
                print(f"verify: {finding.problem}", file=sys.stderr)

    @contextlib.contextmanager
    def filled_disk(self) -> Iterator[None]:
        film = self.home.parent / "film"
        with film.open("wb", buffering=0) as file, contextlib.suppress(OSError):
            while True:
                file.write(bytes(1 << 16))
        # From nothing to what a whole run takes.
        with film.open("r+b") as file:
            file.truncate(max(0, film.stat().st_size - self.chance.randrange(1 << 20)))
        yield
        film.unlink()

    def query(self) -> None:
        """Ask the current build for the neighbours of one of its items."""
        try:
            build = open_current(Store(self.home))
        except BuildError as error:
            if "nothing is indexed yet" not in str(error):
                raise
            time.sleep(0.05)
            return
        vector = build.vectors([self.chance.randrange(len(build))])[0]
        numbers, scores = build.best(vector, 5)
        exact = np.sort(build.scan(vector))[::-1][: len(numbers)]
        self.counts["queries"] += 1
        self.counts["wrong answers"] += not np.allclose(scores, exact, atol=1e-5)
        time.sleep(0.01)

    # The end

    def is_untouched(self, name: str) -> bool:
        """Return whether a foreign file is still there with its content."""
        file = self.home / name
        return file.exists() and file.read_text() == name

    def compare(self) -> None:
        """Count the rows that a fresh index of the same files has and this one has not."""
        fresh = self.root / "fresh"
        for settings in (self.settings, self.write_settings("fresh", fresh)):
            if self.index(settings).wait():
                raise SystemExit("the last run failed")
        mine, other = self.rows(self.home), self.rows(fresh)
        for kind in mine:
            self.counts["rows lost"] += len(other[kind] - mine[kind])
            self.counts["rows too many"] += len(mine[kind] - other[kind])

    def rows(self, home: Path) -> dict[str, set[object]]:
        store = Store(home)
        build = open_current(store)
        vectors = build.vectors(np.arange(len(build)))
        return {
            "files": {
                (row["path"], row["size"], row["mtime_ns"], row["content_id"])
                for row in read_table(store.manifest("pictures"), MANIFEST).to_pylist()
            },
            "images": {
                (row["content_id"], tuple(np.round(vector[:8], 2)), str(row["locations"]))
                for row, vector in zip(build.items.to_pylist(), vectors, strict=True)
            },
            "quarantine": {
                (row["content_id"], row["reason"])
                for path in store.embedding_tables()[1]
                for row in read_table(path, QUARANTINE).to_pylist()
            },
        }


@contextlib.contextmanager
def own_disk(directory: Path) -> Iterator[bool]:
    """Make `directory` a small file system, if that is possible."""
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(directory)]
    mounted = not os.geteuid() and subprocess.run(mount, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(directory)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model", default="offline")
    options = parser.parse_args()
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as directory, own_disk(Path(directory) / "disk") as limited:
        home = Path(directory) / "disk" / "home"
        soak = Soak(Path(directory), home, options.seed, options.model)
        for number in range(options.rounds):
            soak.play_round(limited)
            print(f"round {number + 1}: {dict(soak.counts)}", file=sys.stderr)
        soak.compare()
        lost = [name for name in FOREIGN if not soak.is_untouched(name)]
    counts = soak.counts
    rows = {
        "rounds": options.rounds,
        "edits": counts["edits"],
        "runs killed": counts["killed"],
        "runs asked to stop": counts["stopped"],
        "runs on a full disk": counts["fill"],
        "two runs at once": counts["twice"],
        "runs of gc": counts["gc"],
        "queries answered meanwhile": counts["queries"],
        "runs with failing system calls": counts["fault"],
        "repairs with failing system calls": counts["fault"],
        "files of others lost": len(lost),
        "wrong answers": counts["wrong answers"],
        "findings of verify": counts["problems"],
        "rows lost": counts["rows lost"],
        "rows too many": counts["rows too many"],
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    print("| what | count |\n|---|--:|")
    for name, count in rows.items():
        print(f"| {name} | {count:,} |")
    failures = ("files of others lost", "wrong answers", "findings of verify", "rows lost")
    sys.exit(any(rows[name] for name in failures))


if __name__ == "__main__":
    main()
