"""Precedence: one value for each fact, where several origins have one (docs/facts.md)."""

from dataclasses import fields, replace
from datetime import UTC, datetime, timedelta

from retrieval_pipeline.facts.file_names import date_in_name
from retrieval_pipeline.facts.model import Origin, PictureFacts

# Facts that belong together are taken from one origin; the first of each group decides.
_TOGETHER = (
    ("taken_at", "utc_offset_minutes", "taken_from"),
    ("camera", "camera_make", "camera_model"),
    ("latitude", "longitude", "altitude_m"),
)
_ALONE = tuple(
    field.name
    for field in fields(PictureFacts)
    if field.name != "problems" and not any(field.name in group for group in _TOGETHER)
)

# Local time differs from UTC by multiples of this, from -12 to +14 hours.
_ZONE_STEP = timedelta(minutes=15)
_WEST, _EAST = timedelta(hours=-12), timedelta(hours=14)


def first_of(*origins: PictureFacts) -> PictureFacts:
    """Return each fact from the first origin that knows it, and the problems of all."""
    found: dict[str, object] = {}
    for decisive, *others in (*_TOGETHER, *((name,) for name in _ALONE)):
        for facts in origins:
            if getattr(facts, decisive) not in (None, ()):
                found |= {name: getattr(facts, name) for name in (decisive, *others)}
                break
    problems = dict.fromkeys(problem for facts in origins for problem in facts.problems)
    return PictureFacts(**found, problems=tuple(problems))  # type: ignore[arg-type]


def facts_of_file(
    content: PictureFacts,
    path: str,
    mtime_ns: int,
    sidecar: PictureFacts | None = None,
    takeout: PictureFacts | None = None,
) -> PictureFacts:
    """Return the facts of one file.

    Args:
        content: The facts that its bytes hold.
        path: Its path, whose last part may name a date.
        mtime_ns: When the file was last changed, nanoseconds since 1970; 0 and less: not known.
        sidecar: The facts of the XMP files beside it.
        takeout: The facts of the JSON file of Google Takeout beside it.
    """
    sidecar, takeout = sidecar or PictureFacts(), takeout or PictureFacts()
    named = date_in_name(path.rpartition("/")[2])
    if _repeats_date(sidecar, content):
        sidecar = replace(sidecar, taken_at=None)
    if named is not None and takeout.taken_at is not None:
        takeout = _on_the_wall(takeout, named.taken_at)
    facts = first_of(sidecar, content, takeout)
    if facts.taken_at is not None:
        return facts
    if named is not None:
        return replace(
            facts,
            taken_at=named.taken_at,
            utc_offset_minutes=named.utc_offset_minutes,
            taken_from=Origin.FILE_NAME,
        )
    return _from_file_time(facts, mtime_ns)


def _repeats_date(sidecar: PictureFacts, content: PictureFacts) -> bool:
    """Return whether a sidecar only repeats the date of the file, maybe without parts of seconds.

    Programs copy it there with the first edit of anything.
    """
    if sidecar.taken_at is None or content.taken_at is None:
        return False
    same = sidecar.taken_at.replace(microsecond=0) == content.taken_at.replace(microsecond=0)
    return same and sidecar.utc_offset_minutes in (None, content.utc_offset_minutes)


def _on_the_wall(takeout: PictureFacts, named: datetime) -> PictureFacts:
    """Give Takeout's date, which is in UTC, as the clock said that named the file.

    That is the same moment if the two differ by a possible time zone, to the second.
    """
    assert takeout.taken_at is not None
    offset = named.replace(microsecond=0) - takeout.taken_at.replace(microsecond=0)
    if offset % _ZONE_STEP or not _WEST <= offset <= _EAST:
        return takeout
    minutes = round(offset.total_seconds() / 60)
    return replace(takeout, taken_at=named, utc_offset_minutes=minutes)


def _from_file_time(facts: PictureFacts, mtime_ns: int) -> PictureFacts:
    """Take the time of the file, as a clock shows it where this program runs."""
    if mtime_ns <= 0:
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
