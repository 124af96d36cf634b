"""RAW files, made here as cameras make them, compared with the scene that they show."""

import contextlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_pipeline.images import raw
from retrieval_pipeline.images.decode_pool import DecodePool, Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.transform import Decoded, Fit, ImageTransform
from retrieval_pipeline_tests.support.decoding import WHOLE, decode
from retrieval_pipeline_tests.support.raw_files import Pixels, jpeg_of, raw_file, scene

pytest.importorskip("rawpy")

SCENE = scene(1200, 900)
# As the preview of a camera: it shows a green stripe that the sensor's values lack.
PREVIEW = scene(1040, 780)
PREVIEW[:, 510:530] = (0, 255, 0)
# Which of three corners is red, and which blue, of a picture turned by its EXIF orientation.
TURNED = {1: ("upper left", "lower right"), 3: ("lower right", "upper left")}
TURNED |= {6: ("upper right", "lower left"), 8: ("lower left", "upper right")}


def corners(pixels: Pixels) -> tuple[str, str]:
    """Where a picture is red, and where it is blue."""
    corner = {
        f"{row} {column}": pixels[y, x].astype(int)
        for row, y in (("upper", 20), ("lower", -20))
        for column, x in (("left", 20), ("right", -20))
    }
    red = max(corner, key=lambda name: corner[name][0] - corner[name][2])
    return red, max(corner, key=lambda name: corner[name][2] - corner[name][0])


def shows_preview(decoded: Decoded) -> bool:
    green = decoded.pixels.astype(int)
    return bool((green[..., 1] - green[..., [0, 2]].max(axis=-1)).max() > 80)


@pytest.mark.parametrize("maker", [None, "NIKON CORPORATION", "SONY", "Nobody"])
@pytest.mark.parametrize("with_preview", [True, False])
def test_a_raw_file_shows_its_preview_or_is_developed_but_never_its_thumbnail(
    maker: str | None, with_preview: bool
) -> None:
    data = raw_file(SCENE, maker=maker, preview=jpeg_of(PREVIEW) if with_preview else None)
    decoded = decode(data, Fit(600))
    formats = {None: "DNG", "NIKON CORPORATION": "NEF", "SONY": "ARW", "Nobody": "RAW"}
    assert decoded.format == formats[maker]
    assert (decoded.width, decoded.height, decoded.pixels.shape) == (1200, 900, (450, 600, 3))
    assert corners(decoded.pixels) == TURNED[1]
    assert shows_preview(decoded) == with_preview


@pytest.mark.parametrize("orientation", sorted(TURNED))
@pytest.mark.parametrize("own", [1, "turned by the camera"])
def test_a_raw_file_is_turned_upright_once(orientation: int, own: object) -> None:
    """Whether its preview says nothing, contradicts it, or was turned by the camera."""
    preview = PREVIEW
    if own == "turned by the camera":
        turns = {1: 0, 3: 0, 6: -1, 8: 1}[orientation]
        preview = np.ascontiguousarray(np.rot90(PREVIEW, turns))
    exif = own if isinstance(own, int) else None
    data = raw_file(SCENE, preview=jpeg_of(preview, exif), orientation=orientation)
    decoded = decode(data, Fit(300))
    size = (1200, 900) if orientation in (1, 3) else (900, 1200)
    assert (decoded.width, decoded.height) == size
    assert corners(decoded.pixels) == TURNED[orientation]
    assert shows_preview(decoded)
    developed = decode(raw_file(SCENE, orientation=orientation), Fit(300))
    assert (developed.width, developed.height) == size
    assert corners(developed.pixels) == TURNED[orientation]


def test_a_preview_that_is_too_small_or_damaged_is_not_taken() -> None:
    small = np.ascontiguousarray(PREVIEW[:600, 100:900])
    damaged = jpeg_of(PREVIEW)[:400] + bytes(400)
    for preview, transform in [
        (jpeg_of(small), Fit(300)),
        (jpeg_of(PREVIEW), Fit(1100)),
        (damaged, Fit(300)),
    ]:
        decoded = decode(raw_file(SCENE, preview=preview), transform)
        assert not shows_preview(decoded)
        assert corners(decoded.pixels) == TURNED[1]
    assert decode(raw_file(SCENE), WHOLE).pixels.shape == (900, 1200, 3)


def test_an_encoder_gets_the_same_picture_from_the_preview_and_from_the_sensor() -> None:
    transform = ImageTransform(224, (224, 224), "bicubic", (0, 0, 0), (1, 1, 1))
    preview, developed = (
        decode(raw_file(SCENE, preview=each, orientation=6), transform).pixels.astype(int)
        for each in (jpeg_of(scene(1040, 780)), None)
    )
    assert preview.shape == developed.shape == (224, 224, 3)
    # LibRaw's tone curve makes the middle grey a little darker.
    assert np.abs(preview - developed).mean() < 16


def test_limits_and_damage_are_typed() -> None:
    data = raw_file(SCENE)
    with pytest.raises(ImageError, match="too large: 1,200 x 900 pixels"):
        decode(data, WHOLE, Limits(pixels=1200 * 900 - 1))
    for start in (b"FUJIFILMCCD-RAW 0201", b"\0\0\0\x18ftypcrx ", b"II\x2a\0\x10\0\0\0CR\x02\0"):
        with pytest.raises(ImageError, match=r"unsupported|truncated"):
            decode(start + bytes(1000), WHOLE)


def test_any_damage_gives_a_picture_or_a_typed_error() -> None:
    rng = np.random.default_rng(3)
    data = raw_file(scene(64, 48), preview=jpeg_of(scene(48, 36)), maker="SONY")
    # The values of the sensor come first, the tags at the end.
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(rng.integers(1, 12)):
            damaged[rng.integers(64 * 48 * 2, len(data))] = rng.integers(256)
        # A crash of LibRaw would end this process, as it ends a worker.
        with contextlib.suppress(ImageError):
            decode(bytes(damaged), Fit(30), Limits(pixels=1_000_000))


def test_without_rawpy_a_raw_file_is_unsupported_whatever_its_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(raw, "can_read_raw", lambda: False)
    with pytest.raises(ImageError, match=r"unsupported.*retrieval-pipeline\[formats\]"):
        decode(raw_file(SCENE, preview=jpeg_of(PREVIEW)), Fit(300))


def test_the_workers_tell_raw_by_name_too_and_a_wrong_name_by_its_bytes(tmp_path: Path) -> None:
    # As an old NEF, whose tags nobody knows: a TIFF that begins with a thumbnail.
    Image.fromarray(PREVIEW).resize((160, 120)).save(tmp_path / "old.NEF", "TIFF")
    (tmp_path / "jpeg.nef").write_bytes(jpeg_of(PREVIEW))
    (tmp_path / "raw").write_bytes(raw_file(SCENE))
    Image.fromarray(PREVIEW).save(tmp_path / "plain.tif")
    names = ("old.NEF", "jpeg.nef", "raw", "plain.tif")
    with DecodePool(Fit(300), Limits(), workers=1) as pool:
        outcomes = [
            str(found) if isinstance(found, ImageError) else found.format  # type: ignore[union-attr]
            for _, found in pool.map(Job(str(tmp_path / name)) for name in names)
        ]
    assert outcomes[0].startswith("unsupported: LibRaw")
    assert outcomes[1:] == ["JPEG", "DNG", "TIFF"]
