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
        counted = len(self.further) if items is None else int(items[self.further].sum())
        return counted - sum(
            len(self.of_item(item)) - 1 for item in but if items is None or items[item]
        )

    def with_views(self, items: Numbers) -> Flags:
        """Tell of each of these items whether it has further rows, bool (len(items),)."""
        first = np.searchsorted(self.further, items)
        return np.searchsorted(self.further, items, side="right") > first

    def largest(self, values: Vectors, rows: Numbers | None = None) -> tuple[Numbers, Vectors]:
        """Return the items of rows, ascending, and of each item the largest value of its rows.

        Args:
            values: float32 (rows, n); each column is looked at by itself.
            rows: What `of` gave; None for all rows.

        Returns:
            The items, int64 (m,), and float32 (m, n).
        """
        numbers = np.arange(self.items) if rows is None else rows[rows < self.items]
        owners = self.further if rows is None else self.items_of(rows[len(numbers) :])
        if not len(owners):
            return numbers, values
        starts = np.flatnonzero(np.diff(owners, prepend=-1))
        at = np.searchsorted(numbers, owners[starts])
        result = values[: len(numbers)].copy()
        views = np.maximum.reduceat(values[len(numbers) :], starts, axis=0)
        result[at] = np.maximum(result[at], views)
        return numbers, result
