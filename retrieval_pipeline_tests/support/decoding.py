"""Decoding in the test's own process, under the settings of Pillow that a decode worker has."""

import struct
import zlib
from pathlib import Path

from PIL import Image

from retrieval_pipeline.images import decode as decode_module
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.images.pictures import encoded
from retrieval_pipeline.images.read import read_bytes
from retrieval_pipeline.images.transform import Decoded, Fit, ImageTransform

# No picture is larger, so that it is not resized.
WHOLE = Fit(1_000_000)


def decode(
    source: bytes | str | Path, transform: ImageTransform | Fit, limits: Limits | None = None
) -> Decoded:
    limits = limits or Limits()
    data = source if isinstance(source, bytes) else read_bytes(source, limits)
    with decode_module.pillow_within(limits):
        return decode_module.decode(data, transform, limits)


def open_upright(source: bytes | str | Path, limits: Limits | None = None) -> Image.Image:
    """The picture in full size."""
    return Image.fromarray(decode(source, WHOLE, limits).pixels)


def thumbnail(source: bytes | str | Path, size: int) -> bytes:
    """A PNG of the picture within `size` x `size` pixels."""
    return encoded(decode(source, Fit(size)).pixels, "PNG")


def png_of(*chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of these chunks, each with its checksum."""
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        for kind, body in chunks
    )


def one_bit_png(size: int) -> bytes:
    """A PNG that is small on disk and takes a byte for each of its pixels in memory."""
    header = struct.pack(">IIBBBBB", size, size, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes((size // 8 + 1) * size), 1)
    return png_of((b"IHDR", header), (b"IDAT", rows), (b"IEND", b""))
