"""Asks labelled queries of an index and counts: metrics, reliability of relevance, false alarms."""

import heapq
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from retrieval_pipeline.concurrency import one_blas_thread
from retrieval_pipeline.errors import EvaluationError, QueryError
from retrieval_pipeline.evaluation.labels import LabelledQuery, Resolver
from retrieval_pipeline.evaluation.metrics import NAMES, Metric, intervals, metrics_of
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.query_vectors import QueryVectors
from retrieval_pipeline.search.ranking import exact_scores
from retrieval_pipeline.search.results import Answer
from retrieval_pipeline.search.searcher import BATCH, Searcher
from retrieval_pipeline.vectors import Numbers, Vectors

# Hits of each query whose relevance is compared with the labels.
LOOKED_AT = 10
# Bounds of the bins of the reliability table.
BINS = (0.0, 0.1, 0.3, 0.5, 0.7, 0.9)
# Queries that are asked once more without their right answers: enough for a share to within 4 %.
ALARMS_ASKED = 200
# Queries that are shown because they were answered worst.
WORST = 20
# Paths that a report names when labels name nothing.
NAMED = 5


@dataclass(frozen=True)
class Bin:
    """Hits of similar relevance: how many there were, and how many of them are labelled right."""

    least: float
    hits: int
    right: int


@dataclass(frozen=True)
class BadAnswer:
    """A query that was answered badly.

    Attributes:
        query: What was asked.
        rank: Rank of the first right answer, from 1.
        meant: Items of right answers, a few.
    """

    query: LabelledQuery
    rank: int
    meant: tuple[int, ...]


@dataclass(frozen=True)
class Evaluation:
    """How well one index answers labelled queries.

    Attributes:
        model: Of the index.
        build: Name of the index.
        items: Pictures in it.
        queries: How many queries were counted: those with a right answer in the index.
        metrics: By name; exact search, so that they tell of the model alone.
        near: Right answers among the exact first ten of all queries.
        missed: How many of these the index did not find.
        reliability: Relevance against labels, of the first ten hits of each query.
        alarms: Queries about what is not there that had a likely hit.
        alarms_asked: How many such queries were asked.
        unknown: Labels that name no picture of the index.
        examples: A few of them.
        unanswerable: Queries that were left out, since no label of theirs names a picture.
        counted: Places of the counted queries in the list that was asked, int64 (queries,).
        values: The metrics of each of them, float64 (queries, metrics).
        worst: The queries that were answered worst, the worst first.
    """

    model: str
    build: str
    items: int
    queries: int
    metrics: dict[str, Metric]
    near: int
    missed: int
    reliability: tuple[Bin, ...]
    alarms: int
    alarms_asked: int
    unknown: int
    examples: tuple[str, ...]
    unanswerable: int
    counted: Numbers
    values: np.ndarray[Any, np.dtype[np.float64]]
    worst: tuple[BadAnswer, ...]


class _Counts:
    """What is summed up over the queries."""

    def __init__(self) -> None:
        self.counted: list[int] = []
        self.values: list[np.ndarray[Any, np.dtype[np.float64]]] = []
        self.near = self.missed = self.alarms = self.alarms_asked = 0
        self.hits, self.right = (np.zeros(len(BINS), np.int64) for _ in range(2))
        self.worst: list[tuple[float, int, BadAnswer]] = []


def evaluate(
    searcher: Searcher, queries: Sequence[LabelledQuery], *, progress: Progress | None = None
) -> Evaluation:
    """Ask labelled queries and compare the answers with the labels.

    Queries are asked in batches of search.searcher.BATCH, each with the exact scores of all items
    in memory: 4 bytes for each of its queries and each item.

    Raises:
        EncoderError: The model cannot be had.
        EvaluationError: No query has a right answer in the index, or one cannot be asked.
        NotOnEngineError: An engine keeps the index, and it was not published from this home.
    """
    progress = progress or Quiet()
    resolver = Resolver(searcher.corpus, lambda glob: _matching(searcher, glob))
    counts = _Counts()
    examples: dict[str, None] = {}
    unknown = unanswerable = 0
    step = max(len(queries) // ALARMS_ASKED, 1)
    progress.start("asking", len(queries), "queries")
    for start in range(0, len(queries), BATCH):
        batch = []
        for number, query in enumerate(queries[start : start + BATCH], start):
            items, missing = resolver.items(query)
            unknown += len(missing)
            examples.update(dict.fromkeys(missing[: max(NAMED - len(examples), 0)]))
            if query.relevant and not items:
                unanswerable += 1
            else:
                batch.append((number, query, np.array(items, np.int64), number % step == 0))
        if batch:
            _ask(searcher, batch, counts)
        progress.advance(len(queries[start : start + BATCH]))
    progress.finish()
    if not counts.values:
        raise EvaluationError(
            "no query has a right answer in the index"
            + (f": no picture is called {', '.join(examples)}" if examples else "")
        )
    values = np.array(counts.values)
    return Evaluation(
        model=searcher.index.info.model,
        build=searcher.index.name,
        items=len(searcher.index),
        queries=len(values),
        metrics=dict(zip(NAMES, intervals(values), strict=True)),
        near=counts.near,
        missed=counts.missed,
        reliability=tuple(
            Bin(least, int(hits), int(right))
            for least, hits, right in zip(BINS, counts.hits, counts.right, strict=True)
        ),
        alarms=counts.alarms,
        alarms_asked=counts.alarms_asked,
        unknown=unknown,
        examples=tuple(examples),
        unanswerable=unanswerable,
        counted=np.array(counts.counted, np.int64),
        values=values,
        worst=tuple(bad for _, _, bad in sorted(counts.worst, key=lambda each: each[:2])[::-1]),
    )


def _matching(searcher: Searcher, glob: str) -> list[int]:
    flags = searcher.whole.allowed(Query(paths=(glob,)))
    return [] if flags is None else np.flatnonzero(flags).tolist()


def asked(query: LabelledQuery) -> Query:
    """Return the query that a search takes; its words are words, and no dates or places."""
    return Query(text=query.text or None, like=(query.like,) if query.like else (), literal=True)


@one_blas_thread()
def _ask(
    searcher: Searcher, batch: Sequence[tuple[int, LabelledQuery, Numbers, bool]], counts: _Counts
) -> None:
    try:
        queries = [asked(query) for _, query, _, _ in batch]
        vectors = searcher.query_vectors(queries)
    except QueryError as error:
        raise EvaluationError(f"a query cannot be asked: {error}") from None
    scores = exact_scores(searcher.corpus, vectors)
    for (number, labelled, items, once_more), query, each, exact in zip(
        batch, queries, vectors, scores, strict=True
    ):
        answer = searcher.answer(query, LOOKED_AT, query_vectors=each)
        if not len(items):
            counts.alarms += answer.likely > 0
            counts.alarms_asked += 1
            continue
        if labelled.like and (own := searcher.corpus.number_of(labelled.like)) is not None:
            exact[own] = -np.inf
        ranks = _ranks(exact, items)
        values = metrics_of(ranks)
        bad = BadAnswer(labelled, int(ranks[0]) + 1, tuple(items[:LOOKED_AT].tolist()))
        # The smallest average precision first; of equal ones the earlier query.
        entry = (-float(values[-1]), -len(counts.values), bad)
        push = heapq.heappush if len(counts.worst) < WORST else heapq.heappushpop
        push(counts.worst, entry)
        counts.counted.append(number)
        counts.values.append(values)
        _compare(searcher, answer, items, ranks, exact, counts)
        if once_more:
            _ask_without_answers(searcher, query, each, items, counts)


def _ranks(scores: Vectors, items: Numbers) -> Numbers:
    """Return the ranks of items, ascending, from 0; of equal scores the smaller number is first."""
    if len(items) > 20:
        order = np.argsort(-scores, kind="stable")
        ranks = np.empty(len(scores), np.int64)
        ranks[order] = np.arange(len(scores))
        return np.sort(ranks[items])
    above = [
        np.count_nonzero(scores > scores[item]) + np.count_nonzero(scores[:item] == scores[item])
        for item in items
    ]
    return np.sort(np.array(above, np.int64))


def _compare(
    searcher: Searcher,
    answer: Answer,
    items: Numbers,
    ranks: Numbers,
    exact: Vectors,
    counts: _Counts,
) -> None:
    """Count the right ones among the hits, and what exact search finds and the index does not."""
    found = {searcher.corpus.number_of(hit.content_id) for hit in answer.hits}
    near = int((ranks < LOOKED_AT).sum())
    # Of equal scores any may be among the first ten.
    least = np.partition(exact, -LOOKED_AT)[-LOOKED_AT] if len(exact) >= LOOKED_AT else -np.inf
    hits = sum(item in found and bool(exact[item] >= least) for item in items.tolist())
    counts.near += near
    counts.missed += max(near - hits, 0)
    right = set(items.tolist())
    for hit in answer.hits:
        if hit.relevance is None:
            continue
        number = int(np.searchsorted(BINS, hit.relevance, side="right")) - 1
        counts.hits[number] += 1
        counts.right[number] += searcher.corpus.number_of(hit.content_id) in right


def _ask_without_answers(
    searcher: Searcher, query: Query, vectors: QueryVectors, items: Numbers, counts: _Counts
) -> None:
    """Ask among the other pictures, none of which is labelled right: is a hit likely?"""
    others = np.ones(len(searcher.corpus), np.bool_)
    others[items] = False
    if others.any():
        # An engine takes no list of all others.
        answer = searcher.whole.answer(query, 1, query_vectors=vectors, among=others)
        counts.alarms += answer.likely > 0
        counts.alarms_asked += 1


def evaluation_json(evaluation: Evaluation) -> dict[str, Any]:
    """Return the JSON object of an evaluation."""
    return {
        "model": evaluation.model,
        "build": evaluation.build,
        "items": evaluation.items,
        "queries": evaluation.queries,
        "metrics": {
            name: {key: round(value, 6) for key, value in asdict(metric).items()}
            for name, metric in evaluation.metrics.items()
        },
        "index": {"right_in_exact_top_10": evaluation.near, "missed": evaluation.missed},
        "reliability": [asdict(each) for each in evaluation.reliability],
        "absent": {"asked": evaluation.alarms_asked, "with_a_likely_hit": evaluation.alarms},
        "unknown_labels": evaluation.unknown,
        "unanswerable": evaluation.unanswerable,
        "worst": [
            {"query": each.query.text, "like": each.query.like, "rank": each.rank}
            for each in evaluation.worst
        ],
    }


@dataclass(frozen=True)
class Difference:
    """Two indexes compared by the queries that both hold answers to.

    Attributes:
        queries: How many these are.
        means: The mean of each metric over these queries: of the one, and of the other index.
        metrics: How much higher the other index's metrics are, by name.
    """

    queries: int
    means: dict[str, tuple[float, float]]
    metrics: dict[str, Metric]


def difference(one: Evaluation, other: Evaluation) -> Difference | None:
    """Compare how two indexes answer each query of the same list; the intervals are paired.

    None if there is no query that both hold an answer to.
    """
    common, ours, theirs = np.intersect1d(one.counted, other.counted, return_indices=True)
    if not len(common):
        return None
    first, second = one.values[ours], other.values[theirs]
    means = zip(first.mean(axis=0).tolist(), second.mean(axis=0).tolist(), strict=True)
    return Difference(
        queries=len(common),
        means=dict(zip(NAMES, means, strict=True)),
        metrics=dict(zip(NAMES, intervals(second - first), strict=True)),
    )
