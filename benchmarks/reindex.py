"""What does indexing again cost: after nothing, a moved file, or one per cent of new images?

An index of the synthetic vectors of benchmarks/search.py, by the same call each time. That only new
images are embedded is not part of this.

    python benchmarks/reindex.py
"""

import argparse
import os
import tempfile
import time
from pathlib import Path

ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS")
os.environ |= dict.fromkeys(ONE_THREAD, "1")

import numpy as np
import pyarrow as pa
from search import Ours, make_data

from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.progress import Quiet
from retrieval_pipeline.storage.schemas import MANIFEST, embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, write_table
from retrieval_pipeline.vectors import normalise

STAGES = ("writing the index", "growing the trees", "measuring the recall")


class Stages(Quiet):
    """Adds up the processor time of each stage."""

    def __init__(self):
        self.seconds = dict.fromkeys(STAGES, 0.0)

    def start(self, stage, total, unit):
        self._stage, self._started = stage, time.process_time()

    def finish(self):
        self.seconds[self._stage] += time.process_time() - self._started


def build(label, store, space, words):
    stages, started, wall = Stages(), time.process_time(), time.perf_counter()
    report = build_index(
        store, space, ["a"], encode_texts=lambda texts: words[: len(texts)], progress=stages
    )
    seconds, wall = time.process_time() - started, time.perf_counter() - wall
    cells = [f"{stages.seconds[stage]:.1f}" for stage in STAGES]
    what = "published" if report.published else "up to date"
    print(f"| {label} | {what} | {seconds:.1f} | {wall:.1f} | {' | '.join(cells)} |", flush=True)


def move_a_file(store):
    rows = read_manifest(store, "a").to_pylist()
    rows[0]["path"] = "elsewhere/moved.jpg"
    write_table(store.manifest("a"), pa.Table.from_pylist(rows, schema=MANIFEST))


def add_images(store, space, count):
    """Add a manifest's rows and an embedding part of so many new images."""
    vectors = normalise(np.random.default_rng(3).standard_normal((count, space.dim), np.float32))
    ids = [f"{number:032x}" for number in range(10**9, 10**9 + count)]
    rows = read_manifest(store, "a").to_pylist()
    rows += [
        {"path": f"new/{each}.jpg", "size": 1, "mtime_ns": 1, "content_id": each, "status": "ok"}
        for each in ids
    ]
    write_table(store.manifest("a"), pa.Table.from_pylist(rows, schema=MANIFEST))
    facts = {"width": [640] * count, "height": [480] * count, "format": ["JPEG"] * count}
    table = pa.table(
        {
            "content_id": ids,
            "embedding": pa.FixedSizeListArray.from_arrays(
                pa.array(vectors.reshape(-1)), space.dim
            ),
            **facts,
        }
    )
    write_table(store.next_part(space, "a"), table.cast(embedding_schema(space.dim)), space)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=768)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        directory = Path(temporary)
        make_data(directory, options.rows, options.dim)
        ours = Ours()
        ours.prepare(directory)
        store, space = Store(directory / "home"), ours.space(options.dim)
        words = np.load(directory / "words.npy")
        print(f"| {options.rows:,} images | | processor s | s | writing | trees | measuring |")
        print("|---|---|--:|--:|--:|--:|--:|")
        build("first time", store, space, words)
        build("nothing changed", store, space, words)
        move_a_file(store)
        build("a file moved", store, space, words)
        add_images(store, space, options.rows // 100)
        build("1 % new", store, space, words)


if __name__ == "__main__":
    main()
