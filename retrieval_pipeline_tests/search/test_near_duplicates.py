from pathlib import Path

import numpy as np
import pytest

from retrieval_pipeline.index.build import Build, open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.search import near_duplicates as duplicates
from retrieval_pipeline.search.near_duplicates import fold, near_duplicates
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace, normalise
from synthetic.tables import random_vectors, write_manifest, write_part

DIM = 32
SPACE = VectorSpace("m", "r", DIM, "p")


class AlwaysSame:
    def same(self, one: int, other: int) -> bool:
        return True


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """300 pictures; 5, 100 and 200 look the same, and 7 and 8 do."""
    vectors = random_vectors(300, DIM)
    vectors[[100, 200]] = vectors[5]
    vectors[8] = vectors[7]
    vectors = normalise(vectors + 1e-3 * random_vectors(300, DIM, seed=1))
    store = Store(tmp_path)
    names = [f"{number:03d}" for number in range(300)]
    write_manifest(store, "a", {f"{name}.jpg": name for name in names})
    write_part(store, SPACE, "a", names, vectors)
    build_index(store, SPACE, ["a"])
    return open_current(store)


@pytest.mark.parametrize("all_pairs", [0, 1_000])
def test_pictures_that_look_the_same_are_grouped(
    build: Build, all_pairs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(duplicates, "ALL_PAIRS", all_pairs)
    groups = near_duplicates(build, 0.98, AlwaysSame())  # type: ignore[arg-type]
    assert [(group.leader, group.others.tolist()) for group in groups] == [
        (5, [100, 200]),
        (7, [8]),
    ]
    assert all((group.cosines > 0.99).all() for group in groups)


def test_a_row_of_small_changes_is_not_one_group() -> None:
    angles = np.radians(np.arange(0, 60, 10))
    row = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    assert fold(row, np.cos(np.radians(11)), lambda one, other: True) == [[0, 1], [2, 3], [4, 5]]
