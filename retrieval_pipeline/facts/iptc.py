"""IPTC-IIM (version 4.2), which Pillow has split into data sets, to facts."""

from collections.abc import Mapping, Sequence

from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.facts.values import MOST_TEXT, Problems, keywords, moment, text

# Record and number of the data sets.
_CHARACTER_SET = (1, 90)
_TITLE, _KEYWORD, _DATE, _TIME, _CAPTION = (2, 5), (2, 25), (2, 55), (2, 60), (2, 120)

# The escape sequence of ISO 2022 that means UTF-8.
_UTF_8 = b"\x1b%G"

DataSets = Mapping[tuple[int, int], bytes | Sequence[bytes]]


def read_iptc(data_sets: DataSets) -> PictureFacts:
    """Return the facts of IPTC's data sets, each a value or, where it is repeated, a list."""
    problems = Problems(Origin.IPTC)
    declared = next(iter(_values(data_sets, _CHARACTER_SET)), b"") == _UTF_8

    def strings(name: tuple[int, int]) -> list[str]:
        return [_decoded(value, declared) for value in _values(data_sets, name)]

    def string(name: tuple[int, int]) -> str | None:
        return next(iter(strings(name)), None)

    date, time = string(_DATE), string(_TIME)
    taken = None
    if date:
        # "20190812" and "143210+0100".
        taken = moment(f"{date} {time}" if time else date, problems)
    return PictureFacts(
        taken_at=taken.taken_at if taken else None,
        utc_offset_minutes=taken.utc_offset_minutes if taken else None,
        taken_from=Origin.IPTC if taken else None,
        title=text(string(_TITLE), "title", problems),
        caption=text(string(_CAPTION), "caption", problems, MOST_TEXT),
        keywords=keywords(strings(_KEYWORD), problems),
        problems=tuple(problems.found),
    )


def _values(data_sets: DataSets, name: tuple[int, int]) -> Sequence[bytes]:
    value = data_sets.get(name, ())
    return [value] if isinstance(value, bytes) else value


def _decoded(value: bytes, declared: bool) -> str:
    """Return the text of a data set: UTF-8 if it says so or can be, else Latin-1."""
    try:
        return value.decode("utf-8")
    except UnicodeDecodeError:
        return value.decode("utf-8", "replace") if declared else value.decode("latin-1")
