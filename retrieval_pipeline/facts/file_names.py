"""Dates in the names of files, as cameras, telephones and messengers write them."""

import re
from datetime import datetime

from retrieval_pipeline.facts.values import Moment, microsecond

# IMG_20190812_143210, 2019-08-12 14.32.10, IMG-20190812-WA0003, Screenshot_2019-08-12-14-32-10,
# WhatsApp Image 2019-08-12 at 14.32.10, Screenshot 2019-08-12 at 2.32.10 PM, 20190812143210.
# The order of day and month is known only where the year comes first.
_DATE = re.compile(
    r"(?<!\d)(?P<year>19\d\d|20\d\d)(?P<dash>[-._]?)(?P<month>0[1-9]|1[0-2])(?P=dash)"
    r"(?P<day>0[1-9]|[12]\d|3[01])"
    r"(?:(?:[ T_-]{0,3}|\s\w{1,3}\s)"
    r"(?P<hour>[01]\d|2[0-3]|(?<=\s)\d)(?P<colon>[-.:_h]?)(?P<minute>[0-5]\d)(?P=colon)"
    r"(?P<second>[0-5]\d)(?:[._]?(?P<part>\d{3}))?(?:\s?(?P<half>[AaPp])\.?[Mm]\b)?(?!\d)"
    r"|(?!\d))",
    re.ASCII,
)
# Google's camera names its pictures by UTC.
_BY_UTC = "PXL_"


def date_in_name(name: str) -> Moment | None:
    """Return the date in the name of a file; midnight if it has no time; None without a date."""
    # macOS puts a narrow no-break space before AM and PM.
    name = name.replace("\u202f", " ").replace("\xa0", " ")
    for match in _DATE.finditer(name):
        hour = int(match["hour"] or 0)
        if match["half"]:
            hour = hour % 12 + 12 * (match["half"] in "Pp")
        try:
            taken_at = datetime(
                int(match["year"]),
                int(match["month"]),
                int(match["day"]),
                hour,
                int(match["minute"] or 0),
                int(match["second"] or 0),
                microsecond(match["part"]),
            )
        except ValueError:
            continue  # the 31st of a month that has 30 days: a number, no date
        return Moment(taken_at, 0 if name.startswith(_BY_UTC) and match["hour"] else None)
    return None
