"""An evaluation as text, and its worst queries as an HTML page."""

from collections.abc import Iterator, Sequence

from retrieval_pipeline.evaluation.evaluate import (
    BINS,
    BadAnswer,
    Evaluation,
    asked,
    difference,
)
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.rendering.html_page import Card, Section, page_html
from retrieval_pipeline.search.results import hit_cards
from retrieval_pipeline.search.searcher import Searcher

# Pictures of each kind for a query on the page.
SHOWN = 6


def evaluation_text(evaluation: Evaluation) -> list[str]:
    """Return the lines that the command line prints."""
    lines = [
        f"model {evaluation.model}, index {evaluation.build}: {evaluation.items:,} pictures, "
        f"{evaluation.queries:,} queries",
        *_problems(evaluation),
        "",
        f"{'':<10}  {'mean':>6}  95 % interval",
    ]
    for name, metric in evaluation.metrics.items():
        lines.append(f"{name:<10}  {metric.mean:6.3f}  {metric.low:.3f} to {metric.high:.3f}")
    lines += [
        "",
        f"of {evaluation.near:,} right answers among the exact first ten, the index misses "
        f"{evaluation.missed:,}",
        f"of {evaluation.alarms_asked:,} queries about what is not there, {evaluation.alarms:,} "
        "have a likely hit",
        "",
        "relevance      hits   right",
    ]
    for each, end in zip(evaluation.reliability, (*BINS[1:], 1.0), strict=True):
        share = f"{each.right / each.hits:.0%}" if each.hits else "-"
        lines.append(f"{each.least:4.0%} to {end:4.0%}  {each.hits:>5,}  {share:>6}")
    lines += ["", "answered worst (rank of the first right answer):"]
    lines += [
        f"{bad.rank:>7,}  {bad.query.text or bad.query.like}" for bad in evaluation.worst[:SHOWN]
    ]
    return lines


def _problems(evaluation: Evaluation) -> Iterator[str]:
    if evaluation.unknown:
        yield (
            f"note: {evaluation.unknown:,} labels name no picture of the index, such as "
            f"{', '.join(evaluation.examples)}"
        )
    if evaluation.unanswerable:
        yield f"note: {evaluation.unanswerable:,} queries are left out: they have no other label"


def comparison_text(one: Evaluation, other: Evaluation) -> list[str]:
    """Return lines that say how much better the other model answers the same queries."""
    found = difference(one, other)
    if found is None:
        return [
            f"{one.model} and {other.model} hold answers to different queries: bring both indexes "
            "up to date to compare them query by query"
        ]
    lines = [f"{other.model} against {one.model}, by the {found.queries:,} queries of both:"]
    for name, metric in found.metrics.items():
        sure = "" if metric.low <= 0 <= metric.high else "  *"
        lines.append(
            f"{name:<10}  {metric.mean:+6.3f}  {metric.low:+.3f} to {metric.high:+.3f}{sure}"
        )
    return [*lines, "* the interval does not hold 0"]


def worst_html(evaluations: Sequence[tuple[Searcher, Evaluation]], limits: Limits) -> str:
    """Return one self-contained page of the worst queries: what was found, and what was meant."""
    sections = [
        _section(searcher, evaluation, bad)
        for searcher, evaluation in evaluations
        for bad in evaluation.worst
    ]
    footer = [
        f"Model {evaluation.model}, index {evaluation.build}: recall@10 "
        f"{evaluation.metrics['recall@10'].mean:.3f} of {evaluation.queries:,} queries"
        for _, evaluation in evaluations
    ]
    return page_html("Answered worst", sections, limits, footer=footer)


def _section(searcher: Searcher, evaluation: Evaluation, bad: BadAnswer) -> Section:
    found = hit_cards(searcher.search(asked(bad.query), SHOWN))
    meant = [
        Card(
            path=searcher.path_of(record.locations[0]),
            content_id=record.content_id,
            source=record.locations[0].source,
            width=record.width,
            height=record.height,
            others=record.locations[1:],
        )
        for record in searcher.corpus.records(bad.meant[:SHOWN])
    ]
    return Section(
        heading=bad.query.text or f"Pictures like {bad.query.like}",
        cards=(*found, *meant),
        notes=(f"first right answer at rank {bad.rank:,}", evaluation.model),
        divider=len(found),
        below="what was meant",
    )
