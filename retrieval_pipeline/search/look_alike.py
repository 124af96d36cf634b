"""Whether two pictures look the same: first on a coarse grid, then in their details.

Vectors tell what a picture shows, and two photographs of one kind of flower can have the same one.
Copies that were resized, re-encoded or brightened keep their light and dark places and their
colours (the grid, of which thousands are remembered), and agree in their details
(`search/details.py`), which are compared where the grids are alike.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.pictures import picture
from retrieval_pipeline.images.transform import Fit
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.search.vector_index import VectorIndex, as_items
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.vectors import Vectors

if TYPE_CHECKING:
    from PIL import Image

GRID = 16
# Correlation from which on two grids may be of one picture (docs/benchmarks.md, "Near-duplicates").
SAME = 0.9
# Pixels of the longest edge from which the grid is averaged.
PIXELS = 64
# Grids to remember: 60 MB.
REMEMBERED = 20_000
# Grey pictures to remember for their details: 40 MB of the usual shape.
REMEMBERED_DETAILS = 200

# Standard deviation of the grey values up to which a grid is of one colour.
ONE_COLOUR = 1.0
# Levels by which the colours of such pictures may differ: losses of a JPEG.
SAME_COLOUR = 6.0
# Mean distance from grey, in levels, up to which a picture counts as grey: it may be a grey copy.
NO_COLOURS = 6.0
# Cosine of the colours of two pictures from which on they are those of one.
SAME_COLOURS = 0.5

Read = TypeVar("Read")


@dataclass(frozen=True)
class Look:
    """A picture on a coarse grid.

    Attributes:
        grey: Luma, float32 (GRID * GRID,), mean 0 and length 1; all 0 if it is of one colour.
        colours: Distances from grey in blue and red (CbCr), float32 (GRID * GRID * 2,), levels.
        mean: Mean of luma, blue and red (YCbCr), float32 (3,), levels.
    """

    grey: Vectors
    colours: Vectors
    mean: Vectors

    def like(self, other: Look) -> bool:
        """Tell whether two pictures may be one, as far as the grid tells."""
        if not (self.grey.any() and other.grey.any()):
            both = self.grey.any() == other.grey.any()
            return bool(both and np.abs(self.mean - other.mean).max() <= SAME_COLOUR)
        return bool(self.grey @ other.grey >= SAME) and self._coloured_like(other)

    def _coloured_like(self, other: Look) -> bool:
        """Tell whether the colours are the same, more or less; a copy may have none."""
        lengths = np.linalg.norm(self.colours), np.linalg.norm(other.colours)
        if min(lengths) <= NO_COLOURS * GRID:
            return True
        return bool(self.colours @ other.colours >= SAME_COLOURS * lengths[0] * lengths[1])


class Looks:
    """Compares items of an index by their files; safe to call from several threads."""

    def __init__(
        self, index: VectorIndex, path_of: Callable[[Location], Place], limits: Limits
    ) -> None:
        self._index = index
        self._path_of = path_of
        self._limits = limits
        self._look = functools.lru_cache(REMEMBERED)(self._read_look)
        self._details = functools.lru_cache(REMEMBERED_DETAILS)(self._read_details)

    def same(self, one: Any, other: Any) -> bool:
        """Tell whether two items look the same; what cannot be opened looks like nothing."""
        first, second = self._look(one), self._look(other)
        if first is None or second is None or not first.like(second):
            return False
        # Pillow, which few queries need, is imported with it.
        from retrieval_pipeline.search.details import agree

        left, right = self._details(one), self._details(other)
        return left is not None and right is not None and agree(left, right)

    def _read_look(self, item: Any) -> Look | None:
        return self._read(item, look_of)

    def _read_details(self, item: Any) -> Image.Image | None:
        return self._read(item, details_of)

    def _read(self, item: Any, read: Callable[[Job, Limits], Read]) -> Read | None:
        """Read the first of an item's files that can be opened."""
        record = self._index.records(as_items([item]))[0]
        for location in record.locations:
            try:
                return read(Job(self._path_of(location), record.content_id), self._limits)
            except ImageError:
                continue
        return None


def look_of(job: Job, limits: Limits) -> Look:
    """Return how a picture looks on a coarse grid.

    Raises:
        ImageError: The picture cannot be used.
    """
    from PIL import Image

    small = Image.fromarray(picture(job, Fit(PIXELS), limits).pixels)
    grid = small.convert("YCbCr").resize((GRID, GRID), Image.Resampling.BOX)
    values = np.asarray(grid, np.float32).reshape(-1, 3)
    mean = values.mean(0)
    grey = values[:, 0] - mean[0]
    if grey.std() <= ONE_COLOUR:
        grey = np.zeros_like(grey)
    else:
        grey /= np.linalg.norm(grey)
    return Look(grey, (values[:, 1:] - 128).ravel(), mean)


def details_of(job: Job, limits: Limits) -> Image.Image:
    """Return a picture in grey (mode L), as `details.agree` compares it.

    Raises:
        ImageError: The picture cannot be used.
    """
    from PIL import Image

    from retrieval_pipeline.search import details

    return Image.fromarray(picture(job, Fit(details.PIXELS), limits).pixels).convert("L")
