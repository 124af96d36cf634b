import numpy as np

from retrieval_pipeline.index.row_keys import content_ids_of, find, keys_of


def test_keys_are_found_where_they_stand_first() -> None:
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
