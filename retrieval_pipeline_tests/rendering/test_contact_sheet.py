from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.rendering.contact_sheet import INK, contact_sheet

Colour = tuple[int, int, int]
RED, GREEN, BLUE, WHITE = (220, 20, 20), (20, 180, 40), (20, 40, 220), (250, 250, 250)


def pixels(png: bytes) -> npt.NDArray[np.int64]:
    image = Image.open(BytesIO(png))
    assert image.format == "PNG"
    return np.asarray(image.convert("RGB"), np.int64)


def near(sheet: npt.NDArray[np.int64], colour: Colour) -> npt.NDArray[np.bool_]:
    return np.abs(sheet - colour).max(axis=-1) < 24


def box(sheet: npt.NDArray[np.int64], colour: Colour) -> tuple[int, int, int, int]:
    """Return left, top, right, bottom of what has this colour."""
    rows, columns = np.nonzero(near(sheet, colour))
    return columns.min(), rows.min(), columns.max() + 1, rows.max() + 1


@pytest.fixture
def photo(tmp_path: Path) -> Callable[[Colour, tuple[int, int]], Job]:
    def make(colour: Colour, size: tuple[int, int]) -> Job:
        path = tmp_path / f"{colour[0]}-{colour[1]}-{size[0]}.png"
        Image.new("RGB", size, colour).save(path)
        return Job(path)

    return make


def test_pictures_are_in_reading_order(photo: Callable[..., Job]) -> None:
    paths = [photo(colour, (300, 200)) for colour in (RED, GREEN, BLUE, WHITE)]
    sheet = pixels(contact_sheet(paths, Limits()))
    red, green, blue, white = (box(sheet, colour) for colour in (RED, GREEN, BLUE, WHITE))
    assert red[2] <= green[0]
    assert red[1] == green[1]
    assert red[3] <= blue[1]
    assert blue[2] <= white[0]
    assert (blue[0], blue[1]) == (red[0], white[1])


def test_pictures_of_a_row_are_equally_high_and_keep_their_shapes(
    photo: Callable[..., Job],
) -> None:
    sheet = pixels(contact_sheet([photo(RED, (300, 200)), photo(BLUE, (200, 300))], Limits()))
    for colour, ratio in ((RED, 1.5), (BLUE, 2 / 3)):
        left, top, right, bottom = box(sheet, colour)
        assert (right - left) / (bottom - top) == pytest.approx(ratio, rel=0.02)
    assert box(sheet, RED)[1::2] == box(sheet, BLUE)[1::2]


@pytest.mark.parametrize("count", [1, 7, 60])
def test_a_sheet_stays_below_100_kb_whatever_it_shows(tmp_path: Path, count: int) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 450, 3), np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(noise).save(path)
    png = contact_sheet([Job(path)] * count, Limits(), [f"0.{n:03}" for n in range(count)])
    assert len(png) < 70_000
    height, width, _ = pixels(png).shape
    assert width > 200
    assert height > 100


def test_a_file_that_cannot_be_used_keeps_its_place(
    photo: Callable[..., Job], tmp_path: Path
) -> None:
    (tmp_path / "broken.jpg").write_bytes(b"no picture at all")
    paths = [photo(RED, (400, 300)), Job(tmp_path / "broken.jpg"), photo(BLUE, (400, 300))]
    sheet = pixels(contact_sheet([*paths, Job(tmp_path / "gone.jpg")], Limits()))
    red, blue = box(sheet, RED), box(sheet, BLUE)
    beside_red, beside_blue = sheet[red[1] : red[3], red[2] :], sheet[blue[1] : blue[3], blue[2] :]
    for tile in (beside_red, beside_blue):
        assert tile.shape[1] > 200
        assert near(tile, INK).any()
        assert np.ptp(tile, axis=-1).max() < 24


def test_captions_are_below_their_pictures_and_as_wide_at_most(
    photo: Callable[..., Job],
) -> None:
    paths = [photo(RED, (300, 200)), photo(BLUE, (300, 200))]
    plain = pixels(contact_sheet(paths, Limits()))
    sheet = pixels(contact_sheet(paths, Limits(), ["a very long caption " * 20]))
    assert sheet.shape[0] > plain.shape[0]
    red, blue = box(sheet, RED), box(sheet, BLUE)
    ink = near(sheet, INK)[red[3] :]
    assert ink[:, red[0] : red[2]].any()
    assert not ink[:, blue[0] - 2 :].any()


def test_no_pictures_are_said_to_be_none() -> None:
    sheet = pixels(contact_sheet([], Limits()))
    assert near(sheet, INK).any()


def test_the_same_pictures_give_the_same_sheet(photo: Callable[..., Job]) -> None:
    paths = [photo(RED, (300, 200)), photo(BLUE, (200, 200))]
    assert contact_sheet(paths, Limits()) == contact_sheet(paths, Limits())
