"""Checks of a collection: its vectors against the tables, and what a search finds."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from retrieval_pipeline.config.settings import IndexSettings
from retrieval_pipeline.index.autotune import RECALL_TOLERANCE
from retrieval_pipeline.index.build_info import Check
from retrieval_pipeline.index.knn import evenly_spaced
from retrieval_pipeline.index.milvus.client import Client
from retrieval_pipeline.index.milvus.schema import KEY, VECTOR, search_params
from retrieval_pipeline.index.milvus.tables import TableRows
from retrieval_pipeline.vectors import Numbers, Vectors

# Rows whose vectors are read back.
COMPARED_ROWS = 200
# Queries of each kind: pictures, and words. And how many of the nearest each must find.
QUERIES, NEAREST = 50, 10
# Rows that are compared exactly with each query. With a million more, that would take as long as
# sending them; the recall is then that of the nearest among these.
SCANNED_ROWS = 1_000_000
# Rows whose vectors are in memory at a time: 50 MB at 768 dimensions.
ROWS_IN_MEMORY = 16_384
# Rounding of float32 in sums of a thousand products.
ROUNDING = 1e-5
SEED = 5


@dataclass(frozen=True)
class Measured:
    """What a search finds of the true nearest rows.

    Attributes:
        recall: Share of the ten nearest that were found.
        queries: Number of queries.
        rows: Number of rows that each was compared with exactly.
    """

    recall: float
    queries: int
    rows: int

    def check(self, target: float) -> Check:
        """Check that it is what the settings ask for."""
        least = target - RECALL_TOLERANCE
        is_enough = self.recall >= least
        remedy = (
            ", which a lower index.recall accepts, another index.index_type (HNSW, DISKANN) mends, "
            "and after many deletions a compaction of the collection in the engine"
        )
        return Check(
            name="recall_is_enough",
            passed=is_enough,
            found=(
                f"recall@10 is {self.recall:.3f} (with {self.queries} queries against "
                f"{self.rows:,} rows; at least {least:.3f}){'' if is_enough else remedy}"
            ),
        )


def measure_recall(
    client: Client, collection: str, index: IndexSettings, rows: TableRows, texts: Vectors | None
) -> Measured:
    """Compare what a search finds with what an exact comparison of all rows does.

    Of more than SCANNED_ROWS rows, those of a random sample are compared: a row of it that is
    nearer than the last one found, and was not found, stands for as many as the sample leaves out.

    Args:
        client: The engine.
        collection: A loaded collection.
        index: The settings of the engine.
        rows: What the collection holds.
        texts: Vectors of texts, float32 (n, dim), some of which become queries; None for no texts.

    Raises:
        EngineError: The engine cannot be asked.
        StoreError: A table is damaged.
    """
    rng = np.random.default_rng(SEED)
    chosen = rng.choice(rows.items, min(QUERIES, rows.items), replace=False)
    queries = rows.vectors(np.sort(chosen))
    if texts is not None:
        some = rng.choice(len(texts), min(QUERIES, len(texts)), replace=False)
        queries = np.concatenate([queries, texts[some]])
    wanted = min(NEAREST, len(rows))
    answers = client.search(
        collection,
        data=queries,
        anns_field=VECTOR,
        limit=wanted,
        search_params=search_params(index.index_type, wanted),
        output_fields=[KEY],
        consistency_level="Strong",
    )
    found = [{hit[KEY]: hit["distance"] for hit in answer} for answer in answers]
    scanned = np.arange(len(rows))
    if len(rows) > SCANNED_ROWS:
        scanned = np.sort(rng.choice(len(rows), SCANNED_ROWS, replace=False))
    missed = _missed(rows, rows.as_stored(scanned), queries, found, wanted)
    recall = 1 - min(1.0, missed.mean() * len(rows) / len(scanned) / wanted)
    return Measured(recall=float(recall), queries=len(queries), rows=len(scanned))


def _missed(
    rows: TableRows, scanned: Numbers, queries: Vectors, found: list[Any], wanted: int
) -> Numbers:
    """Return for each query how many of its nearest among some rows were not found."""
    nearer: list[list[float]] = [[] for _ in found]
    last = np.array(
        [min(each.values()) if len(each) == wanted else -2.0 for each in found], np.float32
    )
    for start in range(0, len(scanned), ROWS_IN_MEMORY):
        some = scanned[start : start + ROWS_IN_MEMORY]
        scores = queries @ rows.vectors(some).T
        for query, row in zip(*np.nonzero(scores > last[:, None] + ROUNDING), strict=True):
            if rows.keys[int(some[row])].as_py() not in found[query]:
                nearer[query].append(float(scores[query, row]))
    missed = []
    for scores_missed, hits in zip(nearer, found, strict=True):
        best = sorted(
            [*((-score, 1) for score in scores_missed), *((-s, 0) for s in hits.values())]
        )
        missed.append(sum(is_missed for _, is_missed in best[:wanted]))
    return np.array(missed, np.int64)


def how_to_fill_anew(collection: str) -> str:
    """Return the end of a sentence: what to do about a collection that is not what was sent."""
    return (
        f": `retrieval index` fills {collection} anew once it is dropped in the engine, whose log "
        "may tell what went wrong"
    )


def same_vectors(client: Client, collection: str, rows: TableRows) -> Check:
    """Check that some rows of a collection have the vectors of the tables.

    Raises:
        EngineError: The engine cannot be asked.
        StoreError: A table is damaged.
    """
    chosen = evenly_spaced(len(rows), COMPARED_ROWS)
    expected = rows.vectors(chosen)
    keys = [rows.keys[number].as_py() for number in chosen.tolist()]
    there = client.query(
        collection, ids=keys, output_fields=[KEY, VECTOR], consistency_level="Strong"
    )
    found = {row[KEY]: np.asarray(row[VECTOR], np.float32) for row in there}
    agree = sum(
        key in found and np.allclose(found[key], vector, atol=ROUNDING)
        for key, vector in zip(keys, expected, strict=True)
    )
    return Check(
        name="vectors_agree",
        passed=agree == len(keys),
        found=f"{agree:,} of {len(keys):,} rows of a sample have the vectors of the tables"
        + ("" if agree == len(keys) else how_to_fill_anew(collection)),
    )
