"""The ranking of a recommender as text, as values for JSON, and as an HTML page."""

from collections.abc import Sequence
from typing import Any

from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.recommend.recommender import Candidate, Recommender
from retrieval_pipeline.rendering.html_page import Card, Section, page_html


def ranking_text(ranking: Sequence[Candidate]) -> list[str]:
    """Return a line for each picture: rank, score and path."""
    lines = [
        f"{rank:>4}  {picture.score:6.3f}  {to_text(str(picture.path))}"
        for rank, picture in enumerate(ranking, 1)
    ]
    return lines or ["every image has been judged: there is none left to recommend"]


def recommender_json(recommender: Recommender, ranking: Sequence[Candidate]) -> dict[str, Any]:
    """Return the JSON object of a recommender: counts of its votes, and its ranking."""
    return {
        "name": recommender.name,
        "liked": recommender.likes,
        "not_liked": recommender.dislikes,
        "gone": recommender.gone,
        "model": recommender.index.info.model,
        "build": recommender.index.name,
        "hits": [
            {
                "content_id": picture.content_id,
                "path": to_text(str(picture.path)),
                "source": picture.location.source,
                "score": None if picture.score is None else round(picture.score, 6),
                "width": picture.width,
                "height": picture.height,
                "locations": [
                    {"source": place.source, "path": place.path} for place in picture.locations
                ],
            }
            for picture in ranking
        ],
    }


def ranking_html(recommender: Recommender, ranking: Sequence[Candidate], limits: Limits) -> str:
    """Return one self-contained HTML page with the ranking."""
    section = Section(
        heading=f"Recommended: {recommender.name}",
        cards=tuple(
            Card(
                path=picture.path,
                content_id=picture.content_id,
                source=picture.location.source,
                width=picture.width,
                height=picture.height,
                others=picture.other_locations,
                rank=rank,
                score=picture.score,
            )
            for rank, picture in enumerate(ranking, 1)
        ),
        notes=(recommender.votes_text,),
        empty="Every image has been judged: there is none left to recommend.",
    )
    footer = [
        f"Model {recommender.index.info.model}, index {recommender.index.name}",
        "A score above 0 is a predicted like.",
        "A click opens the file itself, on the computer that holds it.",
    ]
    return page_html(section.heading, [section], limits, footer=footer)
