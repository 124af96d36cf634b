"""Counts, sizes, times and paths in the words of the command line."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from retrieval_pipeline.cli.output import plural
from retrieval_pipeline.config.extensions import RAW
from retrieval_pipeline.images.extras import FORMATS_EXTRA, can_read_raw
from retrieval_pipeline.paths import shell_quoted

if TYPE_CHECKING:
    from collections.abc import Mapping


# What people call the kinds of companions.
KINDS = {
    "raw": "RAW file",
    "original": "original",
    "edit": "older edit",
    "video": "video",
    "sidecar": "sidecar",
}

# Extensions of files that are not looked at which are named; the others are counted together.
MOST_EXTENSIONS = 6


def shown_path(path: str, terminal: bool) -> str:
    """Return a path for people to read, and, on a terminal, for shells."""
    return shell_quoted(path) if terminal or not path.isprintable() else path


def size_text(count: int) -> str:
    """Return a number of bytes as "0.1 MB" or "7.6 kB"."""
    return f"{count / 1e6:,.1f} MB" if count >= 1e5 else f"{count / 1e3:,.1f} kB"


def counts_text(*pairs: tuple[int, str]) -> str:
    """Return "2 new, 1 changed" for counts and their words; what is 0 is left out."""
    return ", ".join(f"{count:,} {what}" for count, what in pairs if count)


def ago_text(moment: datetime) -> str:
    """Return how long ago a moment was, such as "2 hours ago"."""
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for size, noun in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= size:
            return f"{plural(int(seconds // size), noun)} ago"
    return "just now"


def not_looked_at(counts: Mapping[str, int]) -> list[str]:
    """Return a line that counts the files that were not looked at, by extension, if there are any.

    The most frequent extensions are named, and those of RAW files that an extra would read.
    """
    if not counts:
        return []
    ranked = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    lacking = frozenset() if can_read_raw() else frozenset(RAW)
    named = [
        (
            f'{extension} (pip install "{FORMATS_EXTRA}")' if extension in lacking else extension,
            count,
        )
        for rank, (extension, count) in enumerate(ranked)
        if extension and (rank < MOST_EXTENSIONS or extension in lacking)
    ]
    bare = counts.get("", 0)
    others = sum(counts.values()) - bare - sum(count for _, count in named)
    parts = counts_text(
        *((count, what) for what, count in named), (others, "others"), (bare, "without extension")
    )
    return [f"  {plural(sum(counts.values()), 'file')} not looked at: {parts}"]
