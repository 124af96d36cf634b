"""How fast rows of made-up tables are published to an engine, what memory that takes, and what the
next publication costs where little has changed.

    python benchmarks/publish.py --rows 100000 --dim 512                       # Milvus Lite
    python benchmarks/publish.py --uri http://127.0.0.1:19530 --index HNSW     # a server

The seconds are of all cores, those of Milvus Lite included, which runs in this process: what else a
machine does matters less then. The recall is that of the checks: 50 pictures and 50 words against
all rows.
"""

import argparse
import resource
import tempfile
import time
from pathlib import Path

from retrieval_pipeline.config.settings import IndexSettings
from retrieval_pipeline.index.milvus.client import Client
from retrieval_pipeline.index.milvus.publication import publish
from retrieval_pipeline.progress import NotesOnly
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from synthetic.tables import clustered, content, random_vectors, write_manifest, write_part

PART = 20_000


def size(directory: Path) -> float:
    """Megabytes of the files below a directory."""
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file()) / 1e6


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--dim", type=int, default=512)
    parser.add_argument("--uri", default="")
    parser.add_argument("--index", default="AUTOINDEX")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        store, space = Store(home / "home"), VectorSpace("made-up", "1", asked.dim, "p")
        ids = [content(f"picture {number}") for number in range(asked.rows)]
        for start in range(0, asked.rows, PART):
            some = ids[start : start + PART]
            write_part(store, space, "s", some, clustered(len(some), asked.dim, seed=start))
        settings = IndexSettings(
            engine="milvus", uri=asked.uri or "x.db", index_type=asked.index, collection="benchmark"
        )
        uri = asked.uri or str(home / "engine.db")
        print(
            f"{asked.rows:,} rows of {asked.dim} dimensions, {asked.index}, {asked.uri or 'Lite'}"
        )
        print(f"{'what':<28}{'CPU s':>9}{'sent':>9}{'deleted':>9}{'recall':>8}{'peak MB':>9}")
        with Client(uri, timeout=600) as client:
            few = asked.rows // 100
            for what, first, last in (
                ("the first collection", 0, asked.rows - 2 * few),
                ("nothing has changed", 0, asked.rows - 2 * few),
                ("the second collection", few, asked.rows - few),
                ("1 % new, 1 % gone, twice", 2 * few, asked.rows),
            ):
                shown = {
                    f"{number % 97:02d}/{ids[number]}.jpg": ids[number]
                    for number in range(first, last)
                }
                write_manifest(store, "s", shown)
                start = time.process_time()
                with store.locked():
                    report = publish(
                        store,
                        client,
                        space,
                        ["s"],
                        settings,
                        progress=NotesOnly(print),
                        encode_texts=lambda texts: random_vectors(len(texts), asked.dim, 3),
                    )
                took, info = time.process_time() - start, report.info
                sent, deleted = (info.sent, info.deleted) if report.published else (0, 0)
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
                print(
                    f"{what:<28}{took:>9.1f}{sent:>9,}{deleted:>9,}{info.recall_at_10:>8.3f}{peak:>9.0f}",
                    flush=True,
                )
        for name in ("embeddings", "index", "engine"):
            print(f"home/{name}: {size(home / 'home' / name):.1f} MB")
        if not asked.uri:
            print(f"engine.db: {size(home / 'engine.db'):.1f} MB")


if __name__ == "__main__":
    main()
