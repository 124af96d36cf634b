"""Which segments are merged, so that there are few and each row is seldom written again.

A log-structured merge-tree (O'Neil et al., 1996, doi:10.1007/s002360050048) with tiers by size, as
in Lucene and Cassandra: the segments of a tier are merged when there are FACTOR of them, into one
of the next tier. So a row is written again once for each tier.
"""

from collections.abc import Sequence

from retrieval_pipeline.index.autotune import SCAN_ONLY_ITEMS

# How many segments of a tier are merged, and how much larger those of the next tier are.
FACTOR = 8
# Most rows of a segment, which bound the memory of building, and most bytes of its vectors.
LARGEST_ROWS = 1 << 20
LARGEST_BYTES = 1 << 31
# A segment is written again when more than this share of its rows has gone.
GONE_SHARE = 0.25


def largest_segment(row_bytes: int) -> int:
    """Return how many rows of so many bytes a segment has at most."""
    return max(min(LARGEST_ROWS, LARGEST_BYTES // row_bytes), 1)


def to_merge(rows: Sequence[int], alive: Sequence[int], new: int, largest: int) -> set[int]:
    """Return which segments are to be written again, together with new rows.

    Args:
        rows: How many rows each segment has, those that have gone included.
        alive: How many of them are rows of the build, at least one.
        new: How many rows are in no segment yet.
        largest: How many rows a segment has at most.
    """
    chosen = {
        number
        for number, (all_rows, kept) in enumerate(zip(rows, alive, strict=True))
        if all_rows - kept > GONE_SHARE * all_rows
    }
    # Merging large ones would make a few of the same size.
    small = {number for number, kept in enumerate(alive) if kept < largest // 2} - chosen
    pool = new + sum(alive[number] for number in chosen)
    while True:
        tier = _tier(pool)
        same = {number for number in small if _tier(alive[number]) <= tier}
        # Without new rows, nothing is merged but what is already too many.
        if len(same) < FACTOR - (pool > 0):
            return chosen
        chosen |= same
        small -= same
        pool += sum(alive[number] for number in same)


def _tier(rows: int) -> int:
    """Return the tier of a segment: 0 for those that are scanned."""
    tier, most = 0, SCAN_ONLY_ITEMS
    while rows > most:
        tier, most = tier + 1, most * FACTOR
    return tier
