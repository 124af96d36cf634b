"""What does indexing again cost: after nothing, new images, moved files, many small additions?

An index of the synthetic vectors of benchmarks/search.py, by the same call each time. That only new
images are embedded is not part of this. To compare with another version of the project, run the
script with that one on PYTHONPATH:

    python benchmarks/reindex.py --rows 100000
    PYTHONPATH=/path/to/another/checkout python benchmarks/reindex.py --rows 100000
"""

import argparse
import os
import shutil
import tempfile
import threading
import time
from pathlib import Path

ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
os.environ |= dict.fromkeys(ONE_THREAD, "1")

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from search import QUERIES, SEED, WARM_UP, Ours, cone, distribution, make_data

from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.storage.schemas import MANIFEST, embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, write_table

NEW, MOVED, STEPS = 100, 1_000, 11
SAMPLED_SECONDS = 0.05


class OwnMemory:
    """Samples the memory of this process that no file backs; `most` is the peak in MB."""

    def __enter__(self):
        self.most, self._ended = 0, threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def _watch(self):
        while True:
            status = Path("/proc/self/status").read_text()
            kilobytes = int(status.partition("RssAnon:")[2].split()[0])
            self.most = max(self.most, kilobytes // 1_000)
            if self._ended.wait(SAMPLED_SECONDS):
                return

    def __exit__(self, *_):
        self._ended.set()
        self._thread.join()


def written():
    """Return how many bytes this process has written to disks."""
    return int(Path("/proc/self/io").read_text().partition("\nwrite_bytes:")[2].split()[0])


def build(label, store, space, words):
    before = written()
    started, wall = time.process_time(), time.perf_counter()
    with OwnMemory() as memory:
        report = build_index(store, space, ["a"], encode_texts=lambda texts: words[: len(texts)])
    seconds, wall = time.process_time() - started, time.perf_counter() - wall
    megabytes = (written() - before) / 1e6
    what = "" if report.published else " (up to date)"
    print(
        f"| {label}{what} | {seconds:.1f} | {wall:.1f} | {megabytes:,.0f} | {memory.most:,} |",
        flush=True,
    )


def change_manifest(store, change):
    table = change(read_manifest(store, "a"))
    write_table(store.manifest("a"), table.cast(MANIFEST))


def move_files(store, count):
    """Give the last files, which are those of one folder, another folder."""

    def moved(table):
        kept, last = table.slice(0, len(table) - count), table.slice(len(table) - count)
        paths = pc.binary_join_element_wise("000000-moved", last["path"], "/")
        last = last.set_column(0, MANIFEST.field("path"), paths)
        return pa.concat_tables([last, kept]).sort_by("path")

    change_manifest(store, moved)


def add_images(store, space, rows, count, seed):
    """Add a manifest's rows and an embedding part of so many new images, in one new folder.

    They are like the others, of which there were so many `rows` at first.
    """
    random = np.random.default_rng(SEED)
    centres, spectrum, pictures, _ = distribution(random, rows, space.dim)
    random = np.random.default_rng(seed)
    vectors = cone(random, count, space.dim, centres, spectrum, pictures).astype(np.float32)
    ids = [bytes(each).hex() for each in random.integers(0, 256, (count, 16), np.uint8)]
    table = [
        {
            "path": f"{50 * seed:06d}-new/{each}.jpg",
            "size": 1,
            "mtime_ns": 1,
            "content_id": each,
            "status": "ok",
        }
        for each in ids
    ]
    new = pa.Table.from_pylist(table, schema=MANIFEST)
    change_manifest(store, lambda table: pa.concat_tables([table, new]).sort_by("path"))
    facts = {"width": [640] * count, "height": [480] * count, "format": ["JPEG"] * count}
    flat = pa.array(vectors.reshape(-1))
    embedding = pa.FixedSizeListArray.from_arrays(flat, space.dim)
    table = pa.table({"content_id": ids, "embedding": embedding, **facts})
    write_table(store.next_part(space, "a"), table.cast(embedding_schema(space.dim)), space)


def ask(label, store, directory):
    """Tell how long opening takes, and the median processor time of a query of each kind.

    First as a single command asks, then as a process asks that goes on and has read the codes.
    """
    open_current(store)
    started = time.perf_counter()
    opened = open_current(store)
    milliseconds = 1_000 * (time.perf_counter() - started)
    medians = p50_of_queries(opened, directory)
    if hasattr(opened, "load_codes"):
        opened.load_codes()
        medians += p50_of_queries(opened, directory)
    segments = len(getattr(opened.info, "segments", ())) or 1
    times = " | ".join(f"{each:.2f}" for each in medians)
    return f"| {label}: {segments} segments | {milliseconds:.1f} | {times} |"


def p50_of_queries(opened, directory):
    medians = []
    for kind in ("picture", "text"):
        seconds = []
        for vector in np.load(directory / f"{kind}.npy"):
            before = time.thread_time()
            opened.best(vector, 10)
            seconds.append(time.thread_time() - before)
        medians.append(1_000 * np.median(seconds[WARM_UP:QUERIES]))
    return medians


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--data", type=Path, help="keep the vectors here, for the next run")
    parser.add_argument("--short", action="store_true", help="no small additions one by one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.data and options.data.parent) as temporary:
        directory = options.data or Path(temporary)
        directory.mkdir(exist_ok=True)
        if not (directory / "text-truth.npy").exists():
            make_data(directory, options.rows, options.dim)
        shutil.rmtree(directory / "home", ignore_errors=True)
        ours = Ours()
        ours.prepare(directory)
        store, space = Store(directory / "home"), ours.space(options.dim)
        words = np.load(directory / "words.npy")
        print(f"| {options.rows:,} images | processor s | s | MB written | own memory, MB |")
        print("|---|--:|--:|--:|--:|")
        build("first time", store, space, words)
        build("nothing changed", store, space, words)
        answers = [ask("at first", store, directory)]
        add_images(store, space, options.rows, NEW, 1)
        build(f"{NEW} new images", store, space, words)
        move_files(store, MOVED)
        build(f"{MOVED:,} files moved", store, space, words)
        for step in range(0 if options.short else STEPS):
            # Of several sizes, as months of additions leave them.
            count = max(options.rows // 1_000 * (1 + step), 1)
            add_images(store, space, options.rows, count, 2 + step)
            build(f"{count:,} new images", store, space, words)
        answers.append(ask("after that", store, directory))
        shutil.rmtree(directory / "home")
        kinds = "pictures | texts | pictures, codes read | texts, codes read"
        print(f"\n| p50 of a query, ms | opening | {kinds} |\n|---|--:|--:|--:|--:|--:|")
        print("\n".join(answers))


if __name__ == "__main__":
    main()
