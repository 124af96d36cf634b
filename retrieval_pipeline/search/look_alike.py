"""Whether two pictures look the same: their grey values on a coarse grid, whatever they show.

Vectors tell what a picture shows, and two photographs of one kind of flower can have the same one.
Copies that were resized, re-encoded or brightened keep their light and dark places.
"""

import functools
from collections.abc import Callable

import numpy as np

from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.pictures import picture
from retrieval_pipeline.images.transform import Fit
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.vectors import Vectors

GRID = 16
# Correlation from which on two grids are of one picture (docs/benchmarks.md, "Near-duplicates").
SAME = 0.9
# Pixels of the longest edge from which the grid is averaged.
PIXELS = 64
# Grids to remember: 20 MB.
REMEMBERED = 20_000


class Looks:
    """Compares items of a build by their files; safe to call from several threads."""

    def __init__(self, build: Build, path_of: Callable[[Location], Place], limits: Limits) -> None:
        self._locations = build.items["locations"]
        self._content_ids = build.items["content_id"]
        self._path_of = path_of
        self._limits = limits
        self._look = functools.lru_cache(REMEMBERED)(self._read)

    def same(self, one: int, other: int) -> bool:
        """Tell whether two items look the same; what cannot be opened looks like nothing."""
        first, second = self._look(one), self._look(other)
        return first is not None and second is not None and float(first @ second) >= SAME

    def _read(self, number: int) -> Vectors | None:
        content = self._content_ids[number].as_py()
        for at in self._locations[number].as_py():
            path = self._path_of(Location(at["source"], at["path"]))
            try:
                return look_of(Job(path, content), self._limits)
            except ImageError:
                continue
        return None


def look_of(job: Job, limits: Limits) -> Vectors:
    """Return the grey values of a picture on a grid, float32 (GRID * GRID,), mean 0 and length 1.

    Raises:
        ImageError: The picture cannot be used.
    """
    from PIL import Image

    small = Image.fromarray(picture(job, Fit(PIXELS), limits).pixels)
    grid = small.convert("L").resize((GRID, GRID), Image.Resampling.BOX)
    values = np.asarray(grid, np.float32).reshape(-1)
    values = values - values.mean()
    length = np.linalg.norm(values)
    # Of one colour: alike as far as their vectors are.
    look: Vectors = values / length if length else np.full_like(values, 1 / GRID)
    return look
