"""Memory and time of an evaluation, by the number of queries: made-up vectors, no model.

The index has no vectors of a vocabulary, so that relevance costs little beside the rest. Each
query is a picture's vector with noise, so that answers stand at all ranks. Each number of
queries is measured in a process of its own.

    python benchmarks/evaluation.py [--items 10000] [--queries 1000 10000 100000]
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.evaluation.evaluate import evaluate
from retrieval_pipeline.evaluation.labels import read_labelled
from retrieval_pipeline.index.build import Build, open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.search.embedded_index import EmbeddedIndex
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace, normalise
from synthetic.tables import clustered, content, random_vectors, write_manifest, write_part

DIM = 128
SPACE = VectorSpace("made-up", "r1", DIM, "p")
# Length of the noise; the vectors have length 1.
NOISE = 1.2


class Encoder:
    """A text ends in the number of the picture that it asks for."""

    def __init__(self, build: Build) -> None:
        self._build = build

    def encode_texts(self, texts: list[str]) -> Vectors:
        """Return the vector of each text's picture, with noise, float32 (len(texts), DIM)."""
        numbers = [int(text.split()[-1]) % len(self._build) for text in texts]
        items = [self._build.number_of(content(str(number))) for number in numbers]
        noise = random_vectors(len(texts), DIM, seed=numbers[0])
        return normalise(self._build.vectors(np.array(items)) + NOISE * noise)


def measure(home: Path, items: int, queries: int) -> str:
    """Evaluate in this process; return a row of the table."""
    file = home / "queries.csv"
    with file.open("w") as lines:
        lines.write("query,relevant\n")
        lines.writelines(f"picture {n},{n % items}.jpg\n" for n in range(queries))
    build = open_current(Store(home))
    searcher = Searcher(Settings(home=home), EmbeddedIndex(build), Encoder(build))  # type: ignore[arg-type]
    labelled, _ = read_labelled(file)
    before = peak()
    started = time.perf_counter()
    found = evaluate(searcher, labelled)
    seconds = time.perf_counter() - started
    memory = f"{peak():.0f} MB | {peak() - before:.0f} MB"
    recall = found.metrics["recall@1"].mean
    return f"| {queries:,} | {memory} | {seconds:.0f} s | {recall:.3f} |"


def peak() -> float:
    """Return the largest size of this process's memory so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--items", type=int, default=10_000)
    parser.add_argument("--queries", type=int, nargs="+", default=[1_000, 10_000, 100_000])
    parser.add_argument("--home", type=Path, help="measure in this process, with the index there")
    options = parser.parse_args()
    if options.home:
        print(measure(options.home, options.items, options.queries[0]))
        return
    with tempfile.TemporaryDirectory() as directory:
        home = Path(directory)
        store = Store(home)
        names = [str(number) for number in range(options.items)]
        write_manifest(store, "a", {f"{name}.jpg": name for name in names})
        write_part(store, SPACE, "a", names, clustered(options.items, DIM))
        build_index(store, SPACE, ["a"])
        print(
            "| queries | peak memory | of the evaluation | time | recall@1 |\n|--:|--:|--:|--:|--:|"
        )
        for queries in options.queries:
            asked = ["--home", directory, "--items", str(options.items), "--queries", str(queries)]
            subprocess.run([sys.executable, __file__, *asked], check=True)


if __name__ == "__main__":
    main()
