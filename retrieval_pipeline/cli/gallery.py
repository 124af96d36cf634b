"""Answers of a search, and groups of duplicates, as HTML pages of pictures."""

from collections.abc import Sequence

from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.rendering.html_page import Card, Section, page_html
from retrieval_pipeline.search.near_duplicates import DuplicateGroup
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.results import Answer, hit_cards


def gallery_html(answers: Sequence[Answer], limits: Limits, *, title: str | None = None) -> str:
    """Return one self-contained HTML page with the hits of each query.

    A file that is gone or broken becomes a placeholder that says so. Without a `title`, the page
    is named after its query, or after the number of queries if there are several.
    """
    sections = [_section(answer) for answer in answers]
    if title is None:
        title = sections[0].heading if len(sections) == 1 else f"{len(sections)} queries"
    indexes = {f"Model {answer.model}, index {answer.build}" for answer in answers}
    footer = [*sorted(indexes), "A click opens the file itself, on the computer that holds it."]
    return page_html(title, sections, limits, footer=footer)


def duplicates_html(groups: Sequence[DuplicateGroup], limits: Limits) -> str:
    """Return one self-contained HTML page with a section for each group; scores are cosines."""
    sections = [
        Section(
            heading=to_text(group.pictures[0].paths[0].name),
            cards=tuple(
                Card(
                    path=picture.paths[0],
                    content_id=picture.content_id,
                    source=picture.places[0].source,
                    width=picture.width,
                    height=picture.height,
                    others=picture.places[1:],
                    score=picture.cosine,
                )
                for picture in group.pictures
            ),
        )
        for group in groups
    ]
    return page_html("Duplicates", sections, limits)


def _section(answer: Answer) -> Section:
    query = answer.query
    return Section(
        heading=_heading(query),
        cards=hit_cards(answer.hits),
        notes=(*_notes(query), *([answer.verdict] if answer.hits else [])),
        divider=None if answer.likely == len(answer.hits) else answer.likely,
        example=query.images[0] if query.images else None,
        empty=f"{answer.verdict[:1].upper()}{answer.verdict[1:]}.",
    )


def _heading(query: Query) -> str:
    if query.text and query.text.strip():
        return query.text
    if query.images:
        return f"Pictures like {_names(query)}"
    return ", ".join(query.plus)


def _notes(query: Query) -> tuple[str, ...]:
    """List what the query asked for beside its heading, and the filters that it set."""
    notes = [f"like {_names(query)}"] if query.text and query.images else []
    notes += [f"+ {text}" for text in query.plus] + [f"− {text}" for text in query.minus]
    notes += [f"in {source}" for source in query.sources]
    notes += [f"path {glob}" for glob in query.paths]
    notes += [f"taken {query.on}"] if query.on else []
    notes += [f"taken since {query.after:%Y-%m-%d}"] if query.after else []
    notes += [f"taken before {query.before:%Y-%m-%d}"] if query.before else []
    notes += [f"taken in {year}" for year in query.years]
    notes += [f"camera {camera}" for camera in query.cameras]
    notes += [f"near {query.near}"] if query.near else []
    notes += [f"in {country}" for country in query.countries]
    notes += [f"sorted: {query.sort}"] if query.sort != "relevance" else []
    if query.min_relevance:
        notes.append(f"relevance at least {query.min_relevance:.0%}")
    return tuple(notes)


def _names(query: Query) -> str:
    return ", ".join(to_text(picture.name) for picture in query.images)
