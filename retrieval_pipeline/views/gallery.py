"""The answers of a search as a page of pictures."""

from collections.abc import Sequence

from retrieval_pipeline.images import Limits
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.search import Answer, Query
from retrieval_pipeline.views.page import Card, Section, page_html


def gallery_html(answers: Sequence[Answer], limits: Limits, *, title: str | None = None) -> str:
    """Return one self-contained HTML page with the hits of each query.

    A file that is gone or broken becomes a placeholder that says so. Without a `title` the page is
    named after its only query.
    """
    sections = [_section(answer) for answer in answers]
    if title is None:
        title = sections[0].heading if len(sections) == 1 else f"{len(sections)} queries"
    indexes = {f"Model {answer.model}, index {answer.build}" for answer in answers}
    footer = [*sorted(indexes), "A click opens the file itself, on the computer that holds it."]
    return page_html(title, sections, limits, footer=footer)


def _section(answer: Answer) -> Section:
    query = answer.query
    return Section(
        heading=_heading(query),
        cards=tuple(
            Card(
                path=hit.path,
                source=hit.source,
                width=hit.width,
                height=hit.height,
                others=hit.other_locations,
                rank=rank,
                score=hit.score,
                relevance=hit.relevance,
            )
            for rank, hit in enumerate(answer.hits, 1)
        ),
        notes=_notes(query),
        example=query.image,
        empty="Nothing here looks like that.",
    )


def _heading(query: Query) -> str:
    if query.text and query.text.strip():
        return query.text
    if query.image:
        return f"Pictures like {to_text(query.image.name)}"
    return ", ".join(query.plus)


def _notes(query: Query) -> tuple[str, ...]:
    """Say what else the query asked for, and which filters it set."""
    notes = [f"like {to_text(query.image.name)}"] if query.text and query.image else []
    notes += [f"+ {text}" for text in query.plus] + [f"− {text}" for text in query.minus]
    notes += [f"in {source}" for source in query.sources]
    notes += [f"path {glob}" for glob in query.paths]
    if query.min_relevance:
        notes.append(f"relevance at least {query.min_relevance:.0%}")
    return tuple(notes)
