"""The layout of the map by UMAP: old pictures stay, new ones come among their neighbours."""

import numpy as np
import pyarrow as pa
import pytest

from retrieval_pipeline.latent_map.neighbours import LAYOUT, lay_out
from retrieval_pipeline.vectors import Vectors, normalise
from synthetic.tables import content, random_vectors

DIM = 16
GROUP = 30
# Two groups that are far apart.
VECTORS = normalise(
    np.repeat(np.eye(DIM, dtype=np.float32)[:2], GROUP, axis=0)
    + 0.1 * random_vectors(2 * GROUP, DIM)
)
IDS = pa.array([content(f"picture {number}") for number in range(2 * GROUP)])


def laid(count: int, former: pa.Table | None) -> Vectors:
    """Lay out every nth picture, `count` in all."""
    rows = np.linspace(0, len(IDS) - 1, count).astype(np.int64)
    vectors = VECTORS[rows]
    return lay_out(lambda some: vectors[some], IDS.take(rows), vectors[:, :2].copy(), former)


def test_pictures_keep_their_places_and_a_new_one_comes_among_its_neighbours() -> None:
    old = np.delete(np.arange(2 * GROUP), [3, GROUP + 3])
    places = np.random.default_rng(0).standard_normal((len(old), 2)).astype(np.float32)
    places[old >= GROUP] += 100
    former = pa.table([IDS.take(old), *map(pa.array, places.T.copy())], schema=LAYOUT)
    everything = laid(2 * GROUP, former)
    assert np.array_equal(everything[old], places)
    assert np.abs(everything[3]).max() < 5
    assert np.abs(everything[GROUP + 3] - 100).max() < 5


@pytest.mark.slow
def test_umap_lays_groups_apart_the_same_way_each_time_and_as_they_lay_before() -> None:
    pytest.importorskip("umap")
    first = laid(2 * GROUP, None)
    middles = first[:GROUP].mean(axis=0), first[GROUP:].mean(axis=0)
    within = np.linalg.norm(first[:GROUP] - middles[0], axis=1).mean()
    assert np.linalg.norm(middles[0] - middles[1]) > 2 * within
    assert np.array_equal(laid(2 * GROUP, None), first)
    # A third of the places are known: all are laid out again, turned towards those.
    known = np.arange(0, 2 * GROUP, 3)
    turned = np.stack([50 - first[known, 1], first[known, 0] + 50], axis=1)
    former = pa.table([IDS.take(known), *map(pa.array, turned.T.copy())], schema=LAYOUT)
    assert np.linalg.norm(laid(2 * GROUP, former)[known] - turned, axis=1).mean() < 2 * within
