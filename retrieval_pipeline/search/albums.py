"""The pictures of albums: as a filter, and as an example of what to look for."""

from collections.abc import Sequence

import numpy as np

from retrieval_pipeline.errors import AlbumError, QueryError
from retrieval_pipeline.search.vector_index import VectorIndex
from retrieval_pipeline.storage.albums import read_album
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Numbers, Values, Vectors

# An album is looked for by so many of its pictures: more would make each count for little when the
# relevance of hits is judged part by part.
REPRESENTATIVES = 8
# They are chosen among so many pictures, evenly spaced: 16 MB of cosines.
MOST_COMPARED = 2_000


def album_ids(store: Store, names: Sequence[str]) -> list[str]:
    """Return the content ids of the pictures in one of these albums, sorted.

    Raises:
        QueryError: There is no such album.
        StoreError: An album is damaged.
    """
    ids: set[str] = set()
    for name in names:
        try:
            ids.update(picture.content_id for picture in read_album(store, name))
        except AlbumError as error:
            raise QueryError(*error.args) from None
    return sorted(ids)


def album_parts(index: VectorIndex, store: Store, name: str) -> list[tuple[float, Vectors]]:
    """Return a few pictures of an album that stand for all: weight and vector, (dim,), of each.

    The weights are the shares of the album that each stands for; their sum is 1, so that an album
    weighs as much in a query as one picture does.

    Raises:
        QueryError: There is no such album, or none of its pictures is in the index.
    """
    items = index.find(album_ids(store, [name]))
    if not len(items):
        raise QueryError(f'no picture of the album "{name}" is in the index')
    spaced = np.linspace(0, len(items) - 1, min(len(items), MOST_COMPARED)).round()
    vectors = index.vectors(items[spaced.astype(np.int64)])
    chosen, shares = representatives(vectors, REPRESENTATIVES)
    return [
        (share, vectors[number])
        for number, share in zip(chosen.tolist(), shares.tolist(), strict=True)
    ]


def representatives(vectors: Vectors, count: int) -> tuple[Numbers, Values]:
    """Choose the vectors to which all are nearest, and the share of all that is nearest to each.

    Each step takes the vector that raises the sum of the cosines with the nearest chosen one most.
    That sum is submodular, so the choice reaches at least 63 % of the best one (Nemhauser et al.,
    1978, doi:10.1007/BF01588971).

    Args:
        vectors: float32 (n, dim), of unit length.
        count: How many; all if there are not more.

    Returns:
        Rows of `vectors`, int64 (m,), and shares, float64 (m,), whose sum is 1.
    """
    cosines = vectors @ vectors.T
    nearest = np.full(len(vectors), -1, np.float32)
    chosen: list[int] = []
    for _ in range(min(count, len(vectors))):
        gains = np.maximum(cosines - nearest, 0).sum(axis=1)
        gains[chosen] = -1
        chosen.append(int(gains.argmax()))
        nearest = np.maximum(nearest, cosines[chosen[-1]])
    owners = cosines[chosen].argmax(axis=0)
    return np.array(chosen), np.bincount(owners, minlength=len(chosen)) / len(vectors)
