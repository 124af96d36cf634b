"""RAW files as pictures: their preview if it is large enough, else developed by LibRaw."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from io import BytesIO
from typing import TYPE_CHECKING

from PIL import ExifTags, Image

from retrieval_pipeline.images.errors import ImageError, Limits, Reason, out_of_memory, too_large
from retrieval_pipeline.images.extras import FORMATS_EXTRA, can_read_raw
from retrieval_pipeline.images.orientation import LAID_DOWN
from retrieval_pipeline.images.transform import Size, UprightImage

if TYPE_CHECKING:
    import rawpy

# The preview that a camera or converter puts into a RAW file is taken for the picture if its longer
# edge has at least so many pixels, and as many as are wanted. That is twice what most encoders look
# at; smaller ones are thumbnails, some with black bars.
LEAST_PREVIEW_EDGE = 1024

# EXIF orientation by LibRaw's `flip`, whose bits are: mirror, turn upside down, swap the axes.
ORIENTATIONS = (1, 2, 4, 3, 5, 8, 6, 7)
SWAPS_AXES = 4

# Relative difference of width and height up to which a picture counts as square.
SQUARE = 0.05

# Decodes the bytes of an image file, under this EXIF orientation instead of its own.
LoadPreview = Callable[[bytes, int], UprightImage]


def load_raw(
    data: bytes,
    limits: Limits,
    wanted: Callable[[int, int], Size] | None,
    load_preview: LoadPreview,
) -> UprightImage:
    """Return the picture of a RAW file: its preview if that is large enough, else developed.

    It is developed with LibRaw's defaults and the camera's white balance, to sRGB; at half the size
    where that is enough, which is several times faster. Width and height are those of the developed
    picture; a preview of another shape keeps the longer edge.

    Args:
        data: The bytes of the file.
        limits: Bounds for the file.
        wanted: Maps the (width, height) of the picture to the size that it must have at least; None
            wants every pixel.
        load_preview: Decodes a preview.

    Raises:
        ImageError: The file cannot be used, or rawpy is not installed.
    """
    if not can_read_raw():
        raise ImageError(
            Reason.UNSUPPORTED,
            f'RAW pictures need the Python package rawpy: pip install "{FORMATS_EXTRA}"',
        )
    with _opened(data, limits) as raw:
        width, height = raw.sizes.width, raw.sizes.height
        size = (height, width) if raw.sizes.flip & SWAPS_AXES else (width, height)
        least = wanted(*size) if wanted else size
        edge = min(max(*least, LEAST_PREVIEW_EDGE), max(size))
        picture = _preview(raw, size, edge, load_preview)
        if picture is None:
            picture = _developed(raw, size, least)
    return picture


def _preview(
    raw: "rawpy.RawPy", size: Size, edge: int, load_preview: LoadPreview
) -> UprightImage | None:
    """Return the upright preview; None if there is none whose longer edge has `edge` pixels.

    LibRaw hands out the largest preview, and writes the RAW file's orientation into a JPEG that has
    none. Some cameras turn the preview's pixels themselves and leave that orientation in place, or
    the other way round: an orientation counts only if it gives the shape of the developed picture.
    """
    # A preview that is damaged or in another format is none: there are the sensor's values.
    with suppress(Exception):
        data = raw.extract_thumb().data
        if not isinstance(data, bytes):
            buffer = BytesIO()
            Image.fromarray(data).save(buffer, "PPM")
            data = buffer.getvalue()
        with Image.open(BytesIO(data), formats=["JPEG", "PPM"]) as image:
            stored, own = image.size, image.getexif().get(ExifTags.Base.Orientation, 1)
        if max(stored) >= edge:
            candidates = (own, ORIENTATIONS[raw.sizes.flip & 7], 1)
            fitting = (each for each in candidates if _has_shape(_turned(stored, each), size))
            found = load_preview(data, next(fitting, own))
            scale = max(size) / max(found.width, found.height)
            width, height = round(found.width * scale), round(found.height * scale)
            return replace(found, width=width, height=height)
    return None


def _turned(size: Size, orientation: int) -> Size:
    return (size[1], size[0]) if orientation in LAID_DOWN else size


def _has_shape(size: Size, wanted: Size) -> bool:
    """Tell whether two pictures are both higher than wide, or both wider; squares are either."""
    slants = [width / height - 1 for width, height in (size, wanted)]
    return slants[0] * slants[1] > 0 or min(map(abs, slants)) < SQUARE


def _developed(raw: "rawpy.RawPy", size: Size, least: Size) -> UprightImage:
    """Return the picture as LibRaw develops and turns it, of no less than the size `least`."""
    half = size[0] // 2 >= least[0] and size[1] // 2 >= least[1]
    pixels = raw.postprocess(half_size=half, use_camera_wb=True, output_bps=8)
    image = Image.fromarray(pixels.squeeze()).convert("RGB")
    return UprightImage(image, (0, 0, *image.size), *size, format="")


@contextmanager
def _opened(data: bytes, limits: Limits) -> "Iterator[rawpy.RawPy]":
    """Open a RAW file, and turn what LibRaw raises until the context ends into an ImageError."""
    import rawpy

    try:
        with rawpy.imread(BytesIO(data)) as raw:
            width, height = raw.sizes.raw_width, raw.sizes.raw_height
            if width * height > limits.pixels:
                raise too_large(f"{width:,} x {height:,} pixels; {limits.pixels:,} are allowed")
            yield raw
    except (
        MemoryError,
        rawpy.LibRawUnsufficientMemoryError,
        rawpy.LibRawTooBigError,
        rawpy.LibRawMemPoolOverflowError,
    ):
        raise out_of_memory() from None
    except (rawpy.LibRawFileUnsupportedError, rawpy.LibRawNotImplementedError):
        version = ".".join(map(str, rawpy.libraw_version))
        detail = f"LibRaw {version} does not read RAW files of this kind"
        raise ImageError(Reason.UNSUPPORTED, detail) from None
    except rawpy.LibRawError as error:
        (detail,) = error.args
        detail = f"the data are damaged or end early ({detail.decode(errors='replace')})"
        raise ImageError(Reason.TRUNCATED, detail) from None
