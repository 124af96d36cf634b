"""The names of the parts of an embedding table, and which part takes the place of which."""

import re
from collections.abc import Sequence
from pathlib import Path

PART_NAME = re.compile(r"part-\d+(-\d+)?\.parquet")


def part_numbers(part: Path) -> tuple[int, int]:
    """Return the first and last number in a part's name.

    "part-000004" is one of the run that wrote it. "part-000001-000004" holds what is needed of the
    parts with these numbers: by its name it takes their place in one moment.
    """
    numbers = part.stem.split("-")[1:]
    return int(numbers[0]), int(numbers[-1])


def merged_part(parts: Sequence[Path]) -> Path:
    """Return the path of the part that takes the place of these neighbours, which are in order."""
    if len(parts) == 1:
        return parts[0]
    first, last = part_numbers(parts[0])[0], part_numbers(parts[-1])[1]
    return parts[0].with_name(f"part-{first:06d}-{last:06d}.parquet")


def parts_in(directory: Path) -> tuple[list[Path], list[Path]]:
    """Return the parts in a directory, by number, and those that others have taken the place of."""
    files = [path for path in directory.glob("part-*.parquet") if PART_NAME.fullmatch(path.name)]
    current: list[Path] = []
    replaced: list[Path] = []
    last = 0
    for part in sorted(files, key=lambda part: (part_numbers(part)[0], -part_numbers(part)[1])):
        (current if part_numbers(part)[1] > last else replaced).append(part)
        last = max(last, part_numbers(part)[1])
    return current, replaced
