"""What several test modules share: the optional folder of real photos and odd files."""

from pathlib import Path

import pytest

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real photos and odd files that developers have at hand; absent on a user's machine."""
    if not SHARED_DATA.is_dir():
        pytest.skip(f"the folder of test photos is not there: {SHARED_DATA}")
    return SHARED_DATA


@pytest.fixture(scope="session")
def sample_photos() -> dict[str, Path]:
    """Real photographs that scikit-image and scikit-learn carry."""
    import skimage
    import sklearn

    photos = Path(skimage.__file__).parent / "data"
    more = Path(sklearn.__file__).parent / "datasets" / "images"
    return {
        "cat": photos / "chelsea.png",
        "coffee": photos / "coffee.png",
        "rocket": photos / "rocket.jpg",
        "astronaut": photos / "astronaut.png",
        "motorcycle": photos / "motorcycle_left.png",
        "flower": more / "flower.jpg",
        "temple": more / "china.jpg",
    }
