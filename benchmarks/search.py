"""How good and how fast is the search? Ours, the original's settings, NumPy, hnswlib and faiss.

Clustered vectors with the shape of CLIP's: a cone (unrelated pictures have a cosine of about 0.5),
a falling spectrum (128 components hold three quarters of the variance) and clusters of all sizes.
Queries like pictures come from the same distribution; queries like texts from a cone of their own
(the modality gap: cosines of 0.1 to 0.3 with pictures). Truth is an exact search.

    python benchmarks/search.py --dim 768 --rows 10000 100000 1000000

Every step runs in a process of its own, with one thread; latencies are its processor time, which
other programs disturb less. hnswlib and faiss are optional peers, which the extra `bench` installs;
their search parameter, and only theirs, is chosen on the queries that it is then measured with.
"""

import argparse
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ONE_THREAD = ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS")
QUERIES = 200  # Of each kind.
WARM_UP = 20
TARGET = 0.99
BATCH = 50_000
TREES = 64
SEED = 7


def cone(rng, count, dim, centres, spectrum, mean):
    """Return unit vectors around `mean`, in clusters of Zipf's sizes, float32 (count, dim)."""
    import numpy as np

    weights = 1 / np.arange(1, len(centres) + 1)
    members = rng.choice(len(centres), count, p=weights / weights.sum())
    rows = rng.standard_normal((count, dim), np.float32) * spectrum
    rows *= 0.75
    rows += 0.65 * centres[members]
    rows += mean
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


def distribution(rng, rows, dim):
    """Return the clusters' centres, the spectrum, and where pictures and texts lie."""
    import numpy as np

    spectrum = np.arange(1, dim + 1, dtype=np.float32) ** -0.5
    spectrum /= np.linalg.norm(spectrum)
    gap = rng.standard_normal((2, dim)).astype(np.float32)
    gap /= np.linalg.norm(gap, axis=1, keepdims=True)
    pictures, texts = gap[0], 0.3 * gap[0] + 1.5 * gap[1]
    centres = rng.standard_normal((max(rows // 500, 20), dim)).astype(np.float32) * spectrum
    return centres, spectrum, pictures, texts


def make_data(directory, rows, dim):
    """Write the vectors, queries of both kinds, words to calibrate with, and the truth."""
    import numpy as np

    rng = np.random.default_rng(SEED)
    centres, spectrum, pictures, texts = distribution(rng, rows, dim)
    stored = np.lib.format.open_memmap(
        directory / "vectors.npy", "w+", np.float32, shape=(rows, dim)
    )
    for start in range(0, rows, BATCH):
        count = min(BATCH, rows - start)
        stored[start : start + count] = cone(rng, count, dim, centres, spectrum, pictures)
    stored.flush()
    np.save(directory / "picture.npy", cone(rng, QUERIES, dim, centres, spectrum, pictures))
    np.save(directory / "text.npy", cone(rng, QUERIES, dim, centres, spectrum, texts))
    np.save(directory / "words.npy", cone(rng, 552, dim, centres, spectrum, texts))
    for kind in ("picture", "text"):
        queries = np.load(directory / f"{kind}.npy")
        numbers, scores = np.empty((QUERIES, 0), int), np.empty((QUERIES, 0), np.float32)
        for start in range(0, rows, BATCH):
            found = queries @ stored[start : start + BATCH].T
            scores = np.concatenate([scores, found], axis=1)
            here = np.broadcast_to(np.arange(start, start + found.shape[1]), found.shape)
            numbers = np.concatenate([numbers, here], axis=1)
            best = np.argpartition(-scores, 10, axis=1)[:, :10]
            scores = np.take_along_axis(scores, best, 1)
            numbers = np.take_along_axis(numbers, best, 1)
        np.save(directory / f"{kind}-truth.npy", numbers)


class Ours:
    """The project's index, from its stored tables to an open build."""

    name = "this project"
    codes = False

    def prepare(self, directory):
        """Write the tables that indexing starts from."""
        import numpy as np
        import pyarrow as pa

        from retrieval_pipeline.storage.schemas import MANIFEST, embedding_schema
        from retrieval_pipeline.storage.store import Store
        from retrieval_pipeline.storage.tables import write_table

        vectors = np.load(directory / "vectors.npy", mmap_mode="r")
        store, space = Store(directory / "home"), self.space(vectors.shape[1])
        ids = [f"{number:032x}" for number in range(len(vectors))]
        files = {
            "path": [f"{number // 1000:06d}/{number:09d}.jpg" for number in range(len(ids))],
            "size": [1] * len(ids),
            "mtime_ns": [1] * len(ids),
            "content_id": ids,
            "status": ["ok"] * len(ids),
            "error": [None] * len(ids),
        }
        write_table(store.manifest("a"), pa.table(files, schema=MANIFEST))
        for start in range(0, len(ids), BATCH):
            part = np.ascontiguousarray(vectors[start : start + BATCH])
            columns = [
                pa.array(ids[start : start + BATCH]),
                pa.FixedSizeListArray.from_arrays(pa.array(part.reshape(-1)), space.dim),
                pa.array([640] * len(part), pa.int32()),
                pa.array([480] * len(part), pa.int32()),
                pa.array(["JPEG"] * len(part)),
            ]
            table = pa.table(columns, schema=embedding_schema(space.dim))
            write_table(store.next_part(space, "a"), table, space)

    def space(self, dim):
        from retrieval_pipeline.vectors import VectorSpace

        return VectorSpace("synthetic", "1", dim, "none")

    def build(self, directory):
        import numpy as np

        from retrieval_pipeline.index.builder import build_index
        from retrieval_pipeline.storage.store import Store

        words = np.load(directory / "words.npy")
        store = Store(directory / "home")
        report = build_index(
            store,
            self.space(words.shape[1]),
            ["a"],
            codes=self.codes,
            encode_texts=lambda texts: words[: len(texts)],
        )
        for each in report.info.calibration.measured:
            print(each.plan, each.recall_image, each.recall_text, each.p50_ms, file=sys.stderr)
        return report.build

    def open(self, directory):
        from retrieval_pipeline.index.build import open_current
        from retrieval_pipeline.storage.store import Store

        build = open_current(Store(directory / "home"))
        build.load_codes()
        self.name = f"this project: {build.plan}"
        return lambda vector, _: build.best(vector, 10)[0], [None]


class OursWithCodes(Ours):
    """The same with the extra `codes`."""

    codes = True


class Original:
    """Annoy as the original script has it: full vectors, dot, 64 trees, default search_k."""

    name = f"Annoy, dot, {TREES} trees, default search_k"

    def build(self, directory):
        import numpy as np
        from annoy import AnnoyIndex

        vectors = np.load(directory / "vectors.npy", mmap_mode="r")
        index = AnnoyIndex(vectors.shape[1], "dot")
        index.set_seed(1)
        for number, vector in enumerate(vectors):
            index.add_item(number, vector.tolist())
        index.build(TREES, n_jobs=1)
        index.save(str(directory / "original.annoy"))
        return directory / "original.annoy"

    def open(self, directory):
        import numpy as np
        from annoy import AnnoyIndex

        dim = np.load(directory / "text.npy").shape[1]
        index = AnnoyIndex(dim, "dot")
        index.load(str(directory / "original.annoy"))
        return lambda vector, _: index.get_nns_by_vector(vector.tolist(), 10), [None]


class Exact:
    """All scores in NumPy's float32, then the ten best."""

    name = "NumPy, exact"

    def build(self, directory):
        return directory / "vectors.npy"

    def open(self, directory):
        import numpy as np

        vectors = np.load(directory / "vectors.npy", mmap_mode="r").view(np.ndarray)

        def search(vector, _):
            scores = vectors @ vector
            return np.argpartition(-scores, 10)[:10]

        return search, [None]


class Hnswlib:
    """A graph: M 16, 200 candidates while building."""

    name = "hnswlib"

    def build(self, directory):
        import hnswlib
        import numpy as np

        vectors = np.load(directory / "vectors.npy", mmap_mode="r")
        index = hnswlib.Index("ip", vectors.shape[1])
        index.init_index(len(vectors), ef_construction=200, M=16, random_seed=1)
        for start in range(0, len(vectors), BATCH):
            index.add_items(np.ascontiguousarray(vectors[start : start + BATCH]), num_threads=1)
        index.save_index(str(directory / "hnsw.bin"))
        return directory / "hnsw.bin"

    def open(self, directory):
        import hnswlib
        import numpy as np

        index = hnswlib.Index("ip", np.load(directory / "text.npy").shape[1])
        index.load_index(str(directory / "hnsw.bin"))
        index.set_num_threads(1)

        def search(vector, width):
            index.set_ef(width)
            return index.knn_query(vector, 10)[0][0]

        return search, [10 * 2**step for step in range(11)]


class FaissFlat:
    """All scores, by faiss."""

    name = "faiss, flat"
    kind = "flat"

    def make(self, vectors):
        import faiss

        return faiss.IndexFlatIP(vectors.shape[1])

    def build(self, directory):
        import faiss
        import numpy as np

        faiss.omp_set_num_threads(1)
        vectors = np.load(directory / "vectors.npy", mmap_mode="r")
        index = self.make(vectors)
        for start in range(0, len(vectors), BATCH):
            index.add(np.ascontiguousarray(vectors[start : start + BATCH]))
        faiss.write_index(index, str(directory / f"faiss-{self.kind}"))
        return directory / f"faiss-{self.kind}"

    def open(self, directory):
        import faiss

        faiss.omp_set_num_threads(1)
        index = faiss.read_index(str(directory / f"faiss-{self.kind}"))
        return self.searcher(index)

    def searcher(self, index):
        return lambda vector, _: index.search(vector[None], 10)[1][0], [None]


class FaissIvf(FaissFlat):
    """Cells around sqrt(n) centres."""

    name = "faiss, IVF"
    kind = "ivf"

    def make(self, vectors):
        import faiss
        import numpy as np

        cells = int(len(vectors) ** 0.5)
        index = faiss.IndexIVFFlat(
            faiss.IndexFlatIP(vectors.shape[1]),
            vectors.shape[1],
            cells,
            faiss.METRIC_INNER_PRODUCT,
        )
        step = max(len(vectors) // (64 * cells), 1)
        index.train(np.ascontiguousarray(vectors[::step]))
        return index

    def searcher(self, index):
        def search(vector, cells):
            index.nprobe = cells
            return index.search(vector[None], 10)[1][0]

        return search, [2**step for step in range(13) if 2**step <= index.nlist]


PEERS = {
    "ours": Ours,
    "codes": OursWithCodes,
    "original": Original,
    "numpy": Exact,
    "flat": FaissFlat,
    "ivf": FaissIvf,
    "hnswlib": Hnswlib,
}
MODULES = {"codes": "faiss", "hnswlib": "hnswlib", "flat": "faiss", "ivf": "faiss"}


class AnonymousMemory(threading.Thread):
    """Watches the peak of the process's own memory, which the page cache is no part of."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak_mb = 0.0
        self.start()

    def run(self):
        while True:
            self.peak_mb = max(self.peak_mb, status_mb("RssAnon"))
            time.sleep(0.02)


def status_mb(key):
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(key + ":"):
            return int(line.split()[1]) / 1024
    raise KeyError(key)


def run_build(peer, directory):
    memory = AnonymousMemory()
    started = time.perf_counter()
    made = PEERS[peer]().build(directory)
    seconds = time.perf_counter() - started
    files = [made] if made.is_file() else [file for file in made.rglob("*") if file.is_file()]
    disk = sum(file.stat().st_size for file in files) / 1e6
    return {"build_s": seconds, "build_mb": memory.peak_mb, "disk_mb": disk}


def run_queries(peer, directory):
    import numpy as np

    entry = PEERS[peer]()
    entry.open(directory)  # Imports what it needs, and reads the files into the page cache.
    started = time.perf_counter()
    search, settings = entry.open(directory)
    result = {"open_ms": 1000 * (time.perf_counter() - started)}
    for setting in settings:
        for kind in ("picture", "text"):
            queries = np.load(directory / f"{kind}.npy")
            truth = np.load(directory / f"{kind}-truth.npy")
            for vector in queries[:WARM_UP]:
                search(vector, setting)
            seconds, found = [], 0
            for vector, true in zip(queries, truth, strict=True):
                started = time.thread_time()
                numbers = search(vector, setting)
                seconds.append(time.thread_time() - started)
                found += len(set(numbers) & set(true.tolist()))
            result[kind] = {
                "recall": found / truth.size,
                "p50": 1000 * float(np.median(seconds)),
                "p99": 1000 * float(np.quantile(seconds, 0.99)),
            }
        if min(result[kind]["recall"] for kind in ("picture", "text")) >= TARGET:
            break
    result["name"] = entry.name + (f" ({setting})" if setting else "")
    result["memory_mb"] = status_mb("RssAnon")
    return result


def run_data(_, directory):
    rows, dim = map(int, directory.name.split("x"))
    make_data(directory, rows, dim)
    return {}


def run_prepare(_, directory):
    Ours().prepare(directory)
    return {}


STEPS = {"data": run_data, "prepare": run_prepare, "build": run_build, "query": run_queries}


def in_a_process(step, peer, directory):
    """Run a step with one thread in a process of its own, and return what it measured."""
    environment = os.environ | dict.fromkeys(ONE_THREAD, "1")
    command = [sys.executable, __file__, "--step", step, peer, str(directory)]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, check=True, text=True)
    return json.loads(done.stdout)


def row_of(facts, exact):
    """Return a line of the table; latencies also as a share of NumPy's exact search."""
    cells = [facts["name"]]
    for kind in ("picture", "text"):
        each = facts[kind]
        ratio = f" ({each['p50'] / exact[kind]['p50']:.3g})" if exact else ""
        cells.append(f"{each['recall']:.3f}")
        cells.append(f"{each['p50']:.3g}{ratio}")
        cells.append(f"{each['p99']:.3g}")
    cells += [f"{facts[key]:,.0f}" for key in ("build_s", "build_mb", "disk_mb", "memory_mb")]
    cells.append(f"{facts['open_ms']:,.1f}")
    return "| " + " | ".join(cells) + " |"


HEAD = """\
| {rows:,} x {dim} | recall picture | p50 ms (of exact) | p99 | recall text | p50 ms (of exact) \
| p99 | build s | build MB | disk MB | own MB | open ms |
|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|--:|"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dim", type=int, nargs="+", default=[512, 768])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000])
    parser.add_argument("--peers", nargs="+", choices=PEERS, default=list(PEERS))
    parser.add_argument("--directory", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--keep", action="store_true", help="keep the data and all indexes")
    parser.add_argument("--step", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.step:
        step, peer, directory = options.step
        print(json.dumps(STEPS[step](peer, Path(directory))))
        return
    for dim in options.dim:
        for rows in options.rows:
            directory = options.directory / "search-benchmark" / f"{rows}x{dim}"
            if not (directory / "text-truth.npy").exists():
                directory.mkdir(parents=True, exist_ok=True)
                in_a_process("data", "-", directory)
            print(HEAD.format(rows=rows, dim=dim), flush=True)
            # NumPy goes first: the others are compared with it.
            exact = None
            for peer in sorted(options.peers, key=lambda peer: peer != "numpy"):
                if peer in MODULES and importlib.util.find_spec(MODULES[peer]) is None:
                    print(f"{peer} is not installed", file=sys.stderr)
                    continue
                if peer in ("ours", "codes") and not (directory / "home").exists():
                    in_a_process("prepare", peer, directory)
                facts = in_a_process("build", peer, directory)
                facts |= in_a_process("query", peer, directory)
                exact = facts if peer == "numpy" else exact
                print(row_of(facts, exact), flush=True)
            if not options.keep:
                shutil.rmtree(directory)


if __name__ == "__main__":
    main()
