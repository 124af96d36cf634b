import itertools
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.search.look_alike import SAME, look_of

LIMITS = Limits()


FileOf = Callable[..., Job]


@pytest.fixture
def file_of(tmp_path: Path) -> FileOf:
    """Writes a picture into a file of its own."""
    numbers = itertools.count()

    def write(image: Image.Image, kind: str = "PNG", quality: int = 50) -> Job:
        path = tmp_path / str(next(numbers))
        image.save(path, kind, quality=quality)
        return Job(path)

    return write


@pytest.fixture
def cat(sample_photos: dict[str, Path]) -> Image.Image:
    with Image.open(sample_photos["cat"]) as image:
        return image.convert("RGB")


@pytest.mark.parametrize("change", ["half", "jpeg", "brighter", "trimmed"])
def test_a_copy_looks_the_same(cat: Image.Image, file_of: FileOf, change: str) -> None:
    width, height = cat.size
    copy = {
        "half": lambda: file_of(cat.resize((width // 2, height // 2))),
        "jpeg": lambda: file_of(cat, "JPEG"),
        "brighter": lambda: file_of(ImageEnhance.Brightness(cat).enhance(1.2)),
        "trimmed": lambda: file_of(cat.crop((4, 4, width - 4, height - 4))),
    }[change]()
    assert look_of(copy, LIMITS) @ look_of(file_of(cat), LIMITS) >= SAME


def test_other_photographs_look_different(sample_photos: dict[str, Path]) -> None:
    looks = np.array([look_of(Job(photo), LIMITS) for photo in sample_photos.values()])
    alike = looks @ looks.T
    np.testing.assert_allclose(np.diag(alike), 1, atol=1e-5)
    assert (alike >= SAME).sum() == len(looks)


def test_pictures_of_one_colour_look_like_each_other_only(
    cat: Image.Image, file_of: FileOf
) -> None:
    red, small = Image.new("RGB", (50, 40), "red"), Image.new("RGB", (30, 30), "red")
    looks = [look_of(file_of(image), LIMITS) for image in (red, small, cat)]
    assert looks[0] @ looks[1] >= SAME
    assert abs(looks[0] @ looks[2]) < 0.1


def test_what_is_no_picture_has_no_look(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    with pytest.raises(ImageError):
        look_of(Job(tmp_path / "text"), LIMITS)
