"""Plain PNGs, decoded by libspng where it is installed: as a rule in 0.6 of Pillow's time.

Pillow opens them first, with all its limits, and reads what is not pixels. It also decodes what is
damaged or refused by libspng, so that damage is judged by one rule.
"""

from io import BytesIO

from PIL import Image, PngImagePlugin

from retrieval_pipeline.images.errors import ImageError
from retrieval_pipeline.images.formats import open_image, typed_errors
from retrieval_pipeline.images.png import is_sound, without_pixels

# The modes whose pixels Pillow stores as they are in the file, eight bits a channel.
PLAIN = ("L", "RGB", "RGBA")


def load_plain_png(data: bytes, image: Image.Image) -> Image.Image | None:
    """Decode a PNG that Pillow has opened.

    Args:
        data: The bytes of the file.
        image: The file, opened.

    Returns:
        The loaded image, with what the file says behind its pixels; None if Pillow is to decode.
    """
    try:
        import pyspng
    except ImportError:
        return None
    if not isinstance(image, PngImagePlugin.PngImageFile) or not _is_plain(image):
        return None
    if not is_sound(data):  # pyspng returns what it can read of damaged pixels, and says nothing
        return None
    try:
        pixels = Image.fromarray(pyspng.load(data))
    except RuntimeError:  # whatever libspng finds wrong
        return None
    if (pixels.mode, pixels.size) != (image.mode, image.size):
        return None
    try:
        with typed_errors():
            loaded = open_image(without_pixels(BytesIO(data)))
    except ImageError:
        return None
    loaded.im, loaded.tile = pixels.im, []  # type: ignore[attr-defined]
    return loaded


def _is_plain(image: PngImagePlugin.PngImageFile) -> bool:
    return (
        image.mode in PLAIN
        and [tile.args for tile in image.tile] == [image.mode]
        and "transparency" not in image.info
        and not image.is_animated
    )
