"""Milvus against the embedded index: the same answers to random questions, and how fast.

    python benchmarks/milvus.py [--items 1000 100000] [--questions 1000] [--dim 64] [--index FLAT]
                                [--uri http://127.0.0.1:19530]

Pictures, facts and questions are made up. Without --uri they go to Milvus Lite, which is made for
trying things out: its times say nothing about a server's. FLAT compares with all vectors, so every
answer should be the same; of other kinds of index the recall is shown.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from retrieval_pipeline.config.settings import IndexSettings, Settings
from retrieval_pipeline.facts import places
from retrieval_pipeline.index.milvus.client import connect, served
from retrieval_pipeline.search.embedded_index import EmbeddedIndex
from retrieval_pipeline.search.milvus.index import MilvusIndex
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.results import Answer
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store
from synthetic.random_questions import WORDS, Pictures, Words

PAGES = ((5, 0), (20, 0), (7, 13))
# Recall of the ten best, over so many questions without filters at most.
RECALLED = 100


def main() -> None:
    """Print a line for each number of pictures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--items", type=int, nargs="+", default=[1_000, 100_000])
    parser.add_argument("--questions", type=int, default=1_000)
    parser.add_argument("--dim", type=int, default=64)
    parser.add_argument("--index", default="FLAT")
    parser.add_argument("--uri", default="engine.db")
    asked = parser.parse_args()
    # Reading all towns takes seconds.
    places.ALL_TOWNS = 15_000
    for count in asked.items:
        with tempfile.TemporaryDirectory() as directory:
            pictures = Pictures(count=count, dim=asked.dim)
            engine = IndexSettings(
                engine="milvus",
                uri=asked.uri,
                collection=f"benchmark_{count}",
                index_type=asked.index,
                timeout=600,
            )
            compare(pictures, Settings(home=Path(directory), index=engine), asked.questions)


def compare(pictures: Pictures, settings: Settings, questions: int) -> None:
    """Publish the pictures, ask both indexes the same and print what came of it."""
    build = pictures.build(Path(str(settings.home)))
    with connect(settings) as client:
        started = time.perf_counter()
        pictures.publish(Store(settings.home), client, settings.index)
        published = time.perf_counter() - started
        indexes = (EmbeddedIndex(build), MilvusIndex(client, served(client, settings)))
        searchers = [
            Searcher(settings, index, Words(pictures.dim))  # type: ignore[arg-type]
            for index in indexes
        ]
        times: tuple[list[float], list[float]] = ([], [])
        same = 0
        for number in range(questions):
            query, (k, offset) = Query.of(pictures.query()), PAGES[number % len(PAGES)]
            answers = []
            for searcher, taken in zip(searchers, times, strict=True):
                started = time.perf_counter()
                answers.append(searcher.answer(query, k, offset))
                taken.append(time.perf_counter() - started)
            same += hits_of(answers[0]) == hits_of(answers[1])
        print(
            f"{len(build):,} pictures, {len(build.rows):,} vectors of {pictures.dim}, "
            f"{settings.index.index_type}: published in {published:.0f} s; "
            f"{same} of {questions} answers are the same; "
            f"recall@10 {recall(searchers, min(RECALLED, questions)):.4f}; "
            f"embedded {spread(times[0])}; Milvus {spread(times[1])}",
            flush=True,
        )
        # Few pictures pass the first filter, which are read; many the second, which are counted.
        for filtered in (Query(countries=("PT",), min_rating=5), Query(min_width=1)):
            spent: list[list[float]] = [[], []]
            for index, seconds in zip(indexes, spent, strict=True):
                passing = index.passing(filtered)
                for _ in range(2):
                    started = time.perf_counter()
                    facets = index.facets(passing)
                    seconds.append(time.perf_counter() - started)
            (embedded, _), (first, again) = spent
            print(
                f"  counts of {index.count(passing):,}: embedded {embedded * 1_000:.0f} ms; "
                f"Milvus {first * 1_000:.0f} ms, again {again * 1_000:.1f} ms; "
                f"{' '.join(facets.notes) or 'all'}",
                flush=True,
            )


def hits_of(answer: Answer) -> list[tuple[str, str]]:
    """Return the hits of an answer in their order, each with the file that is shown."""
    return [(hit.content_id, str(hit.path)) for hit in answer.hits]


def recall(searchers: Sequence[Searcher], questions: int) -> float:
    """Return the share of the ten best hits of the embedded index that Milvus finds as well."""
    found = []
    for number in range(questions):
        words = " ".join({WORDS[number % len(WORDS)], WORDS[number // len(WORDS) % len(WORDS)]})
        query = Query(text=words, literal=True)
        ids = [{hit.content_id for hit in searcher.search(query, 10)} for searcher in searchers]
        found.append(len(ids[0] & ids[1]) / len(ids[0]))
    return float(np.mean(found))


def spread(seconds: Sequence[float]) -> str:
    """Return median and 95th percentile in milliseconds."""
    middle, high = np.percentile(seconds, [50, 95]) * 1_000
    return f"{middle:.0f} ms (95 %: {high:.0f})"


if __name__ == "__main__":
    main()
