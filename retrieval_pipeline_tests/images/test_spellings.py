"""Every extension that is looked at by default has a decoder, which survives hostile bytes."""

import contextlib
import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval_pipeline.config.extensions import PICTURES
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.formats import readable_formats
from retrieval_pipeline.images.transform import Fit
from retrieval_pipeline_tests.support.decoding import WHOLE, decode
from retrieval_pipeline_tests.support.raw_files import scene

SIZE = (64, 48)
# The name that Pillow saves each under; beside its own, where one extension means several.
SAVED_AS = {
    **dict.fromkeys((".jpg", ".jpeg", ".jpe", ".jif", ".jfif"), "JPEG"),
    **dict.fromkeys((".heic", ".heif", ".heics", ".heifs", ".hif"), "HEIF"),
    **dict.fromkeys((".avif", ".avifs"), "AVIF"),
    **dict.fromkeys((".jp2", ".j2k", ".jpf", ".jpx"), "JPEG2000"),
    **dict.fromkeys((".ppm", ".pgm", ".pbm"), "PPM"),
    **dict.fromkeys((".tif", ".tiff"), "TIFF"),
    **dict.fromkeys((".png", ".apng"), "PNG"),
    **{".mpo": "MPO", ".gif": "GIF", ".webp": "WEBP", ".bmp": "BMP", ".dib": "DIB", ".jxl": "JXL"},
    **{".ico": "ICO", ".tga": "TGA", ".dds": "DDS", ".qoi": "QOI", ".psd": "PSD"},
}
# Of these, two pictures in one file are the usual.
SEQUENCES = {".mpo", ".apng", ".heics", ".heifs", ".avifs", ".gif"}


def picture_of(extension: str) -> bytes:
    format = SAVED_AS[extension]
    pixels = scene(*SIZE)
    if format == "PSD":
        head = struct.pack(">4sH6xHIIHH", b"8BPS", 1, 3, SIZE[1], SIZE[0], 8, 3)
        return head + bytes(12) + bytes(2) + pixels.transpose(2, 0, 1).tobytes()
    image = Image.fromarray(pixels)
    mode = {".pgm": "L", ".pbm": "1"}.get(extension)
    image = image.convert(mode) if mode else image
    options: dict[str, Any] = {}
    if extension in SEQUENCES:
        options = {"save_all": True, "append_images": [image.rotate(180)]}
    if format == "ICO":
        options = {"sizes": [SIZE]}
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


@pytest.mark.parametrize("extension", sorted(PICTURES))
def test_a_file_of_each_extension_is_decoded_and_its_damage_is_typed(extension: str) -> None:
    readable_formats()  # registers the decoders
    data = picture_of(extension)
    decoded = decode(data, WHOLE)
    assert (decoded.width, decoded.height) == SIZE
    assert decoded.format == SAVED_AS[extension]
    if extension != ".pbm":
        upper, lower = decoded.pixels[4, 4].astype(int), decoded.pixels[-4, -4].astype(int)
        assert (abs(upper - lower) > 30).any(), "the first picture, upright"
    rng = np.random.default_rng(1)
    for _ in range(20):
        damaged = bytearray(data[: rng.integers(1, len(data) + 1)])
        for _ in range(rng.integers(1, 9)):
            damaged[rng.integers(len(damaged))] = rng.integers(256)
        with contextlib.suppress(ImageError):
            decode(bytes(damaged), Fit(30), Limits(pixels=1_000_000))
