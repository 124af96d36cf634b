"""The rows of items.arrow as Python objects: what is told of a picture, without its vector."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa

from retrieval_pipeline.facts.groups import Kind
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.vectors import Numbers

# All columns of items.arrow but the embedding.
_COLUMNS = ["content_id", "locations", "width", "height", "format"]


@dataclass(frozen=True)
class IndexedFile:
    """One file that holds an item's image, as it was when it was indexed.

    Attributes:
        location: Where it is.
        size: In bytes.
        mtime_ns: When it was last changed, in nanoseconds since 1970.
    """

    location: Location
    size: int
    mtime_ns: int

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Return the file of a row of `items.LOCATION`."""
        return cls(Location(row["source"], row["path"]), row["size"], row["mtime_ns"])


@dataclass(frozen=True)
class CompanionFile:
    """A file that belongs to an item without being one, such as the RAW file of a JPEG.

    Attributes:
        kind: What it is to the item.
        file: Where it is; size and time of a video may be 0.
    """

    kind: Kind
    file: IndexedFile


@dataclass(frozen=True)
class ItemRecord:
    """One item of a build.

    Attributes:
        content_id: Identity of the image's bytes.
        files: Every file that holds it, sorted by source and path.
        width: Pixels of the upright picture.
        height: Pixels of the upright picture.
        format: Of the file, such as JPEG.
        companions: The other files of the photograph, and those about it.
    """

    content_id: str
    files: tuple[IndexedFile, ...]
    width: int
    height: int
    format: str
    companions: tuple[CompanionFile, ...] = ()

    def first(self, passes: Callable[[IndexedFile], bool]) -> Location:
        """Return where the first file that passes is; the first of all if only a companion does."""
        return next(filter(passes, self.files), self.files[0]).location

    @property
    def locations(self) -> tuple[Location, ...]:
        """Where each of its files is."""
        return tuple(file.location for file in self.files)


def read_records(
    items: pa.Table, numbers: Sequence[int] | Numbers, companions: pa.Table | None = None
) -> list[ItemRecord]:
    """Return these rows of an items table, in this order, with their rows of a companions table."""
    columns = items.select(_COLUMNS)
    batches = columns.to_batches()
    starts = np.cumsum([0, *map(len, batches)])
    wanted = np.asarray(numbers, np.int64)
    found = np.searchsorted(starts, wanted, side="right") - 1
    # `Table.take` would first join all batches (10 ms for a million items), and a NumPy array of
    # rows to take would make pyarrow import pandas where it is installed.
    rows = [
        batches[batch].slice(row, 1)
        for batch, row in zip(found.tolist(), (wanted - starts[found]).tolist(), strict=True)
    ]
    return [
        ItemRecord(
            row["content_id"],
            tuple(map(IndexedFile.of, row["locations"])),
            row["width"],
            row["height"],
            row["format"],
            _companions(companions, number),
        )
        for number, row in zip(
            wanted.tolist(), pa.Table.from_batches(rows, columns.schema).to_pylist(), strict=True
        )
    ]


def _companions(companions: pa.Table | None, number: int) -> tuple[CompanionFile, ...]:
    """Return the companions of one item."""
    if companions is None or not len(companions):
        return ()
    first, last = np.searchsorted(companions["item"].to_numpy(), [number, number + 1]).tolist()
    rows = companions.slice(first, last - first).to_pylist()
    return tuple(CompanionFile(Kind(row["kind"]), IndexedFile.of(row)) for row in rows)
