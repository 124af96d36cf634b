"""The names of the parts of an embedding table, and which part replaces which.

A source has two tables: of its pictures ("part-000004"), and of their further views
("views-000004").
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from retrieval_pipeline.storage.names import PART_NAME, VIEWS_NAME
from retrieval_pipeline.storage.reading import listed
from retrieval_pipeline.storage.schemas import VIEW_COLUMNS, embedding_schema, views_schema


@dataclass(frozen=True)
class PartsTable:
    """A table that is stored as parts.

    Attributes:
        names: Of its parts.
        schema: Gives its columns for vectors of so many components.
        key: The columns that tell its rows apart.
    """

    names: re.Pattern[str]
    schema: Callable[[int], pa.Schema]
    key: tuple[str, ...]


PICTURES = PartsTable(PART_NAME, embedding_schema, ("content_id",))
VIEWS = PartsTable(VIEWS_NAME, views_schema, ("content_id", *VIEW_COLUMNS))


def part_numbers(part: Path) -> tuple[int, int]:
    """Return the first and last number in a part's name.

    A run writes parts with one number, such as "part-000004". `gc` merges neighbours:
    "part-000001-000004" holds the rows that are still needed of the parts 1 to 4, and replaces all
    four in the moment in which it appears.
    """
    numbers = part.stem.split("-")[1:]
    return int(numbers[0]), int(numbers[-1])


def merged_part(parts: Sequence[Path]) -> Path:
    """Return the path of the part that replaces these neighbours, which are sorted by number."""
    if len(parts) == 1:
        return parts[0]
    first, last = part_numbers(parts[0])[0], part_numbers(parts[-1])[1]
    table = parts[0].name.partition("-")[0]
    return parts[0].with_name(f"{table}-{first:06d}-{last:06d}.parquet")


def parts_in(directory: Path, names: re.Pattern[str] = PART_NAME) -> tuple[list[Path], list[Path]]:
    """Return the current parts in a directory, by number, and those that a merged part replaces.

    Args:
        directory: Of a source.
        names: PART_NAME or VIEWS_NAME: of which table.

    Raises:
        UnreadableError: The directory cannot be listed.
    """
    current: list[Path] = []
    replaced: list[Path] = []
    last = 0
    files = listed(directory, names)
    for part in sorted(files, key=lambda part: (part_numbers(part)[0], -part_numbers(part)[1])):
        (current if part_numbers(part)[1] > last else replaced).append(part)
        last = max(last, part_numbers(part)[1])
    return current, replaced
