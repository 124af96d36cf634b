"""Regions of a map: k-means over the vectors, each named after the nearest word."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.errors import MapError
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.vectors import Vectors

if TYPE_CHECKING:
    from sklearn.cluster import KMeans

SEED = 20  # Any fixed number: the same vectors give the same clusters.
# Numbers of clusters to choose from: a legend that one can read at a glance.
CHOICES = (4, 5, 6, 8, 10, 12, 16, 20)
# Members that a cluster must have on average; fewer make no region.
MEMBERS = 3
# Vectors that stand for all: silhouettes compare each with each, k-means passes over them often.
SILHOUETTE_SAMPLE = 2_000
KMEANS_SAMPLE = 20_000
# Starts of k-means, of which the best one counts.
STARTS = 4


@dataclass(frozen=True)
class Clusters:
    """Groups of images that are alike, the largest first.

    Attributes:
        centroids: float32 (k, dim), mean of each cluster's vectors.
        names: A word for each cluster.
    """

    centroids: Vectors
    names: tuple[str, ...]

    def __len__(self) -> int:
        """Return the number of clusters."""
        return len(self.centroids)

    def assign(self, vectors: Vectors) -> tuple[npt.NDArray[np.int32], Vectors]:
        """Return the nearest cluster, int32 (n,), of each vector, and its distance, float32."""
        squares = np.square(self.centroids).sum(axis=1)
        # On unit vectors |v - c|^2 = 1 - 2 v.c + |c|^2.
        distances = 1 + squares - 2 * (vectors @ self.centroids.T)
        nearest = np.argmin(distances, axis=1).astype(np.int32)
        chosen = distances[np.arange(len(vectors)), nearest]
        return nearest, np.sqrt(np.maximum(chosen, 0)).astype(np.float32)

    def named(self, words: Sequence[str], vectors: Vectors) -> "Clusters":
        """Name each cluster after a word of its own: together, the nearest words.

        Args:
            words: At least as many as there are clusters, or the rest keeps its number.
            vectors: float32 (len(words), dim), the words in the space of the images.
        """
        from scipy.optimize import linear_sum_assignment

        # Images and texts lie apart in such spaces, but all words by the same offset from one
        # centroid: their order is not touched, as in zero-shot classification.
        scores = self.centroids @ vectors.T
        names = list(self.names)
        for cluster, word in zip(*linear_sum_assignment(-scores), strict=True):
            names[cluster] = words[word]
        return replace(self, names=tuple(names))


def find_clusters(
    vectors: Vectors, count: int | None = None, progress: Progress | None = None
) -> Clusters:
    """Find clusters among unit vectors (n, dim), n <= KMEANS_SAMPLE; they are numbered.

    Without a `count` the one of CHOICES with the highest silhouette (Rousseeuw 1987) is taken;
    `progress` is called after each, so that it can end the search.

    Raises:
        MapError: `count` is larger than the number of vectors.
    """
    if count is not None and count > len(vectors):
        raise MapError(
            f"{count} clusters were asked for, but the map shows only {len(vectors)} images: "
            f"ask for at most {len(vectors)}"
        )
    fitted = _kmeans(vectors, count or _best_count(vectors, progress or Quiet()))
    sizes = np.bincount(fitted.labels_, minlength=fitted.n_clusters)
    order = [number for number in np.argsort(-sizes, kind="stable") if sizes[number]]
    return Clusters(
        centroids=fitted.cluster_centers_[order].astype(np.float32),
        names=tuple(f"cluster {number}" for number in range(1, len(order) + 1)),
    )


def sample(items: int, count: int) -> npt.NDArray[np.int64]:
    """Return `count` of the numbers below `items`, or all if fewer: random, but always the same."""
    if items <= count:
        return np.arange(items)
    return np.sort(np.random.default_rng(SEED).choice(items, count, replace=False))


def _best_count(vectors: Vectors, progress: Progress) -> int:
    from sklearn.metrics import silhouette_score

    some = vectors[sample(len(vectors), SILHOUETTE_SAMPLE)]
    best, best_score = 1, -1.0
    for count in CHOICES:
        progress.advance(0)
        if count * MEMBERS > len(some):
            break
        labels = _kmeans(some, count).labels_
        if len(np.unique(labels)) < count:
            break
        if (score := silhouette_score(some, labels)) > best_score:
            best, best_score = count, score
    return best


def _kmeans(vectors: Vectors, count: int) -> "KMeans":
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning

    with warnings.catch_warnings():
        # Fewer different vectors than clusters: the empty clusters are dropped.
        warnings.simplefilter("ignore", ConvergenceWarning)
        return KMeans(count, n_init=STARTS, random_state=SEED).fit(vectors)
