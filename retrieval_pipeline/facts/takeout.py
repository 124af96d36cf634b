"""The JSON file that Google Takeout puts beside each picture, to facts."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.facts.values import (
    FIRST_YEAR,
    LAST_YEAR,
    MOST_TEXT,
    Problems,
    metres,
    number,
    position,
    text,
)

MOST_BYTES = 1 << 20

_EPOCH = datetime(1970, 1, 1)
_FIRST = datetime(FIRST_YEAR, 1, 1, tzinfo=UTC).timestamp()
_LAST = datetime(LAST_YEAR + 1, 1, 1, tzinfo=UTC).timestamp() - 1


def read_takeout(data: bytes) -> PictureFacts:
    """Return the facts of a JSON file; none if Google did not write it.

    Its time is a point in time, given in UTC: where it was taken, the clock may have said another.
    """
    problems = Problems(Origin.TAKEOUT)
    facts = PictureFacts()
    if len(data) > MOST_BYTES:
        problems.add("too large")
    else:
        try:
            found = json.loads(data)
        except (ValueError, RecursionError):
            problems.add("not JSON")
        else:
            # Other programs write such names, too.
            if isinstance(found, dict) and isinstance(found.get("photoTakenTime"), dict):
                facts = _facts(found, problems)
    return replace(facts, problems=tuple(problems.found))


def _facts(found: dict[str, Any], problems: Problems) -> PictureFacts:
    seconds = number(found["photoTakenTime"].get("timestamp"), "date", problems, _FIRST, _LAST)
    place = found.get("geoData")
    place = place if isinstance(place, dict) else {}
    latitude, longitude = (
        number(place.get(name), "position", problems, -1e9, 1e9)
        for name in ("latitude", "longitude")
    )
    where = position(latitude, longitude, problems)
    altitude = metres(place.get("altitude"), problems)
    return PictureFacts(
        # 0 is what Google writes where it knows no time.
        taken_at=_EPOCH + timedelta(seconds=seconds) if seconds else None,
        utc_offset_minutes=0 if seconds else None,
        taken_from=Origin.TAKEOUT if seconds else None,
        latitude=where[0] if where else None,
        longitude=where[1] if where else None,
        # So does 0 here.
        altitude_m=altitude or None if where else None,
        caption=text(found.get("description"), "caption", problems, MOST_TEXT),
    )
