"""JPEGs whose data end early: the part that can be seen, as every viewer shows it."""

from collections.abc import Callable

import numpy as np
from PIL import Image, JpegImagePlugin

# Share of the rows that must be there: a picture is not known by less.
LEAST_ROWS = 0.9

# Two ways in which the data might go on. What does not depend on them is there. The second one is
# long enough for some blocks of any picture, and holds no marker (0xFF).
END = b"\xff\xd9"
TAILS = (END, bytes(range(255)) * 16 + END)


def is_cut(image: Image.Image, error: Exception) -> bool:
    """Tell whether loading an image failed because the data of a JPEG end early."""
    is_jpeg = isinstance(image, JpegImagePlugin.JpegImageFile)
    return is_jpeg and isinstance(error, OSError) and "truncated" in str(error)


def load_cut(
    data: bytes, opened: Callable[[bytes], Image.Image], *, partial: bool = False
) -> tuple[Image.Image, int] | None:
    """Load what there is of a JPEG.

    Args:
        data: The bytes of the file.
        opened: Opens the bytes of a file, so that it can be loaded.
        partial: True to take however few rows there are, to be looked at.

    Returns:
        The image and how many of its rows are there; None if they are too few. Of a progressive
        JPEG, whose scans each cover all rows, only the end marker may be missing.
    """
    # A marker may have been cut in two.
    image, other = (opened(data.rstrip(b"\xff") + tail) for tail in TAILS)
    image.load()
    other.load()
    if partial and "progressive" in image.info:
        return image, image.height
    differ = (np.asarray(image) != np.asarray(other)).reshape(image.height, -1).any(axis=1)
    rows = int(differ.argmax()) if differ.any() else image.height
    share = 1.0 if "progressive" in image.info else LEAST_ROWS
    least = 1 if partial else share * image.height
    return (image, rows) if rows >= least else None
