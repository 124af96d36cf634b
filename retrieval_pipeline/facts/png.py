"""Textual chunks of a PNG (PNG specification, 11.3.3), to facts."""

from collections.abc import Mapping
from typing import Any

from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.facts.values import MOST_TEXT, Moment, Problems, moment, text


def read_texts(texts: Mapping[Any, Any]) -> PictureFacts:
    """Return the facts of the chunks, by their keywords: Creation Time, Title, Description."""
    problems = Problems(Origin.PNG)
    taken = None
    if isinstance(written := texts.get("Creation Time"), str):
        taken = _rfc_1123(written) or moment(written, problems)
    return PictureFacts(
        taken_at=taken.taken_at if taken else None,
        utc_offset_minutes=taken.utc_offset_minutes if taken else None,
        taken_from=Origin.PNG if taken else None,
        title=text(texts.get("Title"), "title", problems),
        caption=text(texts.get("Description"), "caption", problems, MOST_TEXT),
        problems=tuple(problems.found),
    )


def _rfc_1123(written: str) -> Moment | None:
    """Return a date in the form that the specification suggests; None if it is another."""
    # Few pictures need it, and its import takes as long as reading 50 of them.
    from email.utils import parsedate_to_datetime

    try:
        found = parsedate_to_datetime(written)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    text = found.replace(tzinfo=None).isoformat()
    offset = found.utcoffset()
    checked = moment(text, Problems(Origin.PNG))
    minutes = None if offset is None else round(offset.total_seconds() / 60)
    return checked and Moment(checked.taken_at, minutes)
