"""TIFF files: which page is the picture, and variants that Pillow would decode to wrong pixels."""

import struct
from contextlib import suppress
from dataclasses import dataclass
from io import BytesIO

from PIL import ExifTags, Image, TiffImagePlugin

from retrieval_pipeline.images.errors import ImageError, Reason

Tag = ExifTags.Base
Tiff = TiffImagePlugin.TiffImageFile

# NewSubfileType, bit 0: the page is a reduced version of another one (TIFF 6.0, section 8).
REDUCED = 1
# A first page without that bit is still taken for a preview if its longest edge is at most so many
# pixels, and a later page has the same shape and is so many times larger.
PREVIEW_EDGE = 256
PREVIEW_TIMES = 4
# Relative difference of two pages' width over height up to which they have the same shape.
SAME_SHAPE = 0.05

# Value of PlanarConfiguration.
PLANES = 2

# TIFF compressions that libtiff may have been built without.
OPTIONAL_CODECS = {"lzma", "webp", "zstd"}

# libtiff returns native byte order. Pillow handles that for unsigned 16-bit values only, and would
# swap the bytes of these modes in a big-endian file.
NATIVE = {"I;16BS": "I;16NS", "I;32B": "I;32N", "I;32BS": "I;32NS", "F;32BF": "F;32NF"}


@dataclass(frozen=True)
class _Page:
    """A page of a TIFF: the offset of its directory, its size in pixels, its flag of reduction."""

    offset: int
    size: tuple[int, int]
    reduced: bool


def prepared_tiff(data: bytes, image: Tiff) -> Tiff:
    """Return a TIFF at the page with its picture, so that loading it gives the right pixels.

    Args:
        data: The bytes of the file.
        image: The file as Pillow opened it.

    Raises:
        ImageError: It is a variant that is not read here.
        Exception: Whatever Pillow raises on a damaged header.
    """
    page = _better_page(data, image)
    if page is not None:
        data = _starting_at(data, page.offset)
        image = _opened(data)
    _check_codec(image)
    tags = image.tag_v2
    planes = tags.get(Tag.PlanarConfiguration) == PLANES and len(image.getbands()) > 1
    if planes and max(tags.get(Tag.BitsPerSample, (8,))) > 8:
        # Pillow's own decoder takes each value of an uncompressed plane for two.
        image = _opened(data, by_libtiff=True)
    image.tile = [
        tile._replace(args=(NATIVE.get(tile.args[0], tile.args[0]), *tile.args[1:]))
        if tile.codec_name == "libtiff" and isinstance(tile.args, tuple)
        else tile
        for tile in image.tile
    ]
    return image


def _better_page(data: bytes, image: Tiff) -> _Page | None:
    """Return the page with the picture, if the first page is only a preview of it, else None.

    Raises:
        ImageError: The picture is in no page that can be read.
    """
    first = _page_of(image, 0)
    if first.reduced:
        pages = [page for page in _further_pages(data) if not page.reduced]
        if not pages and (image.tag_v2.next or Tag.SubIFDs in image.tag_v2):
            raise ImageError(Reason.UNSUPPORTED, "only a preview of its picture can be read")
    elif max(first.size) <= PREVIEW_EDGE:
        pages = [p for p in _further_pages(data) if _shows_larger(p.size, first.size)]
    else:
        pages = []
    return max(pages, key=lambda page: page.size[0] * page.size[1], default=None)


def _page_of(image: Tiff, offset: int) -> _Page:
    kind = image.tag_v2.get(Tag.NewSubfileType, 0)
    return _Page(offset, image.size, isinstance(kind, int) and bool(kind & REDUCED))


def _shows_larger(size: tuple[int, int], small: tuple[int, int]) -> bool:
    shape, small_shape = size[0] / size[1], small[0] / small[1]
    same = abs(shape - small_shape) <= SAME_SHAPE * small_shape
    return same and size[0] >= PREVIEW_TIMES * small[0]


def _further_pages(data: bytes) -> list[_Page]:
    """Return the pages after the first, and those inside of it (SubIFDs), that Pillow can read."""
    image, pages = _opened(data), []
    inside = image.tag_v2.get(Tag.SubIFDs, ())
    for offset in inside if isinstance(inside, tuple) else (inside,):
        # A page that Pillow cannot open is no candidate (see `typed_errors`).
        with suppress(Exception):
            pages.append(_page_of(_opened(_starting_at(data, offset)), offset))
    number = 0
    with suppress(EOFError):
        while True:
            number, offset = number + 1, image.tag_v2.next
            with suppress(SyntaxError):
                image.seek(number)
                pages.append(_page_of(image, offset))
    return pages


def _starting_at(data: bytes, offset: int) -> bytes:
    """Return the file with another first page: the header holds the offset of its directory."""
    order = "<" if data.startswith(b"II") else ">"
    place, kind = (8, "Q") if 43 in data[2:4] else (4, "I")  # BigTIFF has wider offsets
    start = struct.pack(order + kind, offset)
    return data[:place] + start + data[place + len(start) :]


def _opened(data: bytes, by_libtiff: bool = False) -> Tiff:
    TiffImagePlugin.READ_LIBTIFF = by_libtiff
    try:
        image = Image.open(BytesIO(data), formats=["TIFF"])
    finally:
        TiffImagePlugin.READ_LIBTIFF = False
    assert isinstance(image, TiffImagePlugin.TiffImageFile)
    return image


def _check_codec(image: Tiff) -> None:
    """Refuse a compression that this build of libtiff lacks.

    Decoding it would fail, too, but with no better message than "decoder error -2".
    """
    compression = image.info.get("compression")
    if compression in OPTIONAL_CODECS:
        try:
            Image.new("L", (1, 1)).save(BytesIO(), "TIFF", compression=compression)
        except OSError:
            raise ImageError(
                Reason.UNSUPPORTED, f"this build of libtiff lacks {compression} compression"
            ) from None
