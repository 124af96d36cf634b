"""Which JPEGs a GPU may decode: those of plain colours and of bounded size, told by the header.

Runs in decode workers only.
"""

from typing import Any

from PIL.JpegImagePlugin import JpegImageFile

from retrieval_pipeline.facts.embedded import embedded_facts
from retrieval_pipeline.facts.model import to_json
from retrieval_pipeline.images.color import srgb_transform
from retrieval_pipeline.images.decode import orientation_of
from retrieval_pipeline.images.errors import ImageError
from retrieval_pipeline.images.formats import open_image, typed_errors
from retrieval_pipeline.images.orientation import LAID_DOWN, TURNS
from retrieval_pipeline.images.transform import RESIZED_PIXELS, ImageTransform, resized_size
from retrieval_pipeline.views import View, Views

# Smaller pictures take a worker less time than handing them on; larger ones take too much of the
# memory of a device that also encodes: 1.2 GB while it is resized.
LEAST_PIXELS, MOST_PIXELS = 2_000_000, 100_000_000

START, END = b"\xff\xd8", b"\xff\xd9"


def header_for_device(
    data: bytes, transform: ImageTransform, views: Views | tuple[View, ...]
) -> dict[str, Any] | None:
    """Return what a worker answers of a JPEG that the device may decode; None for all other files.

    Must be called within `decode.pillow_within`, which refuses too many pixels.
    """
    if views != "centre" or not data.startswith(START):
        return None
    try:
        with typed_errors():
            image = open_image(data)
    except ImageError:
        return None  # the worker's own decoder says why
    if not isinstance(image, JpegImageFile) or image.fp is None:
        return None
    width, height = image.size
    new_width, new_height = resized_size(width, height, transform.resize)
    profile = image.info.get("icc_profile")
    suits = (
        (image.mode, image.bits) == ("RGB", 8)
        and image.info.get("adobe_transform") != 0  # the colours are stored as RGB
        and LEAST_PIXELS <= width * height <= MOST_PIXELS
        and new_width * new_height <= RESIZED_PIXELS
        and not (profile and srgb_transform(profile, "RGB"))
        # Behind the header; without it, the end of the picture is missing.
        and data.find(END, image.fp.tell()) >= 0
    )
    if not suits:
        return None
    orientation = orientation_of(image)
    if orientation in LAID_DOWN:
        width, height = height, width
    return {
        "orientation": orientation if orientation in TURNS else 1,
        "width": width,
        "height": height,
        "format": image.format,
        "facts": to_json(embedded_facts(image)),
    }
