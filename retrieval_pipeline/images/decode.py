"""Decoding: from the bytes of an image file to upright sRGB pixels of the wanted size.

Runs in decode workers only, where a hostile file harms nobody: everything else asks `pictures` or
a `DecodePool`.
"""

import functools
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from PIL import ExifTags, Image, TiffImagePlugin

from retrieval_pipeline.config.extensions import DAMAGED
from retrieval_pipeline.facts.embedded import embedded_facts
from retrieval_pipeline.facts.model import PictureFacts, ReadFacts
from retrieval_pipeline.images.color import eight_bit, to_srgb
from retrieval_pipeline.images.cut_jpeg import is_cut, load_cut
from retrieval_pipeline.images.errors import ImageError, Limits, Reason, out_of_memory
from retrieval_pipeline.images.formats import open_image, typed_errors
from retrieval_pipeline.images.header import read_facts
from retrieval_pipeline.images.libspng import load_plain_png
from retrieval_pipeline.images.orientation import upright
from retrieval_pipeline.images.raw import load_raw
from retrieval_pipeline.images.raw_format import raw_format
from retrieval_pipeline.images.tiff import prepared_tiff
from retrieval_pipeline.images.transform import (
    Decoded,
    Fit,
    ImageTransform,
    Size,
    UprightImage,
    fitted,
    shrink_limit,
    transformed,
    transformed_view,
)
from retrieval_pipeline.views import View, Views, further_views

# Bytes of memory per pixel that the most expensive decoder takes: JPEG 2000, an int32 a channel.
WORKING_BYTES = 16

# Box-reduce only down to this many times the shrink limit: a box filter is less accurate than the
# scaling of the JPEG decoder.
BOX_MARGIN = 2


@contextmanager
def pillow_within(limits: Limits) -> Iterator[None]:
    """Set Pillow's limit of pixels and silence its warnings, both global, until the context ends.

    `decode` must be called inside. Pillow also applies the limit to pictures within containers.
    """
    former = Image.MAX_IMAGE_PIXELS
    # Pillow refuses what has more than twice this number, and warns of half of that.
    Image.MAX_IMAGE_PIXELS = limits.pixels // 2
    try:
        with warnings.catch_warnings():
            # A damaged file is reported by a typed error or not at all.
            warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif|pillow_jxl)\b")
            yield
    finally:
        Image.MAX_IMAGE_PIXELS = former


def decode(
    data: bytes,
    transform: ImageTransform | Fit,
    limits: Limits,
    views: Views | tuple[View, ...] = "centre",
    *,
    named_raw: bool = False,
) -> Decoded:
    """Decode the (first) picture of an image file and apply `transform`.

    For an encoder, the facts of the picture are read as well.

    Args:
        data: The bytes of the file.
        transform: What becomes of the picture.
        limits: Those of the surrounding `pillow_within`.
        views: The kind of further views, or nothing but these views; an ImageTransform makes them.
        named_raw: Whether the file's name has the extension of a RAW format.

    Raises:
        ImageError: The image cannot be used.
    """
    shrinkable = shrink_limit(transform)
    with_facts = isinstance(transform, ImageTransform)
    format = raw_format(data, named_raw)
    if format is None:
        partial = isinstance(transform, Fit) and transform.partial
        picture = _load(data, limits, shrinkable, with_facts=with_facts, partial=partial)
    else:
        picture = load_raw(
            data,
            limits,
            shrink_limit(transform, times=1),
            lambda preview, turn: _load(preview, limits, shrinkable, turn),
        )
        facts = _facts_of_raw(data, limits) if with_facts else None
        picture = replace(picture, format=format, facts=facts)
    told = picture.width, picture.height, picture.format, picture.facts
    try:
        if isinstance(transform, Fit):
            return Decoded(np.asarray(fitted(picture, transform)), *told)
        pixels = transformed(picture, transform)
        wanted = (
            further_views(picture.width, picture.height, views, transform.crop is not None)
            if isinstance(views, str)
            else views
        )
        view_pixels = tuple(transformed_view(picture, transform, view) for view in wanted)
    except MemoryError:
        raise out_of_memory() from None
    return Decoded(pixels, *told, wanted, view_pixels, views_only=not isinstance(views, str))


def _facts(image: Image.Image, data: bytes) -> PictureFacts:
    """Return the facts of a loaded image: a PNG may have texts behind its pixels.

    A TIFF is opened again, since loading has turned it upright and forgotten how it was.
    """
    return embedded_facts(open_image(data) if image.format == "TIFF" else image)


def _facts_of_raw(data: bytes, limits: Limits) -> PictureFacts:
    try:
        return read_facts(data, ReadFacts(), limits)
    except ImageError as error:
        return PictureFacts(problems=(f"header: {error.reason.spoken}",))


def _load(
    data: bytes,
    limits: Limits,
    shrinkable: Callable[[int, int], Size] | None,
    orientation: int | None = None,
    *,
    with_facts: bool = False,
    partial: bool = False,
) -> UprightImage:
    """Open, decode, convert to sRGB and turn upright.

    Args:
        data: The bytes of the file.
        limits: Bounds for the file.
        shrinkable: Maps the (width, height) of the picture to the least size to which it may be
            shrunk; None keeps every pixel. It is called before the orientation is known, so
            swapped arguments must give swapped results.
        orientation: How to turn it, as in EXIF; None asks its own EXIF.
        with_facts: Whether to read the facts.
        partial: Whether any part of a JPEG whose data end early will do.
    """
    if not data:
        raise ImageError(Reason.NOT_AN_IMAGE, "the file is empty")
    with typed_errors():
        image = open_image(data)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            image = prepared_tiff(data, image)
    width, height = image.size
    with typed_errors(large=width * height * WORKING_BYTES > limits.memory_mb << 20):
        least = shrinkable(width, height) if shrinkable else None
        drafted = image.draft(None, least) if least else None
        format = image.format or ""
        try:
            image = load_plain_png(data, image) or image
            image.load()
            rows = image.height
        except OSError as error:
            if not is_cut(image, error):
                raise
            cut = load_cut(data, functools.partial(_drafted, least), partial=partial)
            if cut is None:
                raise
            image, rows = cut
            format += DAMAGED
        if drafted:
            x_extent, y_extent = drafted[1][2:]
        else:  # an icon knows the size of its picture only now
            width, height = x_extent, y_extent = image.size
        facts = _facts(image, data) if with_facts else None
        turn = orientation_of(image) if orientation is None else orientation
        profile = image.info.get("icc_profile")
        if rows < image.height:
            height = round(height * rows / y_extent)
            y_extent = rows
            image = image.crop((0, 0, image.width, rows))
        image = eight_bit(image)
        if shrinkable:
            least_width, least_height = shrinkable(width, height)
            factor = min(image.width // least_width, image.height // least_height) // BOX_MARGIN
            if factor > 1:
                image = image.reduce(factor)
                x_extent, y_extent = x_extent / factor, y_extent / factor
        image = to_srgb(image, profile)
        picture = UprightImage(image, (0, 0, x_extent, y_extent), width, height, format)
        return replace(upright(picture, turn), facts=facts)


def _drafted(least: Size | None, data: bytes) -> Image.Image:
    """Open an image, to be scaled while it is decoded, to no less than (width, height)."""
    image = open_image(data)
    if least:
        image.draft(None, least)
    return image


def orientation_of(image: Image.Image) -> object:
    """Return the EXIF orientation of a loaded image; any value but 2 to 8 means upright."""
    # A JPEG XL stores its pixels upright, whatever its EXIF says, unless it is a repacked JPEG.
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return None
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    # On damaged data the EXIF parser raises as many types as the decoders do (see typed_errors). A
    # picture without a readable orientation is taken to be upright.
    except Exception:  # noqa: BLE001
        return None
