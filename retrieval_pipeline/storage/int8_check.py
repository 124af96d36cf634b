"""What the check of eight bits found on the first pictures of a home, as a file beside the vectors.

The check itself is made by `ingest.int8_check`.
"""

from pathlib import Path

from pydantic import ValidationError

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.storage.atomic import replacing
from retrieval_pipeline.storage.reading import is_there, reading
from retrieval_pipeline.storage.stored_model import StoredModel

# What vectors of eight bits must reach: mean and least cosine to the faithful ones, and the share
# of each picture's nearest neighbours that stay.
MEAN_COSINE, LEAST_COSINE, KEPT_NEIGHBOURS = 0.995, 0.98, 0.95
# How many times as fast they must be to be taken without being asked for.
WORTHWHILE = 1.3


class Int8Check(StoredModel):
    """What was found, and whether eight bits are used.

    Attributes:
        pictures: Number of different pictures that were encoded in both formats.
        mean_cosine: Of the two vectors of a picture.
        least_cosine: Of the two vectors of a picture.
        kept_neighbours: Share of the ten nearest neighbours that stay, over all pictures.
        times_as_fast: Processor time of the other format over that of eight bits.
        other: The format of the faithful vectors, such as "float32".
        asked: Whether the settings asked for eight bits; else these must also be worthwhile.
    """

    pictures: int
    mean_cosine: float
    least_cosine: float
    kept_neighbours: float
    times_as_fast: float
    other: str
    asked: bool

    @property
    def is_faithful(self) -> bool:
        """Whether the vectors are near enough to the faithful ones."""
        return (
            self.mean_cosine >= MEAN_COSINE
            and self.least_cosine >= LEAST_COSINE
            and self.kept_neighbours >= KEPT_NEIGHBOURS
        )

    @property
    def is_used(self) -> bool:
        """Whether the pictures of the home are encoded in eight bits."""
        return self.is_faithful and (self.asked or self.times_as_fast >= WORTHWHILE)

    @property
    def line(self) -> str:
        """One line for people: which format was chosen, and why."""
        found = (
            f"on {self.pictures:,} pictures the mean cosine to {self.other} is "
            f"{self.mean_cosine:.4f}, the least {self.least_cosine:.4f}, "
            f"{self.kept_neighbours:.1%} of the nearest ten stay"
        )
        speed = f"{self.times_as_fast:.1f} times as fast"
        if not self.is_faithful:
            return (
                f"{self.other}: int8 was refused: {found} (needed: {MEAN_COSINE}, {LEAST_COSINE}, "
                f"{KEPT_NEIGHBOURS:.0%})"
            )
        if not self.is_used:
            return f"{self.other}: int8 is only {speed} here (needed: {WORTHWHILE}); {found}"
        return f"int8: {found}; {speed}"


def read_int8_check(file: Path) -> Int8Check | None:
    """Read what a check found; None if none was finished.

    Raises:
        StoreError: The file is damaged.
        UnreadableError: The file cannot be read.
    """
    if not is_there(file):
        return None
    try:
        with reading(file):
            return Int8Check.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        raise StoreError(f"{file}: damaged: remove it, and the next run checks again") from None


def write_int8_check(file: Path, check: Int8Check) -> None:
    """Write what a check found, durably.

    Raises:
        StoreError: The file system refused.
    """
    with replacing(file) as temporary:
        temporary.write_text(check.model_dump_json(indent=1), encoding="utf-8")
