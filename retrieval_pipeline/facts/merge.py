"""Precedence: one value for each fact, where several origins have one (docs/facts.md)."""

from dataclasses import replace
from datetime import UTC, datetime

from retrieval_pipeline.facts.model import Origin, PictureFacts


def merged(content: PictureFacts, mtime_ns: int) -> PictureFacts:
    """Return the facts of one file.

    Args:
        content: The facts that its bytes hold.
        mtime_ns: When the file was last changed, nanoseconds since 1970.
    """
    if content.taken_at is not None:
        return content
    return _from_file_time(content, mtime_ns)


def _from_file_time(facts: PictureFacts, mtime_ns: int) -> PictureFacts:
    """Take the time of the file, as a clock shows it where this program runs."""
    if mtime_ns <= 0:  # unknown: file systems and the manifest say so by 0 or -1
        return facts
    taken_at = datetime.fromtimestamp(mtime_ns // 1_000_000_000, UTC).astimezone()
    offset = taken_at.utcoffset()
    assert offset is not None
    return replace(
        facts,
        taken_at=taken_at.replace(tzinfo=None, microsecond=mtime_ns // 1000 % 1_000_000),
        utc_offset_minutes=round(offset.total_seconds() / 60),
        taken_from=Origin.FILE_TIME,
    )
