import numpy as np
import pytest

from retrieval_pipeline.index.row_keys import content_ids_of, find, keys_of


@pytest.mark.parametrize("keys_per_shelf", [40, 500_000])
def test_keys_are_found_where_they_stand_first(
    keys_per_shelf: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("retrieval_pipeline.index.row_keys.KEYS_PER_SHELF", keys_per_shelf)
    random = np.random.default_rng(1)
    among = random.integers(0, 4, (500, 16), np.uint8)
    among[:, 2:14] = 0
    keys = np.concatenate([random.integers(0, 4, (300, 16), np.uint8), among[::-1]])
    first: dict[bytes, int] = {}
    for row, key in enumerate(among):
        first.setdefault(key.tobytes(), row)
    assert len(first) < len(among)
    assert find(keys, among).tolist() == [first.get(key.tobytes(), -1) for key in keys]


def test_content_ids_become_keys_and_again_content_ids() -> None:
    keys = np.random.default_rng(2).integers(0, 256, (5, 16), np.uint8)
    ids = [key.tobytes().hex() for key in keys]
    assert content_ids_of(keys).to_pylist() == ids
    assert keys_of(content_ids_of(keys[1:])).tolist() == keys[1:].tolist()
