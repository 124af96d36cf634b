"""A second layout of the map, by UMAP (McInnes, Healy, Melville 2018, arXiv:1802.03426).

It shows who is near to whom, where principal components show the widest directions: groups come
apart, but the distance between two groups says little. Pictures keep their places when others come:
a new one is put among its nearest neighbours, as UMAP's own `transform` begins, and nothing else
moves. Only when too many are new are all laid out again, and then turned to lie as they lay before.
"""

import warnings
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.latent_map.clusters import SEED, sample
from retrieval_pipeline.vectors import Numbers, Vectors

LAYOUT = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("x", pa.float32(), nullable=False),
        pa.field("y", pa.float32(), nullable=False),
    ]
)
# Neighbours that UMAP keeps together: its default.
NEIGHBOURS = 15
# Pictures that UMAP lays out, in a minute or two on two cores; the others are put among these.
FITTED = 20_000
# Neighbours among which a new picture is put, nearer ones counting more.
AMONG = 5
# From this share of new pictures on, all are laid out again.
REFIT_SHARE = 0.25
BATCH_ROWS = 1_024


def is_installed() -> bool:
    """Whether umap-learn is there, which the extra `umap` installs."""
    from importlib.util import find_spec

    return find_spec("umap") is not None


def lay_out(
    vectors: Callable[[Numbers], Vectors], ids: pa.Array, start: Vectors, former: pa.Table | None
) -> Vectors:
    """Return the place of each picture, float32 (n, 2).

    The same pictures with the same former places give the same places on one machine.

    Args:
        vectors: Gives the unit vectors, float32 (m, dim), of some pictures, by their numbers.
        ids: The content ids, (n,).
        start: float32 (n, 2), where the layout begins: along the principal components.
        former: The places of a map before, as LAYOUT.
    """
    known, places = _known(ids, former)
    if len(known) < (1 - REFIT_SHARE) * len(ids):
        fitted = sample(len(ids), FITTED)
        laid = _aligned(_fit(vectors(fitted), start[fitted]), fitted, known, places)
        known, places = fitted, laid
    everything = np.empty((len(ids), 2), np.float32)
    everything[known] = places
    new = np.setdiff1d(np.arange(len(ids)), known)
    if len(new):
        some = sample(len(known), FITTED)
        anchors, anchored = vectors(known[some]), places[some]
        for first in range(0, len(new), BATCH_ROWS):
            rows = new[first : first + BATCH_ROWS]
            everything[rows] = _put_among(vectors(rows), anchors, anchored)
    return everything


def _known(ids: pa.Array, former: pa.Table | None) -> tuple[Numbers, Vectors]:
    """Return which pictures had a place, and these places."""
    if former is None:
        return np.empty(0, np.int64), np.empty((0, 2), np.float32)
    rows = pc.index_in(ids, former["content_id"].combine_chunks())
    known = np.flatnonzero(pc.is_valid(rows).to_numpy(zero_copy_only=False))
    taken = rows.drop_null().to_numpy(zero_copy_only=False)
    return known, np.stack([former[axis].to_numpy()[taken] for axis in "xy"], axis=1)


def _fit(vectors: Vectors, start: Vectors) -> Vectors:
    """Return the places that UMAP gives to some pictures."""
    with warnings.catch_warnings():
        # Of numba and of small collections; neither says anything that people can act on.
        warnings.simplefilter("ignore")
        from umap import UMAP

        reducer = UMAP(
            n_neighbors=min(NEIGHBOURS, len(vectors) - 1),
            metric="cosine",
            init=start,
            random_state=SEED,
            n_jobs=1,
        )
        places: Vectors = reducer.fit_transform(vectors).astype(np.float32)
    return places


def _aligned(laid: Vectors, fitted: Numbers, known: Numbers, places: Vectors) -> Vectors:
    """Turn and move a layout so that the pictures that had places lie as near to them as can be.

    Orthogonal Procrustes (Schoenemann 1966), without a change of scale.
    """
    common, here, there = np.intersect1d(fitted, known, return_indices=True)
    if len(common) < 2:
        return laid
    from scipy.linalg import orthogonal_procrustes

    middle, wanted = laid[here].mean(axis=0), places[there].mean(axis=0)
    rotation, _ = orthogonal_procrustes(laid[here] - middle, places[there] - wanted)
    aligned: Vectors = ((laid - middle) @ rotation + wanted).astype(np.float32)
    return aligned


def _put_among(vectors: Vectors, anchors: Vectors, places: Vectors) -> Vectors:
    """Return the mean place of the nearest neighbours, float32 (m, 2); nearer ones count more."""
    count = min(AMONG, len(anchors))
    cosines = vectors @ anchors.T
    nearest = np.argpartition(-cosines, count - 1, axis=1)[:, :count]
    near = np.take_along_axis(cosines, nearest, axis=1)
    weights = near - near.min(axis=1, keepdims=True) + 1e-3
    weights /= weights.sum(axis=1, keepdims=True)
    put: Vectors = np.einsum("mk,mkd->md", weights, places[nearest]).astype(np.float32)
    return put
