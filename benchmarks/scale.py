"""What does one more image cost? Bytes of each table and index file, memory of each step, seconds.

Synthetic vectors as in search.py, files of made-up names. Every step runs in a process of its own;
its memory is the growth of its peak. What `docs/scale.md` multiplies comes from here.

    python benchmarks/scale.py --dim 768 --rows 50000 100000
"""

import argparse
import hashlib
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from search import Ours, make_data

PART_ROWS = 2_048


def tables(directory, rows):
    """Rewrite the tables of search.py as a run writes them: hashes, dates, parts of 2,048 rows."""
    import numpy as np
    import pyarrow as pa

    from retrieval_pipeline.storage.schemas import MANIFEST, embedding_schema
    from retrieval_pipeline.storage.store import Store
    from retrieval_pipeline.storage.tables import write_table

    vectors = np.load(directory / "vectors.npy", mmap_mode="r")
    store = Store(directory / "home")
    space = Ours().space(vectors.shape[1])
    ids = [hashlib.md5(str(number).encode()).hexdigest() for number in range(rows)]
    random = np.random.default_rng(1)
    files = {
        "path": [
            f"{2000 + number % 25}/album-{number // 500:06d}/IMG_{value:08d}.jpg"
            for number, value in enumerate(random.integers(0, 10**8, rows))
        ],
        "size": random.integers(10**6, 10**7, rows),
        "mtime_ns": random.integers(10**18, 2 * 10**18, rows),
        "content_id": ids,
        "status": ["ok"] * rows,
        "error": [None] * rows,
    }
    write_table(store.manifest("a"), pa.table(files, schema=MANIFEST))
    for start in range(0, rows, PART_ROWS):
        part = np.ascontiguousarray(vectors[start : start + PART_ROWS])
        columns = [
            pa.array(ids[start : start + PART_ROWS]),
            pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), space.dim),
            pa.array(random.integers(500, 6000, len(part)), pa.int32()),
            pa.array(random.integers(500, 6000, len(part)), pa.int32()),
            pa.array(["JPEG"] * len(part)),
        ]
        path = store.embeddings(space, "a") / f"part-{start // PART_ROWS + 1:06d}.parquet"
        write_table(path, pa.table(columns, schema=embedding_schema(space.dim)), space)
    parts = store.parts(space, "a")
    tell("bytes", "manifest", store.manifest("a").stat().st_size, rows)
    tell("bytes", "embeddings", sum(part.stat().st_size for part in parts), rows)


def crawl(directory, rows):
    """What a crawl holds in memory, without the walk itself."""
    from retrieval_pipeline.ingest.manifest import FileRow, read_rows
    from retrieval_pipeline.storage.store import Store

    with measured("crawl", rows):
        before = read_rows(Store(directory / "home"), "a")
        seen = [FileRow(row.path, row.size, row.mtime_ns) for row in before.values()]
        assert len({row.path: row for row in seen}) == rows


def embed(directory, rows):
    """What a run that finds nothing new holds in memory."""
    from retrieval_pipeline.config.settings import Source
    from retrieval_pipeline.encoders.base import Description
    from retrieval_pipeline.ingest.embed import update_embeddings
    from retrieval_pipeline.storage.store import Store

    words_dim = dim_of(directory)
    description = Description(Ours().space(words_dim), None)
    source = Source(name="a", path=directory)
    with measured("embed", rows):
        report = update_embeddings(Store(directory / "home"), source, description, None)
    assert report.known == rows


def index(directory, rows):
    """Build the index and tell its files."""
    with measured("index", rows):
        build = Ours().build(directory)
    sizes = Counter()
    for kind in ("segments", "blocks", build.name):
        for file in (build.parent / kind).rglob("*.*"):
            sizes["blocks" if kind == "blocks" else file.name] += file.stat().st_size
    for name, size in sorted(sizes.items()):
        tell("bytes", name, size, rows)


def dim_of(directory):
    import numpy as np

    return int(np.load(directory / "vectors.npy", mmap_mode="r").shape[1])


class measured:  # noqa: N801
    """Tell the seconds and the growth of the peak of memory."""

    def __init__(self, name, rows):
        self.name, self.rows = name, rows

    def __enter__(self):
        self.began, self.peak = time.monotonic(), peak()

    def __exit__(self, *_):
        tell("memory", self.name, peak() - self.peak, self.rows)
        print(f"{'seconds':>8} {self.name:>16} {time.monotonic() - self.began:10.1f}")


def peak():
    # Not `getrusage`: a child begins with its parent's peak there.
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) * 1024


def tell(what, name, amount, rows):
    print(f"{what:>8} {name:>16} {amount / rows:10.1f} bytes an image")


STEPS = (tables, crawl, embed, index)


def main():
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[50_000])
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--step", help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step = next(step for step in STEPS if step.__name__ == options.step)
        step(options.directory, options.rows[0])
        return
    for rows in options.rows:
        print(f"{rows:,} images of {options.dim} dimensions", flush=True)
        with tempfile.TemporaryDirectory(prefix="scale-") as directory:
            make_data(Path(directory), rows, options.dim)
            for step in STEPS:
                arguments = ["--step", step.__name__, "--directory", directory, "--rows", str(rows)]
                subprocess.run([sys.executable, __file__, *arguments], check=True)


if __name__ == "__main__":
    main()
