"""Items in the order of their dates or names, which Milvus counts and does not sort."""

import bisect
import functools
from typing import Any

import numpy as np

from retrieval_pipeline.index.milvus.schema import UNKNOWN
from retrieval_pipeline.search.milvus.expressions import (
    Passing,
    checks_of,
    every,
    expressions_of,
    one_of,
    passing,
    quoted,
)
from retrieval_pipeline.search.milvus.reader import OWN, Reader, refuse_many
from retrieval_pipeline.search.milvus.rows import Row
from retrieval_pipeline.search.query import Sort
from retrieval_pipeline.search.vector_index import UNKNOWN_TIME, Items, as_items
from retrieval_pipeline.vectors import Numbers

# Items that are sorted here rather than found by their dates.
SORTED_HERE = 2_000
# Items in a list that nobody asked to be of a certain length.
LISTED = 1_200


class Lists:
    """Lists the items of a collection."""

    def __init__(self, reader: Reader, years: list[int], sample_ids: list[str]) -> None:
        """List items.

        Args:
            reader: Of the collection.
            years: In which the pictures were taken.
            sample_ids: Content ids of pictures that are evenly spaced: a window of names ends at
                theirs.
        """
        self._reader = reader
        self._all_years = years
        self._sample_ids = sample_ids
        self._knows_facts = reader.info.has_facts

    def listing(
        self, selection: Passing, sort: Sort, offset: int = 0, count: int | None = None
    ) -> Items:
        """Return items that pass by date or name; without a count, LISTED at most.

        Raises:
            QueryError: More than MOST_LOOKED_AT items would have to be sorted here: they do not
                know their date, or have nearly the same name.
        """
        count = LISTED if count is None else count
        if not checks_of(selection):
            return self._listing(selection, sort, offset, count)
        found: list[Row] = []
        everything, start = frozenset(expressions_of(selection)), 0
        while len(found) < offset + count:
            some = self._listing(everything, sort, start, SORTED_HERE).tolist()
            found += passing(selection, some)
            start += SORTED_HERE
            if len(some) < SORTED_HERE:
                break
        return as_items(found[offset : offset + count])

    def _listing(self, selection: Passing, sort: Sort, offset: int, count: int) -> Items:
        """Return what `listing` does, of a selection without checks."""
        last = min(offset + count, self._reader.count(selection))
        if self._reader.count(selection) <= SORTED_HERE:
            return self._sorted(selection, sort, offset, last)
        if sort == "name":
            window, before = self._window_of_names(selection, offset, last)
            return self._sorted(window, sort, offset - before, last - before)
        if not self._knows_facts:
            return self._sorted(selection, sort, offset, last)
        dated = selection | {f"taken_at < {UNKNOWN['taken_at']}"}
        undated = selection | {f"taken_at == {UNKNOWN['taken_at']}"}
        with_date = self._reader.count(dated)
        found = []
        if offset < with_date:
            window, before = self._window(dated, sort, offset, min(last, with_date))
            end = min(last, with_date) - before
            found.append(self._sorted(window, sort, offset - before, end))
        if last > with_date:
            first = max(offset - with_date, 0)
            found.append(self._sorted(undated, sort, first, last - with_date))
        return np.concatenate(found) if found else as_items([])

    def _window_of_names(self, selection: Passing, first: int, last: int) -> tuple[Passing, int]:
        """Return the items that those of ranks `first` to `last` by name are among.

        Between two neighbouring names of the sample lies about a thousandth of all pictures.

        Returns:
            Also how many of the items come before these.
        """

        def before(name: str) -> int:
            return self._reader.count(selection | {f"folded_name < {quoted(name)}"})

        names = self._sample_names
        start = bisect.bisect_right(names, first, key=before)
        end = bisect.bisect_left(names, last, lo=start, key=before)
        window, skipped = selection, 0
        if start:
            window |= {f"folded_name >= {quoted(names[start - 1])}"}
            skipped = before(names[start - 1])
        if end < len(names):
            window |= {f"folded_name < {quoted(names[end])}"}
        return window, skipped

    @functools.cached_property
    def _sample_names(self) -> list[str]:
        rows = self._reader.entities(one_of("id", self._sample_ids), ["folded_name"])
        return sorted({row["folded_name"] for row in rows})

    def _window(self, dated: Passing, sort: Sort, first: int, last: int) -> tuple[Passing, int]:
        """Return the items that those of ranks `first` to `last` by date are among.

        Milvus counts and does not sort, so the dates where they begin and end are found by
        bisection, as far as that leaves few others.

        Args:
            dated: Items that know their date.
            sort: "newest" or "oldest".
            first: Rank from 0.
            last: One more than the last rank.

        Returns:
            Also how many of the items come before these.
        """
        sign, field = (-1, "taken_at >= {}") if sort == "newest" else (1, "taken_at <= {}")

        def up_to(time: int) -> Passing:
            return dated | {field.format(sign * time)}

        def bisected(least: int, most: int) -> int:
            """Return a time up to which there are so many, or the first with at least `least`."""
            low, high = sorted(sign * year for year in self._years)
            while low < high:
                middle = (low + high) // 2
                there = self._reader.count(up_to(middle))
                if least <= there <= most:
                    return middle
                low, high = (middle + 1, high) if there < least else (low, middle)
            return low

        window, before = up_to(bisected(last, last + SORTED_HERE)), 0
        if first > SORTED_HERE:
            start = bisected(first - SORTED_HERE, first)
            if self._reader.count(up_to(start)) > first:  # many have one and the same time
                start -= 1
            before = self._reader.count(up_to(start))
            window |= {f"not ({field.format(sign * start)})"}
        return window, before

    @functools.cached_property
    def _years(self) -> tuple[int, int]:
        """The beginning of the first year with a picture and the end of the last: microseconds."""
        years = np.array(self._all_years or [1970]) - 1970
        first, end = np.array([years.min(), years.max() + 1], "datetime64[Y]").astype(
            "datetime64[us]"
        )
        return int(first.astype(np.int64)), int(end.astype(np.int64))

    def _sorted(self, selection: Passing, sort: Sort, first: int, last: int) -> Items:
        """Sort a selection here, and return the items of the ranks from `first` to `last`."""
        refuse_many(
            self._reader.count(selection),
            "{count} pictures are too many to sort here: narrow the search by a source, a date or "
            "a camera",
        )
        fields = ["content_id", "source", "path", "name", "taken_at"]
        fields += [] if self._knows_facts else ["shown"]
        keys = []
        for row in self._reader.entities(every([OWN, *expressions_of(selection)]), fields):
            time = row["taken_at"]
            if time == UNKNOWN["taken_at"]:
                time = UNKNOWN_TIME
            if not self._knows_facts:
                time = max(file[-1] for file in row["shown"]["locations"]) // 1_000
            place = (row["source"], row["path"])
            keys.append((*_sort_key(sort, row["name"], time), place, row["content_id"]))
        ids = [key[-1] for key in sorted(keys)[first:last]]
        rows = {row.record.content_id: row for row in self._reader.find(ids)}
        return as_items([rows[content_id] for content_id in ids if content_id in rows])

    def in_order(self, rows: list[Row], sort: Sort) -> Numbers:
        """Return the order of the items of these rows: positions in `rows`."""
        if sort == "relevance":
            return np.arange(len(rows))
        times = [row.time(knows_facts=self._knows_facts) for row in rows]

        def key(at: int) -> tuple[Any, ...]:
            source, path = rows[at].place
            return *_sort_key(sort, path.rpartition("/")[2], times[at]), (source, path)

        return np.array(sorted(range(len(rows)), key=key), np.int64)


def _sort_key(sort: Sort, name: str, time: int) -> tuple[Any, ...]:
    """Return what an item is sorted by, before its place."""
    if sort == "name":
        return (name.lower(),)
    return time == UNKNOWN_TIME, -time if sort == "newest" else time
