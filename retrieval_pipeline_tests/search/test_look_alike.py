import functools
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw, ImageEnhance, ImageFont

from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.search.details import agree
from retrieval_pipeline.search.look_alike import Look, details_of, look_of

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


def same(one: Job, other: Job) -> bool:
    first, second = looks(one), looks(other)
    return first[0].like(second[0]) and agree(first[1], second[1])


@functools.cache
def looks(job: Job) -> tuple[Look, Image.Image]:
    return look_of(job, LIMITS), details_of(job, LIMITS)


@pytest.mark.parametrize("change", ["half", "jpeg", "brighter", "grey", "trimmed"])
def test_a_copy_looks_the_same(cat: Image.Image, file_of: FileOf, change: str) -> None:
    width, height = cat.size
    copy = {
        "half": lambda: file_of(cat.resize((width // 2, height // 2))),
        "jpeg": lambda: file_of(cat, "JPEG"),
        "brighter": lambda: file_of(ImageEnhance.Brightness(cat).enhance(1.2)),
        "grey": lambda: file_of(cat.convert("L")),
        "trimmed": lambda: file_of(cat.crop((12, 8, width - 9, height - 10))),
    }[change]()
    assert same(copy, file_of(cat))


def test_a_photograph_with_a_small_edit_is_a_copy_and_one_with_a_large_is_not(
    cat: Image.Image, file_of: FileOf
) -> None:
    small, large = cat.copy(), cat.copy()
    small.paste("white", (100, 100, 130, 130))
    large.paste(cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT).crop((0, 0, 150, 150)), (150, 100))
    assert same(file_of(small), file_of(cat))
    assert not same(file_of(large), file_of(cat))


def test_other_photographs_look_different(sample_photos: dict[str, Path]) -> None:
    jobs = [Job(photo) for photo in sample_photos.values()]
    assert [pair for pair in itertools.combinations(jobs, 2) if same(*pair)] == []


def page(*lines: str, colour: str = "navy") -> Image.Image:
    """A page with a coloured head and lines of text."""
    image = Image.new("RGB", (600, 800), "white")
    draw = ImageDraw.Draw(image)
    draw.rectangle((0, 0, 600, 120), fill=colour)
    for number, line in enumerate(lines):
        draw.text((60, 200 + 60 * number), line, "black", ImageFont.load_default(20))
    return image


def test_pages_that_differ_in_a_few_letters_are_different(file_of: FileOf) -> None:
    january = page("ACME Energy", "31 January", "gas 120.50")
    one = file_of(january)
    assert not same(one, file_of(page("ACME Energy", "28 February", "gas 340.00"), "JPEG"))
    assert same(one, file_of(january.resize((300, 400)), "JPEG"))


def test_what_differs_in_its_colours_alone_is_different(file_of: FileOf) -> None:
    one, other = page("t-shirt, L", colour="#c00000"), page("t-shirt, L", colour="#005fc0")
    assert not same(file_of(one), file_of(other))


def test_pictures_of_one_colour_look_like_those_of_the_same_only(
    cat: Image.Image, file_of: FileOf
) -> None:
    red, small = Image.new("RGB", (50, 40), "red"), Image.new("RGB", (30, 30), "red")
    assert same(file_of(red), file_of(small, "JPEG"))
    for other in (cat, *(Image.new("RGB", (50, 40), colour) for colour in ("white", "#00827e"))):
        assert not same(file_of(red), file_of(other))


def test_documents_of_people_are_told_apart_and_copies_found(shared_data: Path) -> None:
    jobs = [Job(file) for file in sorted((shared_data / "field_cases" / "looks").iterdir())]
    alike = {
        (one.path.name, other.path.name)
        for one, other in itertools.combinations(jobs, 2)
        if same(one, other)
    }
    zebra = ("z.jpg", "z_exif.jpg", "z_grey.jpg", "z_small.webp")
    assert alike == set(itertools.combinations(zebra, 2))


def test_what_is_no_picture_has_no_look(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("text")
    with pytest.raises(ImageError):
        look_of(Job(tmp_path / "text"), LIMITS)
