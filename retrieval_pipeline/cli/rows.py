"""Answers for other programs: paths alone, CSV, and JSON lines."""

import csv
import io
import os
import sys

from retrieval_pipeline.cli.output import echo, echo_bytes, echo_json
from retrieval_pipeline.paths import shell_quoted
from retrieval_pipeline.search.results import Answer, Hit, hit_json

COLUMNS = (
    *("query", "rank", "path", "source", "score", "relevance", "likely"),
    *("taken", "camera", "place", "width", "height", "content_id"),
)


def echo_columns() -> None:
    """Write the head of the table that `echo_rows` writes as CSV."""
    _echo_csv([COLUMNS])


def echo_rows(answer: Answer, form: str) -> None:
    """Write the hits of an answer; paths are the bytes that the file system has.

    On a terminal, which such bytes could steer, paths are quoted for the shell, one on a line.

    Args:
        answer: The hits.
        form: "csv", "jsonl" (an object for each hit), "paths" (one on a line) or "null" (a NUL
            after each).

    Raises:
        OutputError: Nothing can be written.
    """
    ranked = list(enumerate(answer.hits, answer.offset + 1))
    if form == "csv":
        _echo_csv([_row(answer, rank, hit) for rank, hit in ranked])
    elif form == "jsonl":
        for rank, hit in ranked:
            echo_json({"query": str(answer.query), "rank": rank, **hit_json(hit)})
    elif sys.stdout.isatty():
        echo(*(shell_quoted(str(hit.path)) for hit in answer.hits))
    else:
        end = b"\0" if form == "null" else b"\n"
        echo_bytes(b"".join(os.fsencode(str(hit.path)) + end for hit in answer.hits))


def _row(answer: Answer, rank: int, hit: Hit) -> tuple[object, ...]:
    facts = hit.facts
    scores = ("" if value is None else f"{value:.6f}" for value in (hit.score, hit.relevance))
    return (
        *(str(answer.query), rank, str(hit.path), hit.source, *scores, hit.likely),
        *(facts.taken_text, facts.camera, facts.where, hit.width, hit.height, hit.content_id),
    )


def _echo_csv(rows: list[tuple[object, ...]]) -> None:
    table = io.StringIO()
    csv.writer(table, lineterminator="\n").writerows(rows)
    if sys.stdout.isatty():
        echo(*table.getvalue().splitlines())
    else:
        echo_bytes(os.fsencode(table.getvalue()))
