from pathlib import Path

import pytest

from retrieval_pipeline.storage.content_id import content_id, content_id_of_file


def test_the_content_id_is_the_first_128_bits_of_blake3() -> None:
    # The empty input of the official BLAKE3 test vectors.
    assert content_id(b"") == "af1349b9f5f9a1a6a0404dea36dcc949"


@pytest.mark.parametrize("size", [0, 1, 1024, 3_000_001])
def test_a_file_has_the_content_id_of_its_bytes(tmp_path: Path, size: int) -> None:
    data = bytes(i * 31 % 251 for i in range(size))
    path = tmp_path / "newline\nand\udcff.jpg"
    path.write_bytes(data)
    assert content_id_of_file(path) == content_id(data)


def test_one_flipped_bit_is_another_content() -> None:
    assert content_id(b"picture") != content_id(b"pictuse")


def test_a_file_that_vanished_is_an_operating_system_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        content_id_of_file(tmp_path / "gone.jpg")
