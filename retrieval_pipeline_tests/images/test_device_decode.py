"""Decoding on a GPU: which files, with which pixels, and what becomes of those that fail.

A stand-in answers for nvImageCodec (`support/nvimgcodec_stand_in`); resizing is PyTorch's own.
"""

import time
from collections.abc import Callable, Iterator
from io import BytesIO
from itertools import repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageCms

from retrieval_pipeline.images.decode import pillow_within
from retrieval_pipeline.images.decode_pool import DecodePool, Job, Outcome
from retrieval_pipeline.images.device_decode import transformed_on_device
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.images.jpeg_header import LEAST_PIXELS, header_for_device
from retrieval_pipeline.images.jpegs import Jpeg
from retrieval_pipeline.images.transform import Decoded, ImageTransform
from retrieval_pipeline_tests.support.decoding import decode

TRANSFORM = ImageTransform(
    resize=64, crop=(64, 64), resample="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
STAND_IN = Path(__file__).parents[1] / "support" / "nvimgcodec_stand_in"
SIZE = (1_800, 1_200)
SECONDS = 60


def photo(size: tuple[int, int] = SIZE, mode: str = "RGB") -> Image.Image:
    colours = np.random.default_rng(0).integers(0, 256, (6, 9, 3), np.uint8)
    return Image.fromarray(colours).resize(size, Image.Resampling.BICUBIC).convert(mode)


def jpeg(image: Image.Image | None = None, orientation: int = 1, **options: object) -> bytes:
    exif, buffer = Image.Exif(), BytesIO()
    exif[ExifTags.Base.Orientation] = orientation
    (image or photo()).save(buffer, "JPEG", exif=exif, **options)
    return buffer.getvalue()


def profile(gamma_of: str) -> bytes:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile(gamma_of)).tobytes()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_device_gives_the_pixels_of_the_workers(orientation: int) -> None:
    data = jpeg(orientation=orientation, quality=95)
    image = torch.from_numpy(np.array(Image.open(BytesIO(data))))
    found = transformed_on_device(image, Jpeg(data, orientation), TRANSFORM).numpy()
    expected = decode(data, TRANSFORM).pixels
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < 1


@pytest.mark.parametrize(
    ("make", "suits"),
    [
        pytest.param(jpeg, True, id="plain"),
        pytest.param(lambda: jpeg(progressive=True), True, id="progressive"),
        pytest.param(lambda: jpeg(icc_profile=profile("sRGB")), True, id="sRGB"),
        pytest.param(lambda: jpeg() + b"more", True, id="with bytes behind it"),
        pytest.param(lambda: jpeg(icc_profile=b"not a profile"), True, id="broken profile"),
        pytest.param(lambda: jpeg(photo(mode="L")), False, id="grey"),
        pytest.param(lambda: jpeg(photo(mode="CMYK")), False, id="CMYK"),
        pytest.param(lambda: jpeg(keep_rgb=True), False, id="stored as RGB"),
        pytest.param(lambda: jpeg(photo((1_000, LEAST_PIXELS // 1_000 - 1))), False, id="small"),
        pytest.param(lambda: jpeg()[:-2_000], False, id="cut"),
        pytest.param(lambda: b"\xff\xd8 no picture", False, id="broken"),
    ],
)
def test_the_device_gets_plain_jpegs_of_bounded_size_only(
    make: Callable[[], bytes], suits: bool
) -> None:
    with pillow_within(Limits()):
        header = header_for_device(make(), TRANSFORM, "centre")
    assert (header is not None) == suits


def test_the_device_gets_nothing_beyond_the_limits_nor_pictures_with_views() -> None:
    with pillow_within(Limits(pixels=1_000_000)):
        assert header_for_device(jpeg(), TRANSFORM, "centre") is None
    with pillow_within(Limits()):
        assert header_for_device(jpeg(), TRANSFORM, "crops") is None
        header = header_for_device(jpeg(orientation=6), TRANSFORM, "centre")
    assert header is not None
    assert (header["width"], header["height"], header["orientation"]) == (*SIZE[::-1], 6)


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Put the stand-in where this process and its children find nvImageCodec."""
    monkeypatch.syspath_prepend(STAND_IN)
    monkeypatch.setenv("PYTHONPATH", str(STAND_IN), prepend=":")
    yield


@pytest.mark.slow
@pytest.mark.usefixtures("stand_in")
def test_what_the_device_refuses_or_dies_of_is_decoded_by_the_workers(
    tmp_path: Path,
) -> None:
    names = {"plain": b"", "refused": b"refuse", "deadly": b"crash"}
    for orientation, (name, tail) in enumerate(names.items(), 5):
        (tmp_path / f"{name}.jpg").write_bytes(jpeg(orientation=orientation) + tail)

    def jobs(name: str, count: int) -> Iterator[Job]:
        return repeat(Job(str(tmp_path / f"{name}.jpg")), count)

    with DecodePool(TRANSFORM, Limits(), workers=1) as pool:
        expected = {name: pool.submit(next(jobs(name, 1))).result() for name in names}
        pool.use_device(0)
        deadline = time.monotonic() + SECONDS
        while not pool.device_is_ready and time.monotonic() < deadline:
            time.sleep(0.05)
        assert pool.device_is_ready
        # Rounded differently here and there, which tells who decoded a picture.
        decoded = [found for _, found in pool.map(jobs("plain", 20))]
        assert any(differ(found, expected["plain"]) for found in decoded)
        assert pool.device_is_ready
        for name in ("refused", "deadly", "plain"):
            for _, found in pool.map(jobs(name, 20)):
                differ(found, expected[name])


def differ(found: Outcome, expected: Outcome) -> bool:
    """Tell whether two outcomes differ in some pixels; they must be alike in everything else."""
    assert isinstance(found, Decoded)
    assert isinstance(expected, Decoded)
    assert np.abs(found.pixels.astype(int) - expected.pixels).mean() < 1
    for attribute in ("width", "height", "format", "facts", "views", "views_only"):
        assert getattr(found, attribute) == getattr(expected, attribute)
    return not np.array_equal(found.pixels, expected.pixels)
