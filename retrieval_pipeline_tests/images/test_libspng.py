"""PNGs that libspng decodes, against Pillow."""

from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from retrieval_pipeline.images import decode as decode_module
from retrieval_pipeline.images.formats import open_image
from retrieval_pipeline.images.libspng import load_plain_png
from retrieval_pipeline_tests.support.decoding import decode
from retrieval_pipeline_tests.support.encoders import TRANSFORM

pytest.importorskip("pyspng")


@pytest.fixture
def photo(sample_photos: dict[str, Path]) -> Image.Image:
    with Image.open(sample_photos["coffee"]) as image:
        return image.convert("RGB").resize((90, 70))


def png(image: Image.Image) -> bytes:
    """Return a PNG with texts before and behind its pixels."""
    texts, buffer = PngInfo(), BytesIO()
    texts.add_text("Title", "before")
    texts.add(b"tEXt", b"Description\0behind", after_idat=True)
    image.save(buffer, "PNG", pnginfo=texts)
    return buffer.getvalue()


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pixels_and_texts_are_those_of_pillow(photo: Image.Image, mode: str) -> None:
    photo.putalpha(photo.getchannel("R"))
    data = png(photo.convert(mode))
    found = load_plain_png(data, open_image(data))
    expected = open_image(data)
    expected.load()
    assert found is not None
    assert (found.mode, found.size, found.tobytes()) == (mode, photo.size, expected.tobytes())
    assert {**found.info} == {**expected.info}
    assert (found.info["Title"], found.info["Description"]) == ("before", "behind")


@pytest.mark.parametrize("damage", ["cut", "flipped", "palette", "grey of 16 bits", "one colour"])
def test_what_is_damaged_or_not_plain_is_left_to_pillow(photo: Image.Image, damage: str) -> None:
    unusual = {
        "palette": photo.quantize(16),
        "grey of 16 bits": photo.convert("L").convert("I;16"),
    }
    data = png(unusual.get(damage, photo))
    if damage == "cut":
        data = data[: len(data) // 2]
    elif damage == "flipped":
        middle = data.index(b"IDAT") + 2000
        data = data[:middle] + bytes([data[middle] ^ 64]) + data[middle + 1 :]
    elif damage == "one colour":  # that means transparent
        buffer = BytesIO()
        photo.save(buffer, "PNG", transparency=(0, 0, 0))
        data = buffer.getvalue()
    assert load_plain_png(data, open_image(data)) is None


def test_an_image_is_decoded_the_same_without_it(
    photo: Image.Image, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = png(photo)
    with_it = decode(data, TRANSFORM)
    monkeypatch.setattr(decode_module, "load_plain_png", lambda data, image: None)
    without = decode(data, TRANSFORM)
    assert with_it.pixels.tobytes() == without.pixels.tobytes()
    assert with_it.facts == without.facts
    assert with_it.facts is not None
    assert with_it.facts.caption == "behind"
