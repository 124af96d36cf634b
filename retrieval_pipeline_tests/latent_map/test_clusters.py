import numpy as np
import pytest

from retrieval_pipeline.errors import MapError
from retrieval_pipeline.latent_map.clusters import CHOICES, find_clusters, sample
from retrieval_pipeline.vectors import Vectors, normalise

DIM = 16


def blobs(*sizes: int, spread: float = 0.05, seed: int = 0) -> Vectors:
    """Unit vectors around the first axes, so many around each."""
    rng = np.random.default_rng(seed)
    centres = np.repeat(np.eye(DIM)[: len(sizes)], sizes, axis=0)
    return normalise(centres + spread * rng.standard_normal(centres.shape))


@pytest.mark.parametrize("count", [4, 6, 10])
def test_the_number_of_clusters_is_found_by_itself(count: int) -> None:
    assert count in CHOICES
    assert len(find_clusters(blobs(*[20] * count))) == count


def test_clusters_come_by_size_and_hold_what_belongs_together() -> None:
    vectors = blobs(5, 30, 12)
    clusters = find_clusters(vectors, 3)
    members, distances = clusters.assign(vectors)
    assert members.tolist() == [2] * 5 + [0] * 30 + [1] * 12
    expected = np.linalg.norm(vectors - clusters.centroids[members], axis=1)
    assert distances == pytest.approx(expected, abs=1e-3)


def test_the_same_vectors_give_the_same_clusters() -> None:
    vectors = blobs(40, 40, 40, 40, spread=0.3)
    assert np.array_equal(find_clusters(vectors).centroids, find_clusters(vectors).centroids)


def test_each_cluster_gets_the_nearest_word_and_no_word_is_used_twice() -> None:
    clusters = find_clusters(blobs(30, 20, 10), 3)
    # Both of the first two clusters are nearest to "flower"; the first one more so.
    words = np.zeros((4, DIM), np.float32)
    words[0, :2] = 0.9, 0.6
    words[1, 1] = 0.5
    words[2, 2] = 1
    words[3, 9] = 1
    named = clusters.named(["flower", "daisy", "dog", "nothing"], words)
    assert named.names == ("flower", "daisy", "dog")


def test_clusters_beyond_the_words_keep_their_number() -> None:
    clusters = find_clusters(blobs(30, 20, 10), 3)
    named = clusters.named(["flower"], np.eye(DIM, dtype=np.float32)[:1])
    assert named.names == ("flower", "cluster 2", "cluster 3")


def test_more_clusters_than_images_are_refused_with_the_number_that_would_do() -> None:
    with pytest.raises(MapError, match=r"9 clusters .* only 8 images: ask for at most 8"):
        find_clusters(blobs(8), 9)
    assert len(find_clusters(blobs(8), 8)) == 8


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_handful_of_images_is_one_cluster(count: int) -> None:
    assert len(find_clusters(blobs(count))) == 1


def test_images_that_are_all_the_same_are_one_cluster_even_if_more_were_asked_for() -> None:
    same = np.repeat(blobs(1), 50, axis=0)
    assert len(find_clusters(same)) == 1
    assert len(find_clusters(same, 7)) == 1


def test_a_sample_is_ordered_distinct_and_always_the_same() -> None:
    some = sample(1_000, 100)
    assert len(some) == 100
    assert (np.diff(some) > 0).all()
    assert np.array_equal(some, sample(1_000, 100))
    assert sample(5, 100).tolist() == [0, 1, 2, 3, 4]
