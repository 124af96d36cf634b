"""TIFFs that tifffile wrote, compared with the picture that it was given."""

from collections.abc import Iterator
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from retrieval_pipeline.images.errors import ImageError, Limits, Reason
from retrieval_pipeline_tests.support.decoding import WHOLE, decode

tifffile = pytest.importorskip("tifffile")

HEIGHT, WIDTH = 48, 64
Floats = npt.NDArray[np.float64]

TYPES = ("bool", "i1", "u1", "i2", "u2", "i4", "u4", "u8", "f2", "f4", "f8")
# What cannot be had right is refused, but these are right.
READ = {
    "minisblack": {"bool", "i1", "u1", "u2", "i2", "u4", "i4", "f4"},
    "miniswhite": {"bool", "u1", "f4"},
    "rgb": {"u1", "u2"},
    "rgba": {"u1", "u2"},
    "separated": {"u1", "u2"},
}


def waves(channels: int) -> Floats:
    """Brightness 0 to 1 without symmetry, (height, width, channels)."""
    y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
    waves = [0.5 + 0.5 * np.sin(x / (5 + k) + k) * np.cos(y / (7 - k)) for k in range(channels)]
    return np.stack(waves, axis=-1)


def stored(values: Floats, dtype: str) -> npt.NDArray[Any]:
    """Spread 0 to 1 over all values of a type."""
    kind = np.dtype(dtype)
    if dtype == "bool":
        return values > 0.5
    if kind.kind == "f":
        return values.astype(kind)
    limits = np.iinfo(kind)
    low, high = float(limits.min), float(limits.max)
    return (values * (high - low) + low).clip(low, np.nextafter(high, 0)).astype(kind)


def shown(photometric: str, values: Floats) -> Floats:
    """What a viewer shows of the values, RGB 0 to 1 on white."""
    match photometric:
        case "minisblack":
            return values.repeat(3, axis=-1)
        case "miniswhite":
            return 1 - values.repeat(3, axis=-1)
        case "rgba":
            return values[..., :3] * values[..., 3:] + 1 - values[..., 3:]
        case "separated":
            return (1 - values[..., :3]) * (1 - values[..., 3:])
    return values


def variants(photometric: str) -> Iterator[tuple[str, bytes]]:
    """Every way in which tifffile stores one picture: its sample type, and the file."""
    channels = {"rgb": 3, "rgba": 4, "separated": 4}.get(photometric, 1)
    values = waves(channels)
    options: dict[str, Any] = {"photometric": photometric.removesuffix("a")}
    if photometric == "rgba":
        options["extrasamples"] = ["unassalpha"]
    planar = ("contig", "separate") if channels > 1 else (None,)
    compressions = ((None, None), ("zlib", None), ("zlib", True))
    for dtype, planes, order, tile, (compression, predictor), big in product(
        TYPES, planar, "<>", (None, (16, 16)), compressions, (False, True)
    ):
        array = stored(values, dtype)
        if planes:
            options["planarconfig"] = planes
        buffer = BytesIO()
        try:
            tifffile.imwrite(
                buffer,
                np.moveaxis(array, -1, 0) if planes == "separate" else array.squeeze(),
                byteorder=order,
                tile=tile,
                compression=compression,
                predictor=predictor,
                bigtiff=big,
                **options,
            )
        except (ValueError, KeyError):  # tifffile does not write it, or lacks a codec
            continue
        yield dtype, buffer.getvalue()


@pytest.mark.parametrize("photometric", sorted(READ))
def test_a_tiff_has_the_right_pixels_or_is_unsupported(photometric: str) -> None:
    channels = {"rgb": 3, "rgba": 4, "separated": 4}.get(photometric, 1)
    right = set()
    for dtype, data in variants(photometric):
        values = waves(channels)
        if dtype == "bool":
            values = (values > 0.5).astype(float)
        try:
            pixels = decode(data, WHOLE).pixels
        except ImageError as error:
            assert error.reason == Reason.UNSUPPORTED, (dtype, error)
            continue
        right.add(dtype)
        with tifffile.TiffFile(BytesIO(data)) as file:
            tags = dict(file.pages[0].tags.items())
        assert np.abs(pixels / 255 - shown(photometric, values)).mean() < 0.02, (dtype, tags)
    assert right >= READ[photometric]


def written(*pages: tuple[npt.NDArray[Any], dict[str, Any]], big: bool = False) -> bytes:
    buffer = BytesIO()
    with tifffile.TiffWriter(buffer, bigtiff=big) as file:
        for pixels, options in pages:
            file.write(pixels, photometric="rgb", metadata=None, **options)
    return buffer.getvalue()


def plain(width: int, height: int) -> npt.NDArray[np.uint8]:
    return np.full((height, width, 3), width % 256, np.uint8)


@pytest.mark.parametrize(
    ("first", "big"),
    [
        ({"subfiletype": 1}, False),
        ({"subfiletype": 1}, True),
        ({"subfiletype": 1, "subifds": 2}, False),
        ({}, False),
    ],
    ids=["flagged", "flagged, BigTIFF", "around the picture", "a small copy"],
)
def test_a_preview_in_the_first_page_is_not_taken_for_the_picture(
    first: dict[str, Any], big: bool
) -> None:
    half = (plain(400, 300), {"subfiletype": 1})
    data = written((plain(80, 60), first), half, (plain(800, 600), {}), big=big)
    decoded = decode(data, WHOLE)
    assert (decoded.width, decoded.height) == (800, 600)
    assert (decoded.pixels == 800 % 256).all()


@pytest.mark.parametrize("second", [(900, 300), (120, 90), (300, 225)])
def test_a_document_is_known_by_its_first_page(second: tuple[int, int]) -> None:
    decoded = decode(written((plain(80, 60), {}), (plain(*second), {})), WHOLE)
    assert (decoded.width, decoded.height) == (80, 60)
    decoded = decode(written((plain(300, 225), {}), (plain(1500, 1125), {})), WHOLE)
    assert (decoded.width, decoded.height) == (300, 225)


def test_a_preview_of_something_that_cannot_be_read_is_unsupported() -> None:
    floats = np.zeros((600, 800, 3), np.float64)
    with pytest.raises(ImageError, match="unsupported: only a preview"):
        decode(written((plain(80, 60), {"subfiletype": 1}), (floats, {})), WHOLE)


def test_a_preview_of_nothing_is_the_picture() -> None:
    assert decode(written((plain(80, 60), {"subfiletype": 1})), WHOLE).width == 80


def test_the_limit_of_pixels_holds_for_every_page() -> None:
    data = written((plain(80, 60), {"subfiletype": 1}), (plain(800, 600), {}))
    with pytest.raises(ImageError, match="too large: Image size"):
        decode(data, WHOLE, Limits(pixels=479_999))


@pytest.mark.parametrize("name", ["pl16_le", "pl16_be", "c16_be", "thumb_first"])
def test_files_that_failed_once(shared_data: Path, name: str) -> None:
    path = shared_data / "field_cases" / "formats" / f"{name}.tif"
    pixels = tifffile.imread(path, key=1 if name == "thumb_first" else 0)
    if pixels.shape[0] == 3:
        pixels = np.moveaxis(pixels, 0, -1)
    expected = pixels if pixels.dtype == np.uint8 else pixels >> 8
    np.testing.assert_array_equal(decode(path, WHOLE).pixels, expected)
