"""RAW files that cameras might have written: TIFFs of a sensor's values, with previews."""

import struct
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

Pixels = npt.NDArray[np.uint8]
Tags = dict[int, tuple[int, Any]]

BYTE, ASCII, SHORT, LONG, RATIONAL, SIGNED_RATIONAL = 1, 2, 3, 4, 5, 10
# Struct codes of the types, and the bytes of one value.
_CODES = {BYTE: "B", SHORT: "H", LONG: "I", RATIONAL: "I", SIGNED_RATIONAL: "i"}

# From XYZ to the colours of a made-up sensor, which sees sRGB (IEC 61966-2-1).
COLOURS = (3.240969, -1.537383, -0.498611, -0.969243, 1.875966, 0.041555, 0.05563, -0.203976, 1.0)
WHITE = 4095


@dataclass
class Page:
    """A page of a TIFF: its tags, its one strip, and the pages inside (SubIFDs)."""

    tags: Tags
    strip: bytes
    inside: list["Page"] = field(default_factory=list)


def tiff_of(page: Page) -> bytes:
    """A little-endian TIFF whose first page is this one."""
    out = bytearray(b"II\x2a\0\0\0\0\0")
    struct.pack_into("<I", out, 4, _append(out, page))
    return bytes(out)


def _append(out: bytearray, page: Page) -> int:
    """Append a page and what it holds; return the offset of its directory."""
    tags = dict(page.tags)
    if page.inside:
        tags[330] = (LONG, [_append(out, each) for each in page.inside])
    out += b"\0" * (len(out) % 2)
    tags |= {273: (LONG, [len(out)]), 279: (LONG, [len(page.strip)])}
    out += page.strip
    entries = []
    for tag, (kind, value) in sorted(tags.items()):
        if kind == ASCII:
            data, count = value.encode() + b"\0", len(value) + 1
        else:
            data = struct.pack(f"<{len(value)}{_CODES[kind]}", *value)
            count = len(value) // (2 if kind in (RATIONAL, SIGNED_RATIONAL) else 1)
        if len(data) > 4:
            out += b"\0" * (len(out) % 2)
            data, place = struct.pack("<I", len(out)), data
            out += place
        entries.append(struct.pack("<HHI", tag, kind, count) + data.ljust(4, b"\0"))
    out += b"\0" * (len(out) % 2)
    start = len(out)
    out += struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return start


def scene(width: int, height: int) -> Pixels:
    """A picture without symmetry: red at the upper left, blue at the lower right, else grey."""
    pixels = np.full((height, width, 3), 128, np.uint8)
    pixels[: height // 3, : width // 3] = (255, 0, 0)
    pixels[-height // 3 :, -width // 3 :] = (0, 0, 255)
    return pixels


def jpeg_of(pixels: Pixels, orientation: int | None = None) -> bytes:
    """A JPEG; `orientation` goes into an EXIF block of its own."""
    buffer, exif = BytesIO(), Image.Exif()
    if orientation:
        exif[274] = orientation
    Image.fromarray(pixels).save(buffer, "JPEG", exif=exif if orientation else b"")
    return buffer.getvalue()


def raw_file(
    pixels: Pixels,
    *,
    preview: bytes | None = None,
    orientation: int = 1,
    maker: str | None = None,
    thumbnail: bool = True,
) -> bytes:
    """A RAW file of what a sensor with red, green and blue filters saw of these pixels.

    Args:
        pixels: The scene, as the sensor was held.
        preview: A JPEG to put in.
        orientation: How to turn the sensor's picture, as in EXIF.
        maker: The maker of the camera, whose own format it becomes; None makes it a DNG.
        thumbnail: Whether the first page is a thumbnail, as in most RAW files.
    """
    height, width, _ = pixels.shape
    about: Tags = {
        271: (ASCII, maker or "Made Up"),
        272: (ASCII, "Camera One"),
        274: (SHORT, [orientation]),
    }
    if maker is None:
        matrix = [part for value in COLOURS for part in (round(value * 1e6), 1_000_000)]
        about |= {
            50706: (BYTE, [1, 4, 0, 0]),
            50708: (ASCII, "Camera One"),
            50721: (SIGNED_RATIONAL, matrix),
            50728: (RATIONAL, [1, 1] * 3),
            50778: (SHORT, [21]),
        }
    sensor = Page(
        {
            **_image_tags(width, height, 16, 1, compression=1, photometric=32803),
            33421: (SHORT, [2, 2]),
            33422: (BYTE, [0, 1, 1, 2]),
            50714: (SHORT, [0]),
            50717: (SHORT, [WHITE]),
        },
        _mosaic(pixels).tobytes(),
    )
    inside = [sensor]
    if preview is not None:
        with Image.open(BytesIO(preview)) as image:
            tags = _image_tags(*image.size, 8, 3, compression=7, photometric=6)
        inside.append(Page({**tags, 254: (LONG, [1])}, preview))
    if not thumbnail:
        sensor.tags |= about
        sensor.inside = inside[1:]
        return tiff_of(sensor)
    small = np.asarray(Image.fromarray(pixels).resize((160, 120)))
    tags = _image_tags(160, 120, 8, 3, compression=1, photometric=2)
    return tiff_of(Page({**tags, **about, 254: (LONG, [1])}, small.tobytes(), inside))


def _image_tags(
    width: int, height: int, bits: int, samples: int, *, compression: int, photometric: int
) -> Tags:
    return {
        254: (LONG, [0]),
        256: (LONG, [width]),
        257: (LONG, [height]),
        258: (SHORT, [bits] * samples),
        259: (SHORT, [compression]),
        262: (SHORT, [photometric]),
        277: (SHORT, [samples]),
        278: (LONG, [height]),
        284: (SHORT, [1]),
    }


def _mosaic(pixels: Pixels) -> npt.NDArray[np.uint16]:
    """What a sensor behind filters RG/GB saw: uint16 (height, width), linear."""
    linear = ((np.arange(256) / 255) ** 2.2 * WHITE).astype("<u2")[pixels]
    mosaic = linear[..., 1].copy()
    mosaic[0::2, 0::2] = linear[0::2, 0::2, 0]
    mosaic[1::2, 1::2] = linear[1::2, 1::2, 2]
    return mosaic
