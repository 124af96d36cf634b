from datetime import UTC, datetime

import pytest

from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.facts.dates import Interval, parse_dates

# A Wednesday.
NOW = datetime(2024, 3, 13, 17, 30)


@pytest.mark.parametrize(
    ("text", "start", "end"),
    [
        ("2019", "2019-01-01", "2020-01-01"),
        ("2019-08", "2019-08-01", "2019-09-01"),
        ("2019-12", "2019-12-01", "2020-01-01"),
        ("2019-08-12", "2019-08-12", "2019-08-13"),
        ("2019/8/12", "2019-08-12", "2019-08-13"),
        ("2019-08-12T14:30", "2019-08-12T14:30", "2019-08-12T14:31"),
        ("2019-08-12 14:30:05", "2019-08-12T14:30:05", "2019-08-12T14:30:06"),
        ("August 2019", "2019-08-01", "2019-09-01"),
        ("sept. 2019", "2019-09-01", "2019-10-01"),
        ("12 August 2019", "2019-08-12", "2019-08-13"),
        ("aug 12th, 2019", "2019-08-12", "2019-08-13"),
        ("29 feb 2020", "2020-02-29", "2020-03-01"),
        ("summer 2019", "2019-06-01", "2019-09-01"),
        ("Fall 2019", "2019-09-01", "2019-12-01"),
        ("winter 2019", "2019-12-01", "2020-03-01"),
        ("winter 2019/20", "2019-12-01", "2020-03-01"),
        ("last summer", "2023-06-01", "2023-09-01"),
        ("last winter", "2023-12-01", "2024-03-01"),
        ("1990s", "1990-01-01", "2000-01-01"),
        ("2018-2020", "2018-01-01", "2021-01-01"),
        ("may 2018 to 2019", "2018-05-01", "2020-01-01"),
        ("2019-08-12..2019-08-14", "2019-08-12", "2019-08-15"),
        ("today", "2024-03-13", "2024-03-14"),
        (" Yesterday ", "2024-03-12", "2024-03-13"),
        ("this week", "2024-03-11", "2024-03-18"),
        ("last week", "2024-03-04", "2024-03-11"),
        ("2 weeks ago", "2024-02-26", "2024-03-04"),
        ("three days ago", "2024-03-10", "2024-03-11"),
        ("last month", "2024-02-01", "2024-03-01"),
        ("14 months ago", "2023-01-01", "2023-02-01"),
        ("a year ago", "2023-01-01", "2024-01-01"),
        ("past 7 days", "2024-03-07", "2024-03-14"),
        ("last 2 weeks", "2024-02-29", "2024-03-14"),
        ("the last 3 months", "2023-12-14", "2024-03-14"),
    ],
)
def test_what_people_write_is_an_interval_of_local_time(text: str, start: str, end: str) -> None:
    expected = Interval(datetime.fromisoformat(start), datetime.fromisoformat(end))
    assert parse_dates(text, NOW) == expected


def test_a_month_before_a_longer_one_ends_on_its_last_day() -> None:
    assert parse_dates("past 1 month", datetime(2024, 3, 30)).start == datetime(2024, 2, 29)


def test_a_time_with_a_zone_becomes_the_wall_time_of_this_machine() -> None:
    local = datetime(2019, 8, 12, 14, 30, tzinfo=UTC).astimezone().replace(tzinfo=None)
    assert parse_dates("2019-08-12T14:30Z").start == local


@pytest.mark.parametrize(
    "text",
    [
        "", "soon", "may", "2019-13", "2019-02-30", "31 june 2019", "0000", "9999", "12/08/2019",
        "winter 2019/21", "2020-2018", "2020 to 2018", "99999999 days ago", "9999 years ago",
        "2019-08-12T25:00", "summer", "2019 to 2020 to 2021",
    ],
)  # fmt: skip
def test_what_is_no_date_is_said_with_what_was_written(text: str) -> None:
    with pytest.raises(QueryError, match=r"no date|before it begins") as error:
        parse_dates(text, NOW)
    assert f'"{text}"' in str(error.value)


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("summer 2019", "2019-06-01 to 2019-08-31"),
        ("2019-08-12", "2019-08-12"),
        ("2019-08-12T14:30", "2019-08-12 14:30:00 to 2019-08-12 14:30:59"),
    ],
)
def test_an_interval_is_shown_with_its_last_day(text: str, shown: str) -> None:
    assert str(parse_dates(text)) == shown
