"""Views: rectangular parts of a picture that have a vector of their own beside the picture's.

An encoder looks at a small square. Of a panorama it sees the middle, or all of it squashed; an
object at the edge is lost either way. This module says which further parts to look at.
"""

import functools
import math
from dataclasses import astuple, dataclass
from itertools import product
from typing import Literal

# Which views the pictures of a source get; each kind has the views of the one before, and more.
Views = Literal["centre", "whole", "tiles"]
KINDS: tuple[Views, ...] = ("centre", "whole", "tiles")

# A picture is long if its longer edge is at least so many times its shorter one: then the square in
# its middle shows half of it or less. Not quite 2, for what was cropped to 2:1 by hand.
LONG = 1.95
# Neighbouring crops share at least this part of a crop, so that an object of that size which lies
# on the edge of one crop is whole in the next.
OVERLAP = 1 / 3
# The most crops in a row. A longer picture gets longer crops, which are squashed to squares.
MOST_IN_ROW = 16
# Tiles are so large, as a share of the picture's edge: two of them overlap by a third of a tile.
TILE = 0.6


@dataclass(frozen=True, order=True)
class View:
    """A rectangular part of an upright picture, in fractions of the picture's width and height.

    Attributes:
        x: Left edge, 0 to 1.
        y: Upper edge, 0 to 1.
        width: More than 0; x + width is at most 1.
        height: More than 0; y + height is at most 1.
    """

    x: float
    y: float
    width: float
    height: float

    def __str__(self) -> str:
        return ",".join(f"{value:.3g}" for value in astuple(self))


@functools.lru_cache(4096)
def further_views(width: int, height: int, kind: Views, own_is_cropped: bool) -> tuple[View, ...]:
    """Return the views of a picture beside the picture itself, left to right and top to bottom.

    "centre" gives none. "whole" gives a long picture (see LONG) a row of square crops that cover
    it. "tiles" adds two rows of smaller squares to a long picture, and gives any other picture a
    grid of 2 x 2 tiles. Crops and tiles overlap.

    Args:
        width: Of the upright picture, in pixels.
        height: Of the upright picture, in pixels.
        kind: Which views.
        own_is_cropped: Whether the encoder's view of the picture itself is the square in its
            middle, and not all of it: then no crop repeats that square.
    """
    if kind == "centre":
        return ()
    longer, shorter = max(width, height), min(width, height)
    if longer < LONG * shorter:
        if kind == "whole":
            return ()
        starts = (0.0, 1 - TILE)
        return tuple(View(x, y, TILE, TILE) for y, x in product(starts, starts))
    ratio = longer / shorter
    crops = _row(ratio)
    if own_is_cropped and len(crops) % 2:
        del crops[len(crops) // 2]
    # Along the longer edge and across it: where a view starts, and how long it is.
    spans = [(start, length, 0.0, 1.0) for start, length in crops]
    if kind == "tiles":
        tiles = product((0.0, 1 - TILE), _row(ratio / TILE))
        spans += [(start, length, across, TILE) for across, (start, length) in tiles]
    if width >= height:
        return tuple(View(x, y, long, wide) for x, long, y, wide in spans)
    return tuple(View(x, y, wide, long) for y, long, x, wide in spans)


def _row(ratio: float) -> list[tuple[float, float]]:
    """Return where each of the squares starts that cover a strip from end to end, and its length.

    Both are shares of the strip's length, which is `ratio` times the edge of a square.
    """
    step = 1 - OVERLAP
    count = math.ceil((ratio - 1) / step) + 1
    length = 1 / ratio
    if count > MOST_IN_ROW:
        count, length = MOST_IN_ROW, 1 / ((MOST_IN_ROW - 1) * step + 1)
    return [(number * (1 - length) / (count - 1), length) for number in range(count)]


def squared(view: View, width: int, height: int) -> View:
    """Return the smallest square around a view, as far as the picture has one.

    An encoder's input is square: in the square, what the view shows keeps its shape. A view that is
    longer than the picture's shorter edge is widened to that edge, and squashed.

    Args:
        view: Of a picture.
        width: Of the upright picture, in pixels.
        height: Of the upright picture, in pixels.
    """
    edge = max(view.width * width, view.height * height)
    x, new_width = _widened(view.x, view.width, edge / width)
    y, new_height = _widened(view.y, view.height, edge / height)
    return View(x, y, new_width, new_height)


def _widened(start: float, length: float, wanted: float) -> tuple[float, float]:
    """Return a span of 0..1 of the wanted length, or of 1, around another one's middle."""
    wanted = min(wanted, 1.0)
    return min(max(start + (length - wanted) / 2, 0.0), 1 - wanted), wanted
