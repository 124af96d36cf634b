"""Files that every viewer shows although something is wrong with them."""

import struct
import zlib
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image

from retrieval_pipeline.images.errors import ImageError, Reason
from retrieval_pipeline.images.transform import Fit
from retrieval_pipeline_tests.support.decoding import WHOLE, decode, png_of

SIZE = (320, 240)


@pytest.fixture
def photo(sample_photos: dict[str, Path]) -> Image.Image:
    with Image.open(sample_photos["coffee"]) as image:
        return image.convert("RGB").resize(SIZE)


def jpeg(photo: Image.Image, **options: Any) -> bytes:
    buffer = BytesIO()
    photo.save(buffer, "JPEG", quality=90, **options)
    return buffer.getvalue()


def cut(data: bytes, share: float) -> bytes:
    """Leave so much of the data of a JPEG with one scan."""
    start = data.index(b"\xff\xda")
    return data[: start + round((len(data) - start) * share)]


def reason(data: bytes) -> Reason:
    with pytest.raises(ImageError) as caught:
        decode(data, WHOLE)
    return caught.value.reason


# JPEG


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_without_its_end_marker_is_whole_but_damaged(photo: Image.Image, mode: str) -> None:
    data = jpeg(photo.convert(mode))
    assert data.endswith(b"\xff\xd9")
    decoded = decode(data[:-2], WHOLE)
    assert (decoded.width, decoded.height, decoded.format) == (*SIZE, "JPEG (damaged)")
    np.testing.assert_array_equal(decoded.pixels, decode(data, WHOLE).pixels)


def test_of_a_jpeg_without_its_last_rows_the_others_are_seen(photo: Image.Image) -> None:
    data = jpeg(photo)
    whole, decoded = decode(data, WHOLE), decode(cut(data, 0.96), WHOLE)
    assert decoded.format == "JPEG (damaged)"
    assert 0.9 * 240 <= decoded.height < 240
    assert decoded.pixels.shape == (decoded.height, 320, 3)
    # The last rows before the cut lack those below for the smoothing of their colours.
    rows = decoded.height - 16
    np.testing.assert_array_equal(decoded.pixels[:rows], whole.pixels[:rows])


def test_what_is_seen_of_it_is_upright_and_shrunk(photo: Image.Image) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6  # the last rows lie on the left
    data = jpeg(photo.resize((1280, 960)), exif=exif)
    decoded, small = decode(cut(data, 0.96), WHOLE), decode(cut(data, 0.96), Fit(100))
    assert decoded.height == 1280
    assert 0.9 * 960 <= decoded.width < 960
    assert (small.width, small.height) == pytest.approx((decoded.width, 1280), abs=8)
    expected = Image.fromarray(decoded.pixels).resize(small.pixels.shape[1::-1])
    assert np.abs(np.asarray(expected, int) - small.pixels).mean() < 3


@pytest.mark.parametrize("share", [0.0, 0.5, 0.8])
def test_a_jpeg_that_lacks_more_cannot_be_used(photo: Image.Image, share: float) -> None:
    assert reason(cut(jpeg(photo), share)) == Reason.TRUNCATED


@pytest.mark.parametrize("progressive", [False, True])
def test_what_there_is_of_it_can_be_looked_at(photo: Image.Image, progressive: bool) -> None:
    data = jpeg(photo, progressive=progressive)
    shown = decode(data[: len(data) // 2], Fit(320, partial=True))
    assert shown.width == 320
    assert (shown.height == 240) is progressive
    assert shown.height > 50


def test_of_a_progressive_jpeg_only_the_end_marker_may_be_missing(photo: Image.Image) -> None:
    data = jpeg(photo, progressive=True)
    decoded = decode(data[:-2], WHOLE)
    assert decoded.format == "JPEG (damaged)"
    np.testing.assert_array_equal(decoded.pixels, decode(data, WHOLE).pixels)
    for missing in (40, len(data) // 10, len(data) // 2):
        assert reason(data[:-missing]) == Reason.TRUNCATED


@pytest.mark.parametrize(
    ("name", "format"),
    [("jpg_no_eoi", "JPEG (damaged)"), ("jpg_cut_10", "JPEG (damaged)"), ("jpg_cut_half", None)],
)
def test_jpegs_that_failed_once(shared_data: Path, name: str, format: str | None) -> None:
    path = shared_data / "field_cases" / "formats" / f"{name}.jpg"
    if format is None:
        assert reason(path.read_bytes()) == Reason.TRUNCATED
    else:
        assert decode(path, WHOLE).format == format


# PNG


def chunks_of(photo: Image.Image) -> list[tuple[bytes, bytes]]:
    buffer = BytesIO()
    photo.save(buffer, "PNG")
    data, start, chunks = buffer.getvalue(), 8, []
    while start < len(data):
        (length,) = struct.unpack_from(">I", data, start)
        chunks.append((data[start + 4 : start + 8], data[start + 8 : start + 8 + length]))
        start += 12 + length
    return chunks


def compressed(size: int) -> bytes:
    return zlib.compress(bytes(size))


@pytest.mark.parametrize(
    "odd",
    [
        (b"zTXt", b"Comment\0\0" + compressed(1_200_000)),
        (b"zTXt", b"Comment\0\0" + compressed(40_000_000)),
        (b"zTXt", b"Comment\0\7" + compressed(10)),
        (b"iTXt", b"Comment\0\1\0\0\0" + compressed(40_000_000)),
        (b"tEXt", b"Comment\0" + b"a" * 20_000_000),
        (b"iCCP", b"Profile\0\0" + compressed(1_200_000)),
        (b"iCCP", b"Profile\0\0" + compressed(40_000_000)),
        (b"sRGB", b""),
        (b"pHYs", b"\0\0"),
    ],
    ids=lambda odd: f"{odd[0].decode()} {len(odd[1])}",
)
@pytest.mark.parametrize("place", [1, -1])
def test_a_chunk_that_no_picture_needs_does_not_spoil_a_png(
    photo: Image.Image, odd: tuple[bytes, bytes], place: int
) -> None:
    chunks = chunks_of(photo)
    chunks.insert(place, odd)
    decoded = decode(png_of(*chunks), WHOLE)
    np.testing.assert_array_equal(decoded.pixels, photo)
    assert decoded.format == "PNG"


def test_many_long_texts_do_not_spoil_a_png(photo: Image.Image) -> None:
    chunks = chunks_of(photo)
    chunks[1:1] = [(b"zTXt", b"Comment%d\0\0" % n + compressed(10_000_000)) for n in range(9)]
    np.testing.assert_array_equal(decode(png_of(*chunks), WHOLE).pixels, photo)


@pytest.mark.parametrize(("kind", "is_fine"), [(b"tEXt", True), (b"eXIf", True), (b"IHDR", False)])
def test_a_wrong_checksum_matters_in_critical_chunks_only(
    photo: Image.Image, kind: bytes, is_fine: bool
) -> None:
    chunks = chunks_of(photo)
    chunks[1:1] = [(b"tEXt", b"Comment\0hello"), (b"eXIf", b"MM\0*\0\0\0\x08\0\0\0\0\0\0")]
    data = bytearray(png_of(*chunks))
    start = data.index(kind)
    (length,) = struct.unpack_from(">I", data, start - 4)
    data[start + 4 + length] ^= 1
    if is_fine:
        np.testing.assert_array_equal(decode(bytes(data), WHOLE).pixels, photo)
    else:
        assert reason(bytes(data)) == Reason.TRUNCATED


def test_short_texts_and_profiles_still_count(photo: Image.Image) -> None:
    turned = bytes.fromhex("4d4d002a000000080001011200030000000100060000 00000000".replace(" ", ""))
    chunks = chunks_of(photo)
    profile = b"\nexif\n%8d\n%s\n" % (len(turned), turned.hex().encode())
    chunks.insert(1, (b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(profile)))
    assert decode(png_of(*chunks), WHOLE).pixels.shape == (320, 240, 3)


@pytest.mark.parametrize("name", ["text_badcrc", "ztxt_1200k_small", "ztxt_after_idat"])
def test_pngs_that_failed_once(shared_data: Path, name: str) -> None:
    decoded = decode(shared_data / "field_cases" / "formats" / f"png_{name}.png", WHOLE)
    assert decoded.format == "PNG"
