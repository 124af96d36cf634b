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
