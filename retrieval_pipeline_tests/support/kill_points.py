"""Kill real runs with SIGKILL wherever the store changes, and look at what they leave.

A program of its own, because it imports everything once and forks a child for each run:

    python -m retrieval_pipeline_tests.support.kill_points DIRECTORY

It reads the names of scenarios, a line each, and answers each with a line of JSON.

The points are the moments before and after every rename, sync, creation and removal, watched from
outside: the product knows nothing of it. A killed process leaves nothing but its files, so of
points at which all files are the same only the first is tried.
"""

import contextlib
import functools
import hashlib
import importlib
import json
import os
import pickle
import re
import shutil
import signal
import sys
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from retrieval_pipeline.cli.main import cli
from retrieval_pipeline.cli.progress import console_progress
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.base import Encoder
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.images import decode_pool as decode
from retrieval_pipeline.index import tiers
from retrieval_pipeline.index.build import current_or_none, open_current
from retrieval_pipeline.ingest import part_writer
from retrieval_pipeline.latent_map import write as map_views
from retrieval_pipeline.latent_map.coordinates import read_coordinates
from retrieval_pipeline.maintenance import repair as repair_module
from retrieval_pipeline.maintenance import verify as verify_module
from retrieval_pipeline.maintenance.gc import collect
from retrieval_pipeline.pipeline import run as pipeline
from retrieval_pipeline.recommend.votes import add_judgements, read_judgements
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from synthetic.checkpoints import make_clip

WATCHED = ("replace", "fsync", "mkdir", "unlink", "rmdir")
TEMPORARY = re.compile(r"\.tmp-[0-9a-f]{12}-?")
COLOURS = ("red", "green", "blue", "yellow", "teal", "pink", "navy")


# Children


def in_child(task: Callable[[], Any], log: Path) -> tuple[int, Any]:
    """Run `task` in a fork; return its wait status and what it returned."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            with log.open("ab") as file:
                os.dup2(file.fileno(), 1)
                os.dup2(file.fileno(), 2)
            with os.fdopen(writer, "wb") as answers:
                pickle.dump(task(), answers)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(status)
    os.close(writer)
    with os.fdopen(reader, "rb") as answers:
        data = answers.read()
    _, status = os.waitpid(pid, 0)
    return status, pickle.loads(data) if data else None


def done(task: Callable[[], Any], log: Path) -> Any:
    """Run `task` in a fork that must succeed."""
    status, result = in_child(task, log)
    if status:
        raise AssertionError(f"ended with {status}: {log.read_text()[-2000:]}")
    return result


@contextlib.contextmanager
def watching(home: Path, reach: Callable[[str], None]) -> Iterator[None]:
    """Call `reach` with a label before and after each watched call that touches `home`."""

    def watched(name: str, original: Callable[..., Any]) -> Callable[..., Any]:
        def call(target: Any, *arguments: Any, **options: Any) -> Any:
            if isinstance(target, int):
                path = os.readlink(f"/proc/self/fd/{target}")
            else:
                path = os.path.abspath(os.fsdecode(target))
            inside = path.startswith(f"{home}/") or "dir_fd" in options
            label = f"{name} {TEMPORARY.sub('', os.path.basename(path))}"
            if inside:
                reach(f"before {label}")
            result = original(target, *arguments, **options)
            if inside:
                reach(f"after {label}")
            return result

        return call

    originals = {name: getattr(os, name) for name in WATCHED}
    for name, original in originals.items():
        setattr(os, name, watched(name, original))
    try:
        yield
    finally:
        for name, original in originals.items():
            setattr(os, name, original)


def state(home: Path) -> str:
    """Hash every name and byte below home; the random part of temporary names aside."""
    digest = hashlib.sha256()
    names = {TEMPORARY.sub(".tmp-", str(path.relative_to(home))): path for path in home.rglob("*")}
    for name, path in sorted(names.items()):
        digest.update(name.encode())
        if path.is_file() and path.name != "lock":
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def remains(home: Path) -> tuple[Any, ...]:
    """Tell what decides how the next run goes on, and differs not with the time of the run."""
    store = Store(home)
    current = current_or_none(store)
    tables = {
        path: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (
            *store.manifests(),
            *store.embedding_tables()[0],
            *store.all_judgements(),
        )
    }
    names = [re.sub(r"\d{8}T[\d.]+Z", "", str(path)) for path in sorted(home.rglob("*"))]
    return tuple(names), tuple(tables.items()), current == max(store.all_builds(), default=None)


def traced(run: Callable[[], None], home: Path) -> list[tuple[str, str]]:
    """Run to the end; return (label, state of the files) of every point."""
    points: list[tuple[str, str]] = []
    with watching(home, lambda label: points.append((label, state(home)))):
        run()
    return points


def killed(run: Callable[[], None], home: Path, number: int) -> None:
    """Run, and die at the point of that number."""
    left = number

    def reach(label: str) -> None:
        nonlocal left
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        left -= 1

    with watching(home, reach):
        run()


# The library


def make_library(root: Path) -> None:
    """An index of four images, then four new ones, a broken one, and one less."""
    make_clip(root / "clip")
    pictures = root / "pictures"
    pictures.mkdir()

    def paint(name: str) -> None:
        Image.new("RGB", (40 + len(name), 40), name).save(pictures / f"{name}.png")

    for name in COLOURS[:4]:
        paint(name)
    write_settings(root, root / "base")
    run_index(root / "base")()
    with Image.open(pictures / "red.png") as red:
        red.save(pictures / "red again.png", optimize=True)
    (pictures / "green.png").unlink()
    for name in COLOURS[4:]:
        paint(name)
    (pictures / "broken.png").write_text("no picture")


def write_settings(root: Path, home: Path) -> None:
    home.with_suffix(".toml").write_text(
        f'home = "{home}"\nmodel = "{root}/clip"\ndevice = "cpu"\n'
        f'[[sources]]\nname = "pictures"\npath = "{root}/pictures"\n'
    )


def settings_of(home: Path) -> Settings:
    return load_settings(home.with_suffix(".toml"))


def run_index(home: Path) -> Callable[[], None]:
    """`retrieval index`, with parts of two rows, a merge of segments and a small map."""

    def run() -> None:
        decode.default_workers = lambda: 1
        part_writer.PART_ROWS = 2
        # Every new segment is merged with the one before.
        tiers.FACTOR = 2
        load = pipeline.load_settings_encoder

        def load_one_by_one(settings: Settings, space: VectorSpace) -> Encoder:
            encoder = load(settings, space)
            encoder.batch = 1  # whatever was done before, the sums are the same
            return encoder

        pipeline.load_settings_encoder = load_one_by_one
        map_views.write_views = functools.partial(map_views.write_views, size=(256, 256))
        cli.main(["index", "--config", str(home.with_suffix(".toml"))], standalone_mode=False)

    return run


def run_vote(home: Path) -> Callable[[], None]:
    """One vote more."""
    return lambda: add_judgements(Store(home), "taste", [("0" * 32, True)]) and None


def run_gc(home: Path) -> Callable[[], None]:
    """`retrieval gc`, without grace."""

    def run() -> None:
        collect(Store(home), ["pictures"], grace=timedelta(0))

    return run


def run_repair(home: Path) -> Callable[[], None]:
    """`retrieval verify --repair`."""

    def run() -> None:
        map_views.write_views = functools.partial(map_views.write_views, size=(256, 256))
        read_builds_here()
        with console_progress() as progress:
            repair_module.repair(settings_of(home), progress=progress)

    return run


# Checks


@dataclass(frozen=True)
class Tables:
    """All rows that a run is judged by."""

    manifest: list[Any]
    embeddings: list[Any]
    quarantine: list[Any]
    items: list[Any]
    build: tuple[Any, ...]
    coordinates: list[Any]


def tables(home: Path) -> Tables:
    """Read everything; what differs between two runs (times, how rows fell into parts) aside."""
    store = Store(home)
    build = open_current(store)
    rows = {"embeddings": [], "quarantine": [], "manifest": []}
    parts, quarantines = store.embedding_tables()
    for kind, paths in zip(rows, (parts, quarantines, store.manifests()), strict=True):
        for path in paths:
            rows[kind] += pq.read_table(path).to_pylist()
    for row in rows["embeddings"]:
        # A repair takes vectors from builds, where they are float16.
        row["embedding"] = np.float16(row["embedding"]).tolist()
    for row in rows["quarantine"]:
        del row["last_tried"]
    info = build.info
    return Tables(
        manifest=rows["manifest"],
        embeddings=sorted(rows["embeddings"], key=lambda row: row["content_id"]),
        quarantine=rows["quarantine"],
        items=build.items.to_pylist(),
        build=(info.inputs, info.items, info.locations, info.sources, info.calibration.plan),
        coordinates=sorted(
            read_coordinates(store.map(build.path.name)).select(["content_id"]).to_pylist(),
            key=str,
        ),
    )


def needed(all_rows: Tables) -> Tables:
    """Leave out the embeddings that belong to no file."""
    files = {row["content_id"] for row in all_rows.manifest}
    rows = [row for row in all_rows.embeddings if row["content_id"] in files]
    return replace(all_rows, embeddings=rows)


def contents(home: Path) -> set[str]:
    """What the current build answers with, after a search that must work."""
    build = open_current(Store(home))
    numbers, _ = build.best(build.vectors([0])[0], 3)
    assert numbers[0] == 0
    return set(build.items["content_id"].to_pylist())


def read_builds_here() -> None:
    """Have `verify` start no process to read builds in: this is one of its own already."""
    verify_module.check_builds = verify_module.check_builds_here


def problems(home: Path) -> list[str]:
    """What `verify` says."""
    read_builds_here()
    return [each.problem for each in verify_module.verify(Store(home)) if each.problem]


def parts(home: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in Store(home).embedding_tables()[0]}


# Scenarios


def copy(base: Path, home: Path) -> Path:
    shutil.rmtree(home, ignore_errors=True)
    shutil.copytree(base, home)
    return home


def each_point(
    root: Path,
    base: Path,
    runner: Callable[[Path], Callable[[], None]],
    check: Callable[[Path], None],
    finish: Callable[[Path], None],
) -> dict[str, Any]:
    """Kill a run at every point that leaves other files than the one before.

    `check` looks at what is left. The next run starts by removing what has a temporary name, so
    that `finish`, which is that run, is tried once for all that is left otherwise.
    """
    log, home = root / "log", root / "run"
    write_settings(root, home)
    points = done(lambda: traced(runner(copy(base, home)), home), log)
    left = ""
    finished: set[tuple[Any, ...]] = set()
    tried = []

    def look() -> tuple[Any, ...]:
        check(home)
        with Store(home).locked(), Store(home).writing_user_data():
            assert not list(home.rglob(".tmp-*"))
        return remains(home)

    for number, (label, files) in enumerate(points):
        if files == left:
            continue
        left = files
        copy(base, home)
        status, _ = in_child(lambda number=number: killed(runner(home), home, number), log)
        assert os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL, (label, status)
        tried.append(label)
        try:
            found = done(look, log)
            if found not in finished:
                finished.add(found)
                done(lambda: finish(home), log)
        except AssertionError as error:
            raise AssertionError(f"killed {label}: {error}") from None
    return {"points": [label for label, _ in points], "tried": tried, "finished": len(finished)}


class Library:
    """What all scenarios start from.

    Attributes:
        root: Where everything is.
        base: A home with an index of the first four images.
        whole: The same home after a whole run over the images that there are now.
        expected: What `whole` holds.
        old: What `base` answers with.
        new: What `whole` answers with.
    """

    def __init__(self, root: Path) -> None:
        self.root, log = root, root / "log"
        # What runs import on the way, imported once for all of them.
        for name in done(lambda: make_library(root) or list(sys.modules), log):
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        self.base, self.whole = root / "base", root / "whole"
        # What transformers compiles for its first model, compiled once as well.
        settings = settings_of(self.base)
        pipeline.load_settings_encoder(settings, describe_encoder(settings).space)
        write_settings(root, self.whole)
        self.old: set[str] = done(lambda: contents(self.base), log)
        done(run_index(copy(self.base, self.whole)), log)
        self.expected: Tables = done(lambda: tables(self.whole), log)
        self.new: set[str] = done(lambda: contents(self.whole), log)

    def scenario(self, name: str) -> dict[str, Any]:
        """Kill everywhere; tell the points and the kills."""
        if name == "index":
            return self.index()
        base = copy(self.whole, self.root / name)
        write_settings(self.root, base)
        scenarios = {"vote": self.vote, "gc": self.gc, "repair": self.repair}
        return scenarios[name](base)

    def index(self) -> dict[str, Any]:
        log = self.root / "log"

        def check(home: Path) -> None:
            assert contents(home) in (self.old, self.new)
            assert problems(home) == []

        def finish(home: Path) -> None:
            before = parts(home)
            done(run_index(home), log)
            assert parts(home).items() >= before.items(), "finished parts were written again"
            assert tables(home) == self.expected
            assert problems(home) == []

        return each_point(self.root, self.base, run_index, check, finish)

    def vote(self, base: Path) -> dict[str, Any]:
        def check(home: Path) -> None:
            assert len(read_judgements(Store(home), "taste")) in (1, 2)
            assert problems(home) == []

        def finish(home: Path) -> None:
            votes = len(read_judgements(Store(home), "taste"))
            assert len(add_judgements(Store(home), "taste", [("1" * 32, False)])) == votes + 1

        done(run_vote(base), self.root / "log")
        return each_point(self.root, base, run_vote, check, finish)

    def gc(self, base: Path) -> dict[str, Any]:
        def check(home: Path) -> None:
            assert contents(home) == self.new
            assert problems(home) == []
            assert needed(tables(home)) == needed(self.expected)

        def finish(home: Path) -> None:
            run_gc(home)()
            check(home)
            assert len(parts(home)) == 1
            assert tables(home) == needed(self.expected)

        return each_point(self.root, base, run_gc, check, finish)

    def repair(self, base: Path) -> dict[str, Any]:
        log = self.root / "log"

        def finish(home: Path) -> None:
            done(run_repair(home), log)
            assert problems(home) == []
            done(run_index(home), log)
            assert tables(home) == self.expected

        store = Store(base)
        for path in (*store.manifests(), *store.embedding_tables()[0][:2], store.current_file):
            path.write_bytes(path.read_bytes()[:20])
        return each_point(self.root, base, run_repair, lambda home: None, finish)


def main() -> None:
    library = Library(Path(sys.argv[1]).resolve())
    for line in sys.stdin:
        try:
            told = library.scenario(line.strip())
        except Exception:
            told = {"error": traceback.format_exc()}
        print(json.dumps(told), flush=True)


if __name__ == "__main__":
    main()
