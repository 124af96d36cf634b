"""Pixels are compared with references that are worked out here, without the module under test."""

import os
import struct
import warnings
import zlib
from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import pytest
from PIL import ExifTags, Image, ImageCms, ImageOps

from retrieval_pipeline.config.settings import ImageLimits
from retrieval_pipeline.images import formats, pictures, transform
from retrieval_pipeline.images.color import srgb_transform
from retrieval_pipeline.images.errors import ImageError, Limits, Reason
from retrieval_pipeline.images.transform import Fit, ImageTransform, shrink_limit, transform_image
from retrieval_pipeline_tests.support.decoding import decode, open_upright, thumbnail

LIMITS = Limits()
CLIP = ImageTransform(
    resize=64,
    crop=(64, 64),
    resample="bicubic",
    mean=(0.48145466, 0.4578275, 0.40821073),
    std=(0.26862954, 0.26130258, 0.27577711),
)
REFERENCE = replace(CLIP, shrink_on_load=0)

Array = npt.NDArray[np.uint8]


def scene(width: int, height: int, seed: int = 0) -> Image.Image:
    """A picture with the detail of a photo at all scales, and no symmetry."""
    return Image.fromarray(_scene(width, height, seed))


@cache
def _scene(width: int, height: int, seed: int) -> Array:
    rng = np.random.default_rng(seed)
    total = np.zeros((height, width, 3))
    for cells in (2, 5, 12, 30, 80):
        shape = (min(cells, height // 8 + 1), min(cells, width // 8 + 1), 3)
        noise = rng.integers(0, 256, shape, dtype=np.uint8)
        layer = Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC)
        total += (np.asarray(layer) - 127.5) / np.sqrt(cells)
    return np.clip(total + 127.5, 0, 255).astype(np.uint8)


def encoded(image: Image.Image, format: str, **options: object) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **options)
    return buffer.getvalue()


def rgb(data: bytes) -> Array:
    return np.asarray(open_upright(data, LIMITS))


def reason(data: bytes, limits: Limits = LIMITS) -> Reason:
    with pytest.raises(ImageError) as caught:
        decode(data, CLIP, limits)
    assert "\n" not in str(caught.value)
    return caught.value.reason


def difference(left: npt.ArrayLike, right: npt.ArrayLike) -> npt.NDArray[np.int64]:
    return np.abs(np.asarray(left, np.int64) - np.asarray(right, np.int64))


# The transform


@pytest.mark.parametrize(
    "change",
    [
        {"resize": 65},
        {"resize": (64, 64)},
        {"crop": (64, 60)},
        {"crop": None},
        {"resample": "bilinear"},
        {"mean": (0.48145467, 0.4578275, 0.40821073)},
        {"std": (0.26862954, 0.26130258, 0.27577712)},
        {"shrink_on_load": 3},
    ],
)
def test_transforms_that_differ_in_anything_have_different_fingerprints(
    change: dict[str, object],
) -> None:
    assert replace(CLIP, **change).fingerprint != CLIP.fingerprint  # type: ignore[arg-type]


def test_the_fingerprint_is_readable_and_stable() -> None:
    assert CLIP.fingerprint == (
        "srgb1 resize=64 crop=64x64 bicubic mean=0.48145466,0.4578275,0.40821073 "
        "std=0.26862954,0.26130258,0.27577711 shrink=2"
    )


@pytest.mark.parametrize("size", [(64, 64), (500, 375), (375, 501), (31, 47), (64, 200), (999, 65)])
@pytest.mark.parametrize(
    ("resize", "crop", "resample"),
    [(64, (64, 64), "bicubic"), (71, (64, 63), "bilinear"), (50, (64, 77), "lanczos")],
)
def test_pixels_equal_those_of_the_clip_image_processor(
    size: tuple[int, int], resize: int, crop: tuple[int, int], resample: str
) -> None:
    from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil

    processor = CLIPImageProcessorPil(
        size={"shortest_edge": resize},
        crop_size={"height": crop[0], "width": crop[1]},
        resample=Image.Resampling[resample.upper()],
        do_rescale=False,
        do_normalize=False,
    )
    image = scene(*size)
    transform = replace(CLIP, resize=resize, crop=crop, resample=resample)
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    np.testing.assert_array_equal(transform_image(image, transform), np.moveaxis(expected, 0, -1))


@pytest.mark.parametrize("size", [(64, 64), (500, 375), (31, 470)])
def test_pixels_equal_those_of_the_siglip_image_processor(size: tuple[int, int]) -> None:
    from transformers.models.siglip.image_processing_pil_siglip import SiglipImageProcessorPil

    processor = SiglipImageProcessorPil(
        size={"height": 60, "width": 72}, do_rescale=False, do_normalize=False
    )
    image = scene(*size)
    expected = processor(image, return_tensors="np")["pixel_values"][0]
    pixels = transform_image(image, replace(CLIP, resize=(60, 72), crop=None))
    np.testing.assert_array_equal(pixels, np.moveaxis(expected, 0, -1))


@pytest.mark.parametrize("size", [(2_001, 20), (20, 2_003)])
def test_a_very_long_picture_is_cropped_without_resizing_all_of_it(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = scene(*size)
    whole = transform_image(image, CLIP)
    monkeypatch.setattr(transform, "RESIZED_PIXELS", 10_000)
    assert difference(transform_image(image, CLIP), whole).max() <= 1


def test_a_line_of_pixels_becomes_an_input_of_the_right_size() -> None:
    decoded = decode(encoded(Image.new("L", (60_000, 1), 200), "PNG"), CLIP, LIMITS)
    assert decoded.pixels.shape == (64, 64, 3)
    assert (decoded.pixels == 200).all()
    assert (decoded.width, decoded.height) == (60_000, 1)


@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP"])
def test_without_shrinking_a_decoded_file_equals_its_picture_transformed(format: str) -> None:
    data = encoded(scene(517, 389), format)
    decoded = decode(data, REFERENCE, LIMITS)
    with Image.open(BytesIO(data)) as image:
        np.testing.assert_array_equal(decoded.pixels, transform_image(image, REFERENCE))
    assert (decoded.width, decoded.height, decoded.format) == (517, 389, format)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG"])
def test_shrinking_on_load_changes_pixels_by_less_than_one_level(
    format: str, orientation: int
) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    # Sizes that no scale divides, so that the last row and column are partial.
    options = {"quality": 95} if format == "JPEG" else {"compress_level": 1}
    data = encoded(scene(1_601, 1_207), format, exif=exif, **options)
    fast = decode(data, CLIP, LIMITS)
    exact = decode(data, REFERENCE, LIMITS)
    assert 0 < difference(fast.pixels, exact.pixels).mean() < 0.5
    assert (fast.width, fast.height) == (exact.width, exact.height)


@pytest.mark.parametrize("orientation", [1, 6])
def test_shrinking_on_load_suits_exact_sizes_that_are_not_square(orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    data = encoded(scene(961, 481), "JPEG", exif=exif, quality=95)
    transform = replace(CLIP, resize=(50, 120), crop=None)
    exact = decode(data, replace(transform, shrink_on_load=0), LIMITS)
    fast = decode(data, transform, LIMITS)
    assert fast.pixels.shape == (50, 120, 3)
    assert difference(fast.pixels, exact.pixels).mean() < 0.5


def test_a_picture_is_not_shrunk_below_an_exact_size_if_it_lies_on_its_side() -> None:
    shrinkable = shrink_limit(replace(CLIP, resize=(50, 120), crop=None))
    assert shrinkable
    assert min(shrinkable(961, 481)) >= 2 * 120


# Orientation


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_every_exif_orientation_is_applied(format: str, orientation: int) -> None:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"lossless": True} if format == "WEBP" else {"quality": 100}
    picture = scene(48, 30)
    data = encoded(picture, format, exif=exif.tobytes(), **options)
    picture.getexif()[ExifTags.Base.Orientation] = orientation
    upright = ImageOps.exif_transpose(picture)
    assert difference(rgb(data), upright).mean() < 3
    decoded = decode(data, CLIP, LIMITS)
    assert (decoded.width, decoded.height) == upright.size


def test_orientation_6_turns_the_top_left_corner_to_the_top_right() -> None:
    picture = Image.new("RGB", (40, 20), "black")
    picture.paste("red", (0, 0, 8, 8))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    upright = open_upright(encoded(picture, "PNG", exif=exif), LIMITS)
    assert upright.size == (20, 40)
    assert upright.getpixel((17, 2)) == (255, 0, 0)
    assert upright.getpixel((2, 2)) == (0, 0, 0)


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0not a header at all",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12\xff\xff\xff\xff\xff\xff\xff\xff" * 9,
        b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0",
    ],
)
def test_a_broken_exif_leaves_the_picture_as_it_is(exif: bytes) -> None:
    picture = scene(48, 30)
    assert difference(rgb(encoded(picture, "JPEG", exif=exif, quality=95)), picture).mean() < 3


# Colours


def test_a_palette_becomes_its_colours() -> None:
    image = scene(40, 30).quantize(200)
    np.testing.assert_array_equal(rgb(encoded(image, "PNG")), np.asarray(image.convert("RGB")))


def test_transparent_entries_of_a_palette_become_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    data = encoded(image, "PNG", transparency=bytes([255, 0]))
    assert rgb(data).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def over_white(colour: Array, alpha: Array) -> npt.NDArray[np.float64]:
    share = alpha[..., np.newaxis] / 255
    return colour * share + 255 * (1 - share)


@pytest.mark.parametrize("format", ["PNG", "WEBP", "TIFF", "TGA"])
def test_alpha_is_composited_over_white(format: str) -> None:
    picture = scene(40, 30)
    alpha = scene(40, 30, seed=1).convert("L")
    picture.putalpha(alpha)
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    pixels = rgb(encoded(picture, format, **options))
    expected = over_white(np.asarray(picture)[..., :3], np.asarray(alpha))
    assert np.abs(pixels - expected).max() <= 1


def test_grey_with_alpha_is_composited_over_white() -> None:
    grey, alpha = scene(40, 30).convert("L"), scene(40, 30, seed=1).convert("L")
    pixels = rgb(encoded(Image.merge("LA", (grey, alpha)), "PNG"))
    expected = over_white(np.asarray(grey)[..., np.newaxis], np.asarray(alpha))
    assert np.abs(pixels - expected).max() <= 1


def test_alpha_beside_a_palette_is_composited_over_white() -> None:
    palette, alpha = scene(40, 30).quantize(200), scene(40, 30, seed=1).convert("L")
    image = palette.convert("PA")
    image.putalpha(alpha)
    pixels = rgb(encoded(image, "TIFF"))
    expected = over_white(np.asarray(palette.convert("RGB")), np.asarray(alpha))
    assert np.abs(pixels - expected).max() <= 1


def test_colours_that_are_multiplied_by_alpha_are_composited_over_white() -> None:
    data = encoded(Image.new("RGBA", (2, 2), (100, 50, 0, 128)), "TIFF")
    entry = struct.Struct("<HHIHH")
    straight, multiplied = entry.pack(338, 3, 1, 2, 0), entry.pack(338, 3, 1, 1, 0)
    assert data.count(straight) == 1
    pixels = rgb(data.replace(straight, multiplied))
    assert difference(pixels[0, 0], (100 + 127, 50 + 127, 127)).max() <= 1


def test_what_lies_under_full_transparency_is_not_seen_after_shrinking() -> None:
    picture = Image.new("RGBA", (1_000, 1_000), (255, 0, 0, 0))
    assert (decode(encoded(picture, "PNG"), CLIP, LIMITS).pixels == 255).all()


@pytest.mark.parametrize(
    ("mode", "colours", "transparency"),
    [
        ("RGB", [(1, 2, 3), (4, 5, 6)], (4, 5, 6)),
        ("L", [7, 8], 8),
        ("I;16", [7 << 8, 8 << 8], 8 << 8),
    ],
)
def test_the_transparent_colour_of_a_png_becomes_white(
    mode: str, colours: list[int], transparency: int
) -> None:
    image = Image.new(mode, (2, 1), colours[0])
    image.putpixel((1, 0), colours[1])
    left, right = rgb(encoded(image, "PNG", transparency=transparency))[0].tolist()
    assert left == ([1, 2, 3] if mode == "RGB" else [7, 7, 7])
    assert right == [255, 255, 255]


def test_one_bit_becomes_black_and_white() -> None:
    image = scene(40, 30).convert("1")
    expected = np.dstack([np.where(np.asarray(image), 255, 0)] * 3)
    np.testing.assert_array_equal(rgb(encoded(image, "PNG")), expected)


@pytest.mark.parametrize(("format", "tolerance"), [("TIFF", 1), ("JPEG", 12)])
def test_ink_becomes_light(format: str, tolerance: int) -> None:
    for inks, expected in (((255, 0, 0, 0), (0, 255, 255)), ((0, 0, 0, 255), (0, 0, 0))):
        data = encoded(Image.new("CMYK", (16, 16), inks), format)
        assert difference(rgb(data), np.broadcast_to(expected, (16, 16, 3))).max() <= tolerance


def test_the_inverted_inks_of_adobe_jpegs_are_understood(shared_data: Path) -> None:
    path = shared_data / "odd_images" / "pil_sample_cmyk.jpg"
    pixels = np.asarray(open_upright(path, LIMITS))
    red, green, blue = pixels[2, 2]  # a red mark in the corner of a black picture
    assert red > 240 and green < 30 and blue < 30
    assert pixels[97, 97].max() < 10


@pytest.mark.parametrize("mode", ["YCbCr", "LAB"])
def test_other_colour_spaces_become_rgb(mode: str) -> None:
    picture = scene(40, 30)
    if mode == "LAB":
        lab = ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(
            picture, ImageCms.createProfile("sRGB"), lab, outputMode="LAB"
        )
    else:
        image = picture.convert(mode)
    # LAB has fewer steps than RGB where it is dark.
    assert difference(rgb(encoded(image, "TIFF")), picture).mean() < 2


@pytest.mark.parametrize("mode", ["I;16", "I;16B"])
@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_sixteen_bits_are_scaled_not_clipped(mode: str, format: str) -> None:
    values = np.arange(0, 65_536, 16).reshape(64, 64)
    dtype = ">u2" if mode == "I;16B" else "<u2"
    image = Image.frombytes(mode, (64, 64), values.astype(dtype).tobytes())
    pixels = rgb(encoded(image, format))
    assert np.abs(pixels[..., 0] - values / 257).max() <= 1


def test_sixteen_bits_with_white_as_zero_are_inverted() -> None:
    image = Image.new("I;16", (2, 2), 0xFFFF)
    data = encoded(image, "TIFF", tiffinfo={ExifTags.Base.PhotometricInterpretation: 0})
    assert (rgb(data) == 0).all()


def test_twelve_bits_are_scaled(shared_data: Path) -> None:
    path = shared_data / "odd_images" / "12bit.cropped.tif"
    with Image.open(path) as image:
        values = np.asarray(image)
    pixels = np.asarray(open_upright(path, LIMITS))
    assert np.abs(pixels[..., 0] - values / 4095 * 255).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 100.0, 255.0], [0, 100, 255]),
        ([0.0, 257.0, 65_535.0], [0, 1, 255]),
        ([-100.0, 0.0, 100.0], [0, 128, 255]),
        ([np.nan, 0.5, np.inf, 1.0], [0, 128, 255, 255]),
        ([3e38, -3e38], [255, 0]),
        ([np.nan], [0]),
        ([-7.0, -7.0], [0, 0]),
    ],
)
def test_floats_are_scaled_by_the_range_that_they_fill(
    values: list[float], expected: list[int]
) -> None:
    image = Image.fromarray(np.array([values], np.float32))
    assert difference(rgb(encoded(image, "TIFF"))[0, :, 0], expected).max() <= 1


@pytest.mark.parametrize(
    ("values", "expected"),
    [([0, 32_896, 65_535], [0, 128, 255]), ([-1_000, 0, 1_000_000], [0, 0, 255])],
)
def test_wide_integers_are_scaled(values: list[int], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.int32))
    assert image.mode == "I"
    assert difference(rgb(encoded(image, "TIFF"))[0, :, 0], expected).max() <= 1


# Profiles


def swapped_profile() -> bytes:
    """An sRGB profile that calls red blue and blue red."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for tag in (b"XYZ", b"TRC"):
        profile = profile.replace(b"r" + tag, b"?" + tag)
        profile = profile.replace(b"b" + tag, b"r" + tag).replace(b"?" + tag, b"b" + tag)
    return profile


@pytest.mark.parametrize("format", ["JPEG", "PNG", "TIFF", "WEBP"])
def test_colours_under_a_profile_become_srgb(format: str) -> None:
    red = Image.new("RGB", (800, 800), (250, 10, 10))
    data = encoded(red, format, icc_profile=swapped_profile(), quality=100)
    for pixels in (rgb(data), decode(data, CLIP, LIMITS).pixels):
        assert difference(pixels, np.broadcast_to((10, 10, 250), pixels.shape)).max() <= 6


def test_alpha_survives_a_profile() -> None:
    image = Image.new("RGBA", (2, 1), (255, 0, 0, 255))
    image.putpixel((1, 0), (255, 0, 0, 0))
    left, right = rgb(encoded(image, "PNG", icc_profile=swapped_profile()))[0]
    assert difference(left, (0, 0, 255)).max() <= 3
    assert right.tolist() == [255, 255, 255]


def test_an_srgb_profile_changes_nothing() -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    picture = scene(40, 30)
    np.testing.assert_array_equal(rgb(encoded(picture, "PNG", icc_profile=profile)), picture)
    assert srgb_transform(profile, "RGB") is None  # so that it costs no time


@pytest.mark.parametrize(
    "profile", [b"garbage", b"\0" * 200, swapped_profile()[:150], b"\xff" * 128]
)
def test_a_broken_profile_is_ignored(profile: bytes) -> None:
    picture = scene(40, 30)
    np.testing.assert_array_equal(rgb(encoded(picture, "PNG", icc_profile=profile)), picture)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_a_profile_for_other_colours_is_ignored(mode: str) -> None:
    picture = scene(40, 30).convert(mode)
    data = encoded(picture, "TIFF", icc_profile=swapped_profile())
    np.testing.assert_array_equal(rgb(data), np.asarray(picture.convert("RGB")))


# Files with several pictures


@pytest.mark.parametrize("format", ["GIF", "WEBP", "PNG", "TIFF", "MPO", "AVIF"])
def test_of_several_pictures_the_first_counts(format: str) -> None:
    frames = [Image.new("RGB", (32, 24), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], format, save_all=True, append_images=frames[1:])
    assert difference(rgb(data), np.broadcast_to((255, 0, 0), (24, 32, 3))).max() <= 4


# Thumbnails


@pytest.mark.parametrize("format", ["WEBP", "PNG"])
@pytest.mark.parametrize(
    ("size", "expected"), [((1_003, 500), (100, 50)), ((40, 30), (40, 30)), ((1, 2_000), (1, 100))]
)
def test_a_thumbnail_fits_and_is_not_enlarged(
    format: Literal["WEBP", "PNG"], size: tuple[int, int], expected: tuple[int, int]
) -> None:
    small_pixels = decode(encoded(scene(*size), "JPEG"), Fit(100)).pixels
    data = pictures.encoded(small_pixels, format)
    with Image.open(BytesIO(data)) as small:
        assert (small.format, small.size, small.mode) == (format, expected, "RGB")


def test_a_thumbnail_shows_the_whole_picture_upright() -> None:
    picture = scene(1_601, 1_207)
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 8
    small = thumbnail(encoded(picture, "JPEG", exif=exif, quality=95), 200)
    turned = picture.transpose(Image.Transpose.ROTATE_90)
    with Image.open(BytesIO(small)) as image:
        expected = turned.resize(image.size, Image.Resampling.BICUBIC)
        assert difference(image, expected).mean() < 1


# Files that cannot be used


@pytest.mark.parametrize(
    "data",
    [
        b"hello, I am a text\n" * 99,
        b"BMW, a maker of cars",
        b"P3 is a text too",
        b"\0",
        b"\0\0" + b"\1" * 510,  # the header of a TGA without data
    ],
)
def test_what_is_no_picture_is_not_an_image(data: bytes) -> None:
    assert reason(data) == Reason.NOT_AN_IMAGE


def test_an_empty_file_is_told_as_such() -> None:
    with pytest.raises(ImageError, match="not an image: the file is empty"):
        decode(b"", CLIP, LIMITS)


@pytest.mark.parametrize(
    "format", ["JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "JPEG2000"]
)
@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_a_file_that_ends_early_is_truncated(format: str, kept: float) -> None:
    data = encoded(scene(200, 150), format)
    assert reason(data[: int(len(data) * kept)]) == Reason.TRUNCATED


def test_a_header_without_a_picture_is_truncated() -> None:
    assert reason(encoded(scene(20, 20), "PNG")[:20]) == Reason.TRUNCATED
    assert reason(encoded(scene(20, 20), "JPEG")[:4]) == Reason.TRUNCATED


def bomb(width: int, height: int) -> bytes:
    """A PNG that promises a size and holds nothing of it."""
    data = bytearray(encoded(Image.new("L", (1, 1)), "PNG"))
    data[16:24] = struct.pack(">II", width, height)
    data[29:33] = struct.pack(">I", zlib.crc32(data[12:29]))
    return bytes(data)


def test_too_many_pixels_are_refused_before_they_are_decoded() -> None:
    assert reason(bomb(30_000, 30_000)) == Reason.TOO_LARGE
    assert reason(bomb(101, 100), Limits(pixels=10_000)) == Reason.TOO_LARGE
    assert reason(bomb(100, 100), Limits(pixels=10_000)) == Reason.TRUNCATED


@pytest.mark.parametrize(("memory", "expected"), [(1, Reason.TOO_LARGE), (2, Reason.TRUNCATED)])
def test_what_fails_near_the_limit_of_memory_counts_as_too_large(
    memory: int, expected: Reason
) -> None:
    data = encoded(scene(300, 300), "JPEG2000")
    assert reason(data[: len(data) // 2], Limits(memory_mb=memory)) == expected


def test_a_picture_inside_of_an_icon_is_bounded_too() -> None:
    png = bomb(30_000, 30_000)
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(png), 22)
    assert reason(b"\0\0\1\0\1\0" + entry + png) == Reason.TOO_LARGE


def test_too_many_bytes_are_refused_before_they_are_read(tmp_path: Path) -> None:
    path = tmp_path / "sparse.jpg"
    with path.open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(ImageError, match="too large: 1,099,511,627,776 bytes"):
        decode(path, CLIP, LIMITS)


@pytest.mark.parametrize(
    "data",
    [
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 100 100\n%%EndComments\nshowpage\n",
        b"\xd7\xcd\xc6\x9a\0\0" + b"\0" * 60,
        b"\x89HDF\r\n\x1a\n" + b"\0" * 60,
        b"SIMPLE  =                    T" + b" " * 3_000,
    ],
)
def test_formats_that_are_never_opened_are_unsupported(data: bytes) -> None:
    assert reason(data) == Reason.UNSUPPORTED


def test_an_unknown_compression_is_unsupported() -> None:
    data = encoded(scene(20, 20), "TIFF")
    entry = struct.pack("<HHIHH", 259, 3, 1, 1, 0)
    assert data.count(entry) == 1
    assert reason(data.replace(entry, struct.pack("<HHIHH", 259, 3, 1, 9999, 0))) == (
        Reason.UNSUPPORTED
    )


def test_a_missing_plugin_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "readable_formats", lambda: ("JPEG", "PNG"))
    with pytest.raises(ImageError, match="pillow-heif") as caught:
        decode(b"\0\0\0\x18ftypheic" + b"\0" * 40, CLIP, LIMITS)
    assert caught.value.reason == Reason.UNSUPPORTED


@pytest.mark.parametrize(("plugin", "format"), [("pillow_heif", "HEIF"), ("pillow_jxl", "JXL")])
def test_formats_of_installed_plugins_are_decoded(plugin: str, format: str) -> None:
    pytest.importorskip(plugin)
    formats.readable_formats()
    picture = scene(48, 30)
    decoded = decode(encoded(picture, format, quality=95), REFERENCE, LIMITS)
    assert decoded.format == format
    assert difference(decoded.pixels, transform_image(picture, REFERENCE)).mean() < 3


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_the_orientation_of_heif_is_applied_once(orientation: int) -> None:
    pytest.importorskip("pillow_heif")
    formats.readable_formats()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    picture = scene(48, 30)
    data = encoded(picture, "HEIF", exif=exif.tobytes(), quality=95, chroma=444)
    picture.getexif()[ExifTags.Base.Orientation] = orientation
    assert difference(rgb(data), ImageOps.exif_transpose(picture)).mean() < 3


def test_the_orientation_of_jpeg_xl_is_that_of_its_pixels_or_its_jpeg(tmp_path: Path) -> None:
    pytest.importorskip("pillow_jxl")
    formats.readable_formats()
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = 6
    picture = scene(48, 30)
    assert rgb(encoded(picture, "JXL", exif=exif.tobytes())).shape == (30, 48, 3)
    path = tmp_path / "turned.jpg"
    picture.save(path, exif=exif)
    with Image.open(path) as image:
        repacked = encoded(image, "JXL", lossless_jpeg=True)
    np.testing.assert_array_equal(rgb(repacked), rgb(path.read_bytes()))
    assert rgb(repacked).shape == (48, 30, 3)


@pytest.mark.parametrize("kind", ["missing", "directory", "pipe"])
def test_what_the_file_system_does_not_hand_out_is_unreadable(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "a.jpg"
    if kind == "directory":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    with pytest.raises(ImageError) as caught:
        decode(path, CLIP, LIMITS)
    assert caught.value.reason == Reason.UNREADABLE


def test_the_content_decides_and_not_the_name(tmp_path: Path) -> None:
    path = tmp_path / "picture\udcff\n.jpg"
    path.write_bytes(encoded(scene(20, 20), "PNG"))
    assert decode(path, CLIP, LIMITS).format == "PNG"
    assert decode(os.fspath(path), CLIP, LIMITS).format == "PNG"


def test_broken_pictures_cause_no_warnings(shared_data: Path) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for path in sorted((shared_data / "odd_images" / "apng").iterdir()):
            try:
                decode(path, CLIP, Limits(pixels=8_192))  # Pillow warns from half of it on
            except ImageError:
                continue
    assert not caught


def test_limits_follow_the_settings() -> None:
    settings = ImageLimits(max_megapixels=0.5, max_megabytes=2, timeout_seconds=7)
    assert Limits.of(settings) == Limits(pixels=500_000, bytes=2_000_000, seconds=7.0)
