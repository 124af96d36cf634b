"""What a table of facts holds, in numbers."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Annotated

import pyarrow as pa
import pyarrow.compute as pc
from pydantic import WithJsonSchema

from retrieval_pipeline.facts.model import Origin

# Cameras, towns and countries that a summary names.
MOST_NAMED = 5

# A time by the clock on the wall: without a zone it is no "date-time" of JSON Schema (RFC 3339).
WallTime = Annotated[datetime, WithJsonSchema({"type": "string"})]


@dataclass(frozen=True)
class FactsSummary:
    """The facts of some files, in numbers of files.

    Attributes:
        files: Files whose facts were read.
        origins: Where their dates were found, the strongest origin first.
        undated: Files without any date.
        first_taken: The earliest date; None without any. Times of files do not count.
        last_taken: The latest date; None without any. Times of files do not count.
        cameras: Number of different cameras.
        frequent_cameras: Files of the MOST_NAMED most frequent cameras.
        positions: Files with latitude and longitude.
        motion_photos: Pictures with a video in their file.
        problems: Facts that were refused, by reason, the most frequent first.
    """

    files: int
    origins: Mapping[str, int]
    undated: int
    first_taken: WallTime | None
    last_taken: WallTime | None
    cameras: int
    frequent_cameras: Mapping[str, int]
    positions: int
    motion_photos: int
    problems: Mapping[str, int]

    @property
    def dated(self) -> int:
        """Files with a date that is more than the time of the file."""
        return self.files - self.undated - self.origins.get(Origin.FILE_TIME, 0)


def summary_of(table: pa.Table) -> FactsSummary:
    """Return the summary of a table with the columns of FACTS."""
    origins = Counter(table["taken_from"].to_pylist())
    undated = origins.pop(None, 0)
    span = pc.min_max(_real_dates(table)).as_py()
    problems = Counter(pc.list_flatten(table["problems"]).to_pylist())
    return FactsSummary(
        files=len(table),
        origins={each.value: origins[each] for each in Origin if origins[each]},
        undated=undated,
        first_taken=span["min"],
        last_taken=span["max"],
        cameras=pc.count_distinct(table["camera"]).as_py(),
        frequent_cameras=most_frequent(table["camera"]),
        positions=len(table) - table["latitude"].null_count,
        motion_photos=pc.sum(table["motion_photo"]).as_py() or 0,
        problems=dict(sorted(problems.items(), key=lambda each: (-each[1], each[0]))),
    )


def most_frequent(names: pa.ChunkedArray) -> dict[str, int]:
    """Return the MOST_NAMED most frequent texts of a column and how often each is there."""
    counts = Counter(
        {row["values"]: row["counts"] for row in pc.value_counts(pc.drop_null(names)).to_pylist()}
    )
    return dict(sorted(counts.items(), key=lambda each: (-each[1], each[0]))[:MOST_NAMED])


def months_of(table: pa.Table) -> dict[str, int]:
    """Return how many files were taken in each month, such as "2019-08", the first month first.

    Times of files do not count.
    """
    months = Counter(pc.strftime(_real_dates(table), "%Y-%m").to_pylist())
    return dict(sorted(months.items()))


def _real_dates(table: pa.Table) -> pa.ChunkedArray:
    """Return the dates that are more than the time of a file."""
    is_real = pc.not_equal(table["taken_from"], Origin.FILE_TIME.value)
    return table["taken_at"].filter(pc.fill_null(is_real, False))
