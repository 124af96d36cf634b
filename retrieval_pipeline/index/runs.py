"""Which row of a build each row of its segments is: the only thing in a segment that ever changes.

A build numbers its rows by what they are (`rows`). A segment has them in the order in which it was
written, and keeps those that have gone. Most neighbours stay neighbours, so that a build stores
runs: so many rows of one segment, from this one on, are so many rows of the build, from that one
on. A row in no run has gone (a tombstone). A new picture among a million makes two runs of one.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.vectors import Numbers

# int32 (n, 4): segment, first row in it, first row of the build, number of rows.
Runs = npt.NDArray[np.int32]
# For each row of a segment its row in the build, int32 (rows of the segment,); -1 if it has gone.
RowsOfBuild = npt.NDArray[np.int32]


def to_runs(segments: Sequence[RowsOfBuild]) -> Runs:
    """Return the runs of segments, in the order of segments and of the rows in them."""
    found = [np.empty((0, 4), np.int32)]
    for number, rows in enumerate(segments):
        starts = np.ones(len(rows), np.bool_)
        starts[1:] = (rows[1:] != rows[:-1] + 1) | (rows[:-1] < 0)
        first = np.flatnonzero(starts & (rows >= 0))
        # A run ends where the next begins, or where a row has gone.
        ends = np.flatnonzero(starts | (rows < 0))
        after = np.append(ends, len(rows))[np.searchsorted(ends, first, side="right")]
        columns = [np.full(len(first), number), first, rows[first], after - first]
        found.append(np.stack(columns, axis=1).astype(np.int32))
    return np.concatenate(found)


def are_sound(runs: Runs, segments: Sequence[int], rows: int) -> bool:
    """Tell whether runs put each row of a build into one place that exists.

    Args:
        runs: What was read.
        segments: How many rows each segment has.
        rows: How many rows the build has.
    """
    segment, first, row, count = runs.astype(np.int64).T
    if len(runs) == 0:
        return rows == 0
    if (count < 1).any() or (segment < 0).any() or (segment >= len(segments)).any():
        return False
    # Places follow one another within the segments, and none is used twice.
    starts = np.cumsum([0, *segments])
    place = starts[segment] + first
    inside = (first >= 0) & (place + count <= starts[segment + 1])
    apart = place[1:] >= (place + count)[:-1]
    # The rows of the build follow one another without a gap.
    order = np.argsort(row)
    expected = np.cumsum(count[order]) - count[order]
    whole = (row[order] == expected).all() and int(count.sum()) == rows
    return bool(inside.all() and apart.all() and whole)


@dataclass(frozen=True)
class RowMap:
    """Where each row of a build lies.

    Attributes:
        runs: Sound runs.
        segments: How many rows each segment has.
        rows: How many rows the build has.
    """

    runs: Runs
    segments: tuple[int, ...]
    rows: int

    @property
    def is_identity(self) -> bool:
        """Whether the segments, one after the other, have the rows of the build in their order."""
        if len(self.runs) > len(self.segments) or sum(self.segments) != self.rows:
            return False
        starts = np.cumsum([0, *self.segments])[self.runs[:, 0]]
        return bool((starts + self.runs[:, 1] == self.runs[:, 2]).all())

    @cached_property
    def rows_of_build(self) -> list[RowsOfBuild]:
        """For each segment the rows of the build that its rows are; -1 if they have gone."""
        starts = np.cumsum([0, *self.segments])
        everything = np.full(starts[-1], -1, np.int32)
        everything[self._places] = self._rows
        return [everything[start:end] for start, end in pairwise(starts)]

    @cached_property
    def places(self) -> Numbers:
        """For each row of the build its row in the segments, one after the other, int64 (rows,)."""
        places = np.empty(self.rows, np.int64)
        places[self._rows] = self._places
        return places

    def gone(self, segment: int) -> Numbers:
        """Return the rows of a segment that have gone, ascending."""
        return np.flatnonzero(self.rows_of_build[segment] < 0)

    @property
    def _rows(self) -> Numbers:
        return _expanded(self.runs[:, 2], self.runs[:, 3])

    @property
    def _places(self) -> Numbers:
        starts = np.cumsum([0, *self.segments])
        return _expanded(starts[self.runs[:, 0]] + self.runs[:, 1], self.runs[:, 3])


def _expanded(first: npt.NDArray[np.integer], count: npt.NDArray[np.integer]) -> Numbers:
    """Return for each run so many numbers, ascending by one from its first, int64."""
    before = np.cumsum(count, dtype=np.int64) - count
    return np.repeat(first - before, count) + np.arange(int(count.sum()))
