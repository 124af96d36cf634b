"""Rows of vectors and the items they belong to: the only module that knows how the two relate.

An item has a vector of its own, and may have more: one for each further view of its picture. Row n
is the own vector of item n; the rows of the further views follow after those of all items.
"""

from dataclasses import dataclass

import numpy as np

from retrieval_pipeline.vectors import Flags, Numbers, Vectors


@dataclass(frozen=True)
class Rows:
    """Which item each row belongs to.

    Attributes:
        items: Number of items.
        further: The item of each row after those of the items, int64 (n,), ascending.
    """

    items: int
    further: Numbers

    def __len__(self) -> int:
        return self.items + len(self.further)

    def items_of(self, rows: Numbers) -> Numbers:
        """Return the item of each of these rows, int64 (len(rows),)."""
        if not len(self.further):
            return rows
        numbers = rows.copy()
        beyond = rows >= self.items
        numbers[beyond] = self.further[rows[beyond] - self.items]
        return numbers

    def of(self, items: Flags) -> Numbers:
        """Return the rows of some of the items, bool (items,), ascending."""
        own = np.flatnonzero(items)
        if not len(self.further):
            return own
        return np.concatenate([own, self.items + np.flatnonzero(items[self.further])])

    def of_item(self, item: int) -> Numbers:
        """Return the rows of one item, its own vector's first."""
        first, last = np.searchsorted(self.further, [item, item + 1])
        return np.concatenate([[item], self.items + np.arange(first, last)])

    def further_of(self, items: Flags | None, but: list[int]) -> int:
        """Return how many further rows some of the items have, bool (items,), None for all.

        Args:
            items: Which items.
            but: Items that are left out.
        """
        if not len(self.further):
            return 0
        counted = np.ones(len(self.further), np.bool_) if items is None else items[self.further]
        return int((counted & ~np.isin(self.further, but)).sum())

    def further_rows(self, items: Numbers) -> tuple[Numbers, Numbers]:
        """Return the further rows of these items, and for each of the rows its place in `items`."""
        first = np.searchsorted(self.further, items)
        counts = np.searchsorted(self.further, items, side="right") - first
        within = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = self.items + np.repeat(first, counts) + within
        return rows, np.repeat(np.arange(len(items)), counts)

    def largest(self, values: Vectors, rows: Numbers | None = None) -> Vectors:
        """Return the largest value of the rows of each item, in the order of the items.

        Args:
            values: float32 (rows, n); each column is looked at by itself.
            rows: What `of` gave; None for all rows.

        Returns:
            float32 (items, n).
        """
        own = self.items if rows is None else int(np.searchsorted(rows, self.items))
        owners = self.further if rows is None else self.items_of(rows[own:])
        if not len(owners):
            return values
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        with_views = owners[starts]
        at = with_views if rows is None else np.searchsorted(rows[:own], with_views)
        result = values[:own].copy()
        views = np.maximum.reduceat(values[own:], starts, axis=0)
        result[at] = np.maximum(result[at], views)
        return result
