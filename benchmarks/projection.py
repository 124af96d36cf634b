"""How long the map's PCA takes, and how much memory: here, and by scikit-learn on all vectors.

Random unit vectors with a falling spectrum, on disk as an index has them. Each method runs in a
process of its own with one thread; memory is the peak of what the process itself holds, which the
page cache of the mapped vectors is no part of. scikit-learn's PCA needs all vectors in memory,
several times over: `--exact-rows` says up to how many it is tried. Its incremental PCA reads
batches, as this project does, but is an approximation.

    python benchmarks/projection.py
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

COMPONENTS = 3
BATCH = 16_384
ONE_THREAD = dict.fromkeys(("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS", "MKL_NUM_THREADS"), "1")


def make_vectors(file, rows, dim):
    rng = np.random.default_rng(0)
    spectrum = np.arange(1, dim + 1, dtype=np.float32) ** -0.5
    vectors = np.lib.format.open_memmap(file, "w+", np.float32, shape=(rows, dim))
    for start in range(0, rows, BATCH):
        count = min(BATCH, rows - start)
        some = rng.standard_normal((count, dim), np.float32) * spectrum + 0.3
        vectors[start : start + count] = some / np.linalg.norm(some, axis=1, keepdims=True)
    vectors.flush()


def batches(vectors):
    return (vectors[start : start + BATCH] for start in range(0, len(vectors), BATCH))


def by_this_project(vectors):
    """Return the axes and coordinates of all vectors."""
    from retrieval_pipeline.latent_map.pca import fit_basis

    basis = fit_basis(batches(vectors), vectors.shape[1])
    return basis.components, np.concatenate([basis.project(some) for some in batches(vectors)])


def by_exact_pca(vectors):
    from sklearn.decomposition import PCA

    pca = PCA(COMPONENTS, svd_solver="full")
    return pca.fit(vectors).components_, pca.transform(vectors)


def by_incremental_pca(vectors):
    from sklearn.decomposition import IncrementalPCA

    pca = IncrementalPCA(COMPONENTS)
    for some in batches(vectors):
        if len(some) >= COMPONENTS:
            pca.partial_fit(some)
    return pca.components_, np.concatenate([pca.transform(some) for some in batches(vectors)])


METHODS = {
    "this project": by_this_project,
    "scikit-learn, PCA": by_exact_pca,
    "scikit-learn, IncrementalPCA": by_incremental_pca,
}


class OwnMemory(threading.Thread):
    """Watches the peak of the process's own memory, in MB."""

    def __init__(self):
        super().__init__(daemon=True)
        self.peak = 0.0
        self.start()

    def run(self):
        while True:
            for line in Path("/proc/self/status").read_text().splitlines():
                if line.startswith("RssAnon:"):
                    self.peak = max(self.peak, int(line.split()[1]) / 1024)
            time.sleep(0.02)


def measure(method, file):
    """Run one method; its axes go next to the vectors, to be compared."""
    import sklearn.decomposition  # noqa: F401  (imports are not what is measured)

    import retrieval_pipeline.latent_map.pca  # noqa: F401

    vectors = np.load(file, mmap_mode="r").view(np.ndarray)
    memory = OwnMemory()
    started, used = time.perf_counter(), time.process_time()
    components, coordinates = METHODS[method](vectors)
    result = {
        "seconds": time.perf_counter() - started,
        "processor": time.process_time() - used,
        "megabytes": memory.peak,
        "components": components.tolist(),
    }
    assert len(coordinates) == len(vectors)
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--dim", type=int, default=768)
    parser.add_argument("--exact-rows", type=int, default=100_000)
    parser.add_argument("--measure", nargs=2, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(*options.measure)))
        return
    print("| vectors | method | s | processor s | own MB | angle to this project's axes |")
    print("|--:|---|--:|--:|--:|--:|")
    for rows in options.rows:
        with tempfile.TemporaryDirectory() as directory:
            file = Path(directory) / "vectors.npy"
            make_vectors(file, rows, options.dim)
            ours = None
            for method in METHODS:
                if method == "scikit-learn, PCA" and rows > options.exact_rows:
                    continue
                command = [sys.executable, __file__, "--measure", method, str(file)]
                done = subprocess.run(
                    command, env=os.environ | ONE_THREAD, check=True, stdout=subprocess.PIPE
                )
                facts = json.loads(done.stdout)
                axes = np.array(facts["components"])
                ours = axes if ours is None else ours
                # The largest angle between the two spaces that the axes span.
                cosines = np.linalg.svd(ours @ axes.T)[1]
                angle = np.degrees(np.arccos(np.clip(cosines.min(), -1, 1)))
                print(
                    f"| {rows:,} | {method} | {facts['seconds']:.1f} | {facts['processor']:.1f} "
                    f"| {facts['megabytes']:,.0f} | {angle:.2g}° |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
