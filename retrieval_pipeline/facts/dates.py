"""What people write as dates, such as "summer 2019" or "2 weeks ago", as intervals of local time.

The command line, web page, saved queries and Dagster's jobs all read dates here. Times are local
wall time, as a camera's clock shows it: a picture taken at nine in the evening in Tokyo was taken
at nine in the evening, wherever the query is asked.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from retrieval_pipeline.errors import QueryError

MONTHS = (
    "january", "february", "march", "april", "may", "june", "july", "august", "september",
    "october", "november", "december",
)  # fmt: skip

# First month of each meteorological season of the northern hemisphere: three whole months each.
SEASONS = {"spring": 3, "summer": 6, "autumn": 9, "fall": 9, "winter": 12}

EXAMPLES = '2019, 2019-08, 2019-08-12, "12 August 2019", "summer 2019", yesterday, "2 weeks ago"'

_MONTH = "(" + "|".join(f"{month[:3]}(?:{month[3:]})?" for month in MONTHS) + r"|sept)\.?"
_SEASON = f"({'|'.join(SEASONS)})"
_UNIT = "(day|week|month|year)"
_YEAR = r"(1[89]\d\d|2[01]\d\d)"
_DAY = r"(\d{1,2})(?:st|nd|rd|th)?"
_COUNTS = {"a": 1, "an": 1, "one": 1, "two": 2, "three": 3, "four": 4, "five": 5, "six": 6}
_COUNT = rf"({'|'.join(_COUNTS)}|\d{{1,4}})"


@dataclass(frozen=True)
class Interval:
    """A stretch of local wall time.

    Attributes:
        start: The first moment, without a zone.
        end: The first moment after it, without a zone.
    """

    start: datetime
    end: datetime

    def __str__(self) -> str:
        """Return its first and last day, or its times where it is no whole days."""
        last = self.end - timedelta(microseconds=1)
        if not _is_midnight(self.start) or not _is_midnight(self.end):
            return f"{self.start:%Y-%m-%d %H:%M:%S} to {last:%Y-%m-%d %H:%M:%S}"
        if self.start.date() == last.date():
            return f"{self.start:%Y-%m-%d}"
        return f"{self.start:%Y-%m-%d} to {last:%Y-%m-%d}"


def parse_dates(text: str, now: datetime | None = None) -> Interval:
    """Return the interval of local wall time that a text names.

    Args:
        text: A year, month, day or ISO 8601 time ("2019-08-12T14:30"), the same in English words
            ("12 August 2019"), a season of the northern hemisphere by whole months ("summer 2019"
            is June to August; winter belongs to the year that it begins in), a decade ("1990s"),
            days counted from today ("yesterday", "last week", "2 weeks ago", "past 10 days"), or
            two of these with " to " or ".." between them. Weeks begin on Monday (ISO 8601).
        now: Local wall time that the relative ones count from; default now.

    Raises:
        QueryError: The text is none of these, or names a day that does not exist.
    """
    now = now or datetime.now()
    cleaned = " ".join(text.split()).lower()
    ends = re.split(r" to |\.\.| until ", cleaned)
    if len(ends) == 2 and all(ends):
        first, last = (_interval(end, text, now) for end in ends)
        if last.end <= first.start:
            raise QueryError(f'"{text}" ends before it begins')
        return Interval(first.start, last.end)
    return _interval(cleaned, text, now)


def _interval(cleaned: str, text: str, now: datetime) -> Interval:
    for pattern, meaning in _FORMS:
        if match := pattern.fullmatch(cleaned):
            try:
                return meaning(match.groups(), now)
            except (ValueError, OverflowError) as error:
                raise QueryError(f'"{text}" is no date ({error})') from None
    raise QueryError(f'"{text}" is no date: write one like {EXAMPLES}')


def year_of(year: int) -> Interval:
    """Return a year; raises ValueError unless it is 1 to 9998."""
    return Interval(datetime(year, 1, 1), datetime(year + 1, 1, 1))


def _is_midnight(moment: datetime) -> bool:
    return moment == _midnight(moment)


def _midnight(moment: datetime) -> datetime:
    return moment.replace(hour=0, minute=0, second=0, microsecond=0)


def _months(first: datetime, count: int) -> Interval:
    return Interval(first, _months_later(first, count))


def _months_later(moment: datetime, count: int) -> datetime:
    """Return the first day of the month that lies `count` months after that of a moment."""
    months = 12 * moment.year + moment.month - 1 + count
    return datetime(months // 12, months % 12 + 1, 1)


def _day(year: int, month: int, day: int) -> Interval:
    start = datetime(year, month, day)
    return Interval(start, start + timedelta(days=1))


def _month_number(name: str) -> int:
    return next(number for number, month in enumerate(MONTHS, 1) if month.startswith(name[:3]))


def _season(name: str, year: int) -> Interval:
    return _months(datetime(year, SEASONS[name], 1), 3)


def _unit(unit: str, now: datetime, back: int) -> Interval:
    """Return the whole day, ISO week, month or year that lies `back` of them before today's."""
    today = _midnight(now)
    if unit == "day":
        start, length = today - timedelta(days=back), timedelta(days=1)
        return Interval(start, start + length)
    if unit == "week":
        start = today - timedelta(days=today.weekday(), weeks=back)
        return Interval(start, start + timedelta(weeks=1))
    if unit == "month":
        return _months(_months_later(today, -back), 1)
    return year_of(now.year - back)


def _past(count: int, unit: str, now: datetime) -> Interval:
    """Return the last `count` days, weeks, months or years, until the end of today."""
    end = _midnight(now) + timedelta(days=1)
    if unit in ("day", "week"):
        return Interval(end - timedelta(days=count * (7 if unit == "week" else 1)), end)
    first = _months_later(end, -count * (12 if unit == "year" else 1))
    # The same day of an earlier month, or that month's last day where it is shorter.
    last_day = (_months_later(first, 1) - timedelta(days=1)).day
    return Interval(first.replace(day=min(end.day, last_day)), end)


def _last_season(name: str, now: datetime) -> Interval:
    """Return the latest season of this name that is over."""
    return next(
        season
        for season in (_season(name, year) for year in range(now.year, now.year - 3, -1))
        if season.end <= now
    )


def _count(text: str) -> int:
    return _COUNTS.get(text) or int(text)


def _moment(text: str) -> Interval:
    """Return a moment of ISO 8601 as the second or minute that it names.

    One with a zone becomes the wall time of this machine.
    """
    moment = datetime.fromisoformat(text.upper())
    if moment.tzinfo is not None:
        moment = moment.astimezone().replace(tzinfo=None)
    exact = len(re.split(r"[t ]", text)[1].split("+")[0].rstrip("z").split(":")) > 2
    return Interval(moment, moment + (timedelta(seconds=1) if exact else timedelta(minutes=1)))


_Groups = tuple[str, ...]
_FORMS: tuple[tuple[re.Pattern[str], Callable[[_Groups, datetime], Interval]], ...] = tuple(
    (re.compile(pattern), meaning)
    for pattern, meaning in (
        (r"(\d{4})", lambda g, now: year_of(int(g[0]))),
        (r"(\d{3})0s", lambda g, now: Interval(
            datetime(10 * int(g[0]), 1, 1), datetime(10 * int(g[0]) + 10, 1, 1))),
        (r"(\d{4}) ?- ?(\d{4})", lambda g, now: _ordered(year_of(int(g[0])), year_of(int(g[1])))),
        (r"(\d{4})[-/](\d{1,2})", lambda g, now: _months(datetime(int(g[0]), int(g[1]), 1), 1)),
        (r"(\d{4})[-/](\d{1,2})[-/](\d{1,2})", lambda g, now: _day(*map(int, g))),
        (r"(\d{4}-\d\d-\d\d[t ]\d\d:\d\d\S*)", lambda g, now: _moment(g[0])),
        (rf"{_MONTH},? (\d{{4}})", lambda g, now: _months(
            datetime(int(g[1]), _month_number(g[0]), 1), 1)),
        (rf"{_DAY} {_MONTH},? (\d{{4}})", lambda g, now: _day(
            int(g[2]), _month_number(g[1]), int(g[0]))),
        (rf"{_MONTH} {_DAY},? (\d{{4}})", lambda g, now: _day(
            int(g[2]), _month_number(g[0]), int(g[1]))),
        (rf"{_SEASON},? (?:of )?(\d{{4}})", lambda g, now: _season(g[0], int(g[1]))),
        (r"winter (\d{4})[-/](\d{2}|\d{4})", lambda g, now: _winter(int(g[0]), g[1])),
        (rf"last {_SEASON}", lambda g, now: _last_season(g[0], now)),
        (r"today", lambda g, now: _unit("day", now, 0)),
        (r"yesterday", lambda g, now: _unit("day", now, 1)),
        (rf"this {_UNIT}", lambda g, now: _unit(g[0], now, 0)),
        (rf"last {_UNIT}", lambda g, now: _unit(g[0], now, 1)),
        (rf"{_COUNT} {_UNIT}s? ago", lambda g, now: _unit(g[1], now, _count(g[0]))),
        (rf"(?:the )?(?:last|past) {_COUNT} {_UNIT}s?", lambda g, now: _past(
            _count(g[0]), g[1], now)),
    )
)  # fmt: skip


def _ordered(first: Interval, last: Interval) -> Interval:
    if last.end <= first.start:
        raise ValueError("it ends before it begins")
    return Interval(first.start, last.end)


def _winter(year: int, following: str) -> Interval:
    if int(following) % 100 != (year + 1) % 100:
        raise ValueError(f"a winter goes on into the next year, {year + 1}")
    return _season("winter", year)


# Phrases that can only be dates, also within a sentence; `query_words` looks for them.
PHRASE = "|".join(
    (
        r"\d{4}-\d{2}-\d{2}",
        r"(?:1[89]|2[01])\d\d-(?:0[1-9]|1[0-2])",
        rf"{_YEAR}(?: ?- ?| to ){_YEAR}",
        rf"{_DAY} {_MONTH},? {_YEAR}",
        rf"{_MONTH} {_DAY},? {_YEAR}",
        rf"{_MONTH},? {_YEAR}",
        rf"winter {_YEAR}[-/]\d{{2,4}}",
        rf"{_SEASON},? (?:of )?{_YEAR}",
        rf"last {_SEASON}",
        "yesterday",
        "(?:this|last) (?:week|month|year)",
        rf"{_COUNT} {_UNIT}s? ago",
        rf"(?:the )?(?:last|past) {_COUNT} {_UNIT}s?",
    )
)
