"""The items that are nearest to a query: the engine finds them, and they are scored here."""

import numpy as np

from retrieval_pipeline.search.milvus.expressions import Passing, checks_of, every, one_of
from retrieval_pipeline.search.milvus.reader import BATCH, TOO_DEEP, Reader, refuse_many
from retrieval_pipeline.search.milvus.rows import Row, matrix
from retrieval_pipeline.search.query_vectors import QueryVectors
from retrieval_pipeline.search.vector_index import Ranking, as_items
from retrieval_pipeline.vectors import Vectors

# Rows that are found beyond those asked for, so that equal scores at the end are seen.
MORE_ROWS = 32
# By how much the engine's float32 products may differ from those made here.
ROUNDING = 1e-5


def ranking_of(
    reader: Reader, vectors: QueryVectors, among: Passing, items: int, count: int
) -> Ranking:
    """Rank by the engine's cosines with what is wanted, and score here what it found.

    No score is above the cosine, so an item that the engine has not found yet cannot come
    before one whose score is above the last cosine found (the threshold algorithm: Fagin et
    al., 2003, doi:10.1016/S0022-0000(03)00026-6).

    Args:
        reader: Of the collection.
        vectors: Of the query.
        among: What the items pass.
        items: How many pass, or with checks in `among` how many may pass.
        count: How many to return.

    Raises:
        QueryError: Too many would have to be read.
    """
    rows_in_all = items
    if reader.info.views:
        rows_in_all += reader.count(among | {"view > 0"}, own=False)
    has_checks = bool(checks_of(among))
    asked = max(count + MORE_ROWS, BATCH if has_checks else 0)
    while True:
        asked = min(asked, rows_in_all)
        if not has_checks:  # else those are counted that pass
            refuse_many(asked, TOO_DEEP)
        found = reader.nearest(vectors.wanted, among, asked)
        best_rows, scores, own_rows = _scored(reader, vectors, found.rows)
        order = np.array(
            sorted(range(len(scores)), key=lambda at: (-scores[at], own_rows[at].place)),
            np.int64,
        )[:count]
        is_all = found.read < asked or asked == rows_in_all
        if is_all or (len(order) == count and scores[order[-1]] > found.last + ROUNDING):
            return Ranking(
                items=as_items([own_rows[at] for at in order]),
                scores=scores[order],
                plan=f"Milvus {reader.info.index_type}",
                # Where there are no more, whatever was counted: an approximate search misses some.
                among=len(scores) if is_all else items,
                rows=as_items([best_rows[at] for at in order]),
                among_rows=rows_in_all,
            )
        asked *= 2


def _scored(
    reader: Reader, vectors: QueryVectors, rows: list[Row]
) -> tuple[list[Row], Vectors, list[Row]]:
    """Return of each item that rows belong to its nearest row, its score and its own row."""
    if not rows:
        return [], np.empty(0, np.float32), []
    if not reader.info.views:
        return rows, vectors.scores(_cosines(rows, vectors)), rows
    # An item shows what any of its views shows, also what is not wanted.
    of_item: dict[str, dict[str, Row]] = {}
    for row in rows:
        of_item.setdefault(row.record.content_id, {})[row.id] = row
    ids = list(of_item)
    for start in range(0, len(ids), BATCH):
        these = one_of("content_id", ids[start : start + BATCH])
        for row in reader.rows(every(["view > 0", these])):
            of_item[row.record.content_id][row.id] = row
    # Items of which only a further view was near enough.
    for row in reader.find([each for each in ids if each not in of_item[each]]):
        of_item[row.id][row.id] = row
    groups = [sorted(group.values(), key=lambda row: row.number) for group in of_item.values()]
    products = _cosines([row for group in groups for row in group], vectors)
    ends = np.cumsum([len(group) for group in groups])
    scores = vectors.scores(np.maximum.reduceat(products, [0, *ends[:-1]]))
    nearest = [
        group[int(products[end - len(group) : end, 0].argmax())]
        for group, end in zip(groups, ends.tolist(), strict=True)
    ]
    return nearest, scores, [group[0] for group in groups]


def _cosines(rows: list[Row], vectors: QueryVectors) -> Vectors:
    """Return the cosines of rows with all that scores are made of, float32 (n, m).

    In double precision, so that equal vectors have equal scores wherever they stand.
    """
    products = matrix(rows, vectors.vectors.shape[1]).astype(np.float64) @ vectors.vectors.T
    return products.astype(np.float32)
