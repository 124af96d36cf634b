"""The items of a corpus that are nearest to a query's vectors, best first."""

from collections.abc import Sequence

import numpy as np

from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.index.knn import SCAN, top
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.query_vectors import QueryVectors
from retrieval_pipeline.search.vector_index import Ranking, not_indexed
from retrieval_pipeline.vectors import Flags, Vectors


def rank_items(
    corpus: Corpus,
    queries: Sequence[Query],
    query_vectors: Sequence[QueryVectors],
    allowed: Sequence[Flags | None],
    count: int,
) -> list[Ranking]:
    """Rank each query's `count` best items: exactly if filters or unwanted things decide.

    An item is as near to a vector as the nearest of its rows: a picture shows what one of its views
    shows, wanted or not.

    Args:
        corpus: What is searched.
        queries: What is asked; a picture is no answer to itself, so those of `like` are left out.
        query_vectors: Of each query.
        allowed: For each query which items it may find, bool (items,), or None for all.
        count: How many items; fewer if there are fewer.
    """
    vector_index, plan = corpus.vector_index, corpus.plan
    whole = [
        flags is None and (vector_index.is_scanned or len(vectors.unwanted) > 0)
        for vectors, flags in zip(query_vectors, allowed, strict=True)
    ]
    scanned = [each.vectors for each, scan in zip(query_vectors, whole, strict=True) if scan]
    # One product for all of them.
    cosines = (
        vector_index.scan(np.concatenate(scanned)) if scanned else np.empty((0, 0), np.float32)
    )
    rows = corpus.rows
    rankings, column = [], 0
    for query, vectors, flags, scan in zip(queries, query_vectors, allowed, whole, strict=True):
        # As many more as are left out below.
        wanted = count + len(query.like)
        if scan:
            columns = slice(column, column := column + len(vectors.vectors))
            numbers, scores = top(vectors.scores(rows.largest(cosines[:, columns])), wanted)
        elif flags is not None:
            compared = rows.of(flags)
            cosines_of = vector_index.scores_of(vectors.vectors, compared)
            order, scores = top(vectors.scores(rows.largest(cosines_of, compared)), wanted)
            numbers = compared[order]
        else:
            numbers, scores = corpus.best(vectors.wanted, wanted)
        used = plan if flags is None and not scan else SCAN
        own = [_own(corpus, content) for content in set(query.like)]
        kept = ~np.isin(numbers, own)
        numbers, scores = numbers[kept][:count], scores[kept][:count]
        among = len(corpus) if flags is None else int(flags.sum())
        among -= len(own) if flags is None else int(flags[own].sum())
        nearest_rows = corpus.best_rows(numbers, vectors.wanted)
        rankings.append(
            Ranking(
                items=numbers,
                scores=scores,
                plan=str(used),
                among=among,
                rows=nearest_rows,
                among_rows=among + rows.further_of(flags, own),
            )
        )
    return rankings


def _own(corpus: Corpus, content_id: str) -> int:
    number = corpus.number_of(content_id)
    if number is None:
        raise not_indexed(content_id)
    return number


def exact_scores(corpus: Corpus, query_vectors: Sequence[QueryVectors]) -> list[Vectors]:
    """Return for each query the score of every item, float32 (items,), compared with all of them.

    All queries are multiplied together: it takes 4 bytes for each row of the corpus and query.
    """
    cosines = corpus.vector_index.scan(np.concatenate([each.vectors for each in query_vectors]))
    found, column = [], 0
    for each in query_vectors:
        columns = slice(column, column := column + len(each.vectors))
        found.append(each.scores(corpus.rows.largest(cosines[:, columns])))
    return found
