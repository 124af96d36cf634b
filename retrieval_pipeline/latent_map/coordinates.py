"""The map of a build: coordinates, clusters and their names, made, stored and read.

How it looks is decided in `drawing`, `html` and `picture`.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import ValidationError

from retrieval_pipeline.errors import MapError, StoreError
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.index.vocabulary import words
from retrieval_pipeline.latent_map.clusters import KMEANS_SAMPLE, Clusters, find_clusters, sample
from retrieval_pipeline.latent_map.neighbours import LAYOUT, lay_out
from retrieval_pipeline.latent_map.pca import (
    COMPONENTS,
    SMALLEST_MAP,
    Basis,
    alignment,
    drift,
    fit_basis,
)
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.atomic import replacing
from retrieval_pipeline.storage.reading import is_there, reading
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.stored_model import StoredModel
from retrieval_pipeline.storage.tables import read_table, write_table
from retrieval_pipeline.vectors import Numbers, Vectors

FORMAT = 1
NEIGHBOURS_FILE = "neighbours.parquet"
# Vectors in memory at a time: 50 MB at 768 dimensions.
BATCH_ROWS = 16_384
# The finest grid for choosing which images to show has 2**LEVELS cells a side: 16,384 cells, more
# than any picture has room for.
LEVELS = 7
# A map of more images shows so many of them.
MAPPED_ITEMS = 1_000_000


COORDINATES = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("x", pa.float32(), nullable=False),
        pa.field("y", pa.float32(), nullable=False),
        pa.field("z", pa.float32(), nullable=False),
        pa.field("cluster", pa.int32(), nullable=False),
    ]
)


class ClusterInfo(StoredModel):
    """One cluster of a map."""

    name: str
    images: int


class MapInfo(StoredModel):
    """The contents of map.json.

    Attributes:
        format: Version of the map's files.
        build: The build that was mapped.
        model: Whose vectors they are.
        items: Number of images.
        explained: Share of the variance along x, y and z, 0 to 1.
        drift: How far images moved since the map before, see `pca.drift`; None without one.
        clusters: In the order of the numbers in coordinates.parquet.
    """

    format: int
    build: str
    model: str
    items: int
    explained: tuple[float, ...]
    drift: float | None
    clusters: tuple[ClusterInfo, ...]


@dataclass(frozen=True)
class LatentMap:
    """Where images lie.

    Attributes:
        corpus: What they are from.
        numbers: int64 (n,), the items of it that are shown.
        coordinates: float32 (n, COMPONENTS).
        members: int32 (n,), the cluster of each.
        distances: float32 (n,), from the centroid of that cluster.
        basis: What made the coordinates.
        clusters: Their centroids and names.
        info: The facts about it.
        neighbours: float32 (n, 2), the layout by UMAP; None without one.
    """

    corpus: Corpus
    numbers: Numbers
    coordinates: Vectors
    members: npt.NDArray[np.int32]
    distances: Vectors
    basis: Basis
    clusters: Clusters
    info: MapInfo
    neighbours: Vectors | None = None

    def from_coarse_to_fine(self) -> Numbers:
        """Return rows of the map so that any beginning of them covers it evenly, int64 (m,).

        Over finer and finer grids, each cell of the first two coordinates that has no row yet adds
        the one nearest to the centre of its cluster: the best representative of that region.
        """
        ranked = np.lexsort((self.numbers, self.distances))
        return from_coarse_to_fine(self.coordinates[:, :2], ranked)


def from_coarse_to_fine(points: Vectors, ranked: Numbers) -> Numbers:
    """Return rows so that any beginning of them covers the plane evenly, int64 (m,).

    Over finer and finer grids, each cell that has no row yet adds its first one of `ranked`.

    Args:
        points: float32 (n, 2).
        ranked: int64 (n,), all rows, the most representative first.
    """
    low = points.min(axis=0)
    extent = np.maximum(points.max(axis=0) - low, 1e-9)
    unit = (points - low) / extent
    chosen: Numbers = np.empty(0, np.int64)
    for level in range(1, LEVELS + 1):
        side = 2**level
        cells = np.minimum((unit * side).astype(np.int64), side - 1) @ np.array([1, side])
        found, first = np.unique(cells[ranked], return_index=True)
        new = np.sort(first[~np.isin(found, cells[chosen])])
        chosen = np.concatenate([chosen, ranked[new]])
    return chosen


def make_map(
    corpus: Corpus,
    *,
    numbers: Numbers | None = None,
    clusters: int | None = None,
    previous: pa.Table | None = None,
    progress: Progress | None = None,
) -> LatentMap:
    """Map the items `numbers` of a corpus (default: all).

    Clusters are named after its vocabulary; without one they are numbered.

    Args:
        corpus: Where the vectors are.
        numbers: int64 (n,), in ascending order.
        clusters: How many; None chooses.
        previous: Coordinates of the map that this one should resemble.
        progress: Told of the steps.

    Raises:
        MapError: There are fewer than SMALLEST_MAP images, or fewer than `clusters`.
        VectorError: A vector is not finite or not of unit length.
    """
    progress = progress or Quiet()
    numbers = np.arange(len(corpus)) if numbers is None else numbers
    if len(numbers) < SMALLEST_MAP:
        raise MapError(f"a map needs at least {SMALLEST_MAP} images; here are {len(numbers)}")

    def batches() -> Iterator[Vectors]:
        for start in range(0, len(numbers), BATCH_ROWS):
            vectors = corpus.vectors(numbers[start : start + BATCH_ROWS])
            yield vectors
            progress.advance(len(vectors))

    progress.start("finding the axes of the map", len(numbers), "images")
    basis = fit_basis(batches(), corpus.info.dim)
    progress.finish()
    progress.start("finding the clusters of the map", None, "")
    some = corpus.vectors(numbers[sample(len(numbers), KMEANS_SAMPLE)])
    found = find_clusters(some, clusters, progress)
    if corpus.vocabulary is not None:
        found = found.named(words(), corpus.vocabulary)
    progress.finish()
    progress.start("placing images on the map", len(numbers), "images")
    coordinates = np.empty((len(numbers), COMPONENTS), np.float32)
    members = np.empty(len(numbers), np.int32)
    distances = np.empty(len(numbers), np.float32)
    row = 0
    for vectors in batches():
        rows = slice(row, row := row + len(vectors))
        coordinates[rows] = basis.project(vectors)
        members[rows], distances[rows] = found.assign(vectors)
    progress.finish()
    moved = None
    if previous is not None:
        here, there = _common(corpus, numbers, previous)
        if len(here) >= SMALLEST_MAP:
            before = _xyz(previous)[there]
            rotation = alignment(basis.explained, coordinates[here], before)
            basis = basis.turned(rotation)
            coordinates = coordinates @ rotation.astype(np.float32)
            moved = drift(coordinates[here], before)
    sizes = np.bincount(members, minlength=len(found))
    info = MapInfo(
        format=FORMAT,
        build=corpus.name,
        model=corpus.info.model,
        items=len(numbers),
        explained=tuple(round(float(share), 6) for share in basis.explained),
        drift=None if moved is None else round(moved, 6),
        clusters=tuple(
            ClusterInfo(name=name, images=int(size))
            for name, size in zip(found.names, sizes, strict=True)
        ),
    )
    return LatentMap(corpus, numbers, coordinates, members, distances, basis, found, info)


def mapped_of(items: int) -> str:
    """Say that a map shows MAPPED_ITEMS of so many images."""
    return f"the map shows {MAPPED_ITEMS:,} of {items:,} pictures, evenly spaced"


def with_neighbours(latent: LatentMap, former: pa.Table | None, progress: Progress) -> LatentMap:
    """Return a map with a layout by UMAP beside its axes; see `neighbours.lay_out`.

    Args:
        latent: The map.
        former: The layout of the map before, if there was one.
        progress: Told of the step, which takes minutes for tens of thousands of pictures.
    """
    progress.start("laying the map out by neighbours", None, "")
    places = lay_out(
        lambda rows: latent.corpus.vectors(latent.numbers[rows]),
        _content_ids(latent),
        latent.coordinates[:, :2],
        former,
    )
    progress.finish()
    return replace(latent, neighbours=places)


def save_map(latent: LatentMap, directory: Path) -> None:
    """Write basis.npz, coordinates.parquet, the layout by UMAP and map.json into a directory.

    Raises:
        StoreError: The file system refused.
    """
    with replacing(directory / "basis.npz") as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            mean=latent.basis.mean,
            components=latent.basis.components,
            explained=latent.basis.explained,
            centroids=latent.clusters.centroids,
        )
    if latent.neighbours is not None:
        layout = [_content_ids(latent), *map(pa.array, latent.neighbours.T.copy())]
        table = pa.table(layout, schema=LAYOUT)
        write_table(directory / NEIGHBOURS_FILE, table, latent.corpus.info.space)
    columns = [
        _content_ids(latent),
        *(pa.array(axis) for axis in latent.coordinates.T.copy()),
        pa.array(latent.members),
    ]
    table = pa.table(columns, schema=COORDINATES)
    write_table(directory / "coordinates.parquet", table, latent.corpus.info.space)
    with replacing(directory / "map.json") as temporary:
        temporary.write_text(latent.info.model_dump_json(indent=2), encoding="utf-8")


def read_map_info(directory: Path) -> MapInfo:
    """Read map.json.

    Raises:
        MapError: It is missing, damaged or of another version.
        UnreadableError: It cannot be read.
    """
    file = directory / "map.json"
    try:
        with reading(file):
            info = MapInfo.model_validate_json(file.read_bytes())
    except OSError as error:
        raise MapError(f"{file}: {error.strerror}: run `retrieval index`") from None
    except ValidationError as error:
        raise MapError(
            f"{file}: damaged ({error.errors()[0]['msg']}): remove {directory} and run "
            "`retrieval index`"
        ) from None
    if info.format != FORMAT:
        raise MapError(f"{file}: of another version: remove {directory} and run `retrieval index`")
    return info


def read_neighbours(directory: Path) -> pa.Table | None:
    """Read the layout by UMAP, as LAYOUT; None if the map has none.

    Raises:
        StoreError: It is damaged, of another version, or holds a place that is not finite.
    """
    path = directory / NEIGHBOURS_FILE
    if not is_there(path):
        return None
    table = read_table(path, LAYOUT)
    if not all(np.isfinite(table[axis].to_numpy()).all() for axis in "xy"):
        raise StoreError(
            f"{path}: holds a place that is not finite: remove {directory} and run "
            "`retrieval index`"
        )
    return table


def previous_neighbours(store: Store) -> pa.Table | None:
    """Return the layout by UMAP of the last map that has one; None if there is none."""
    for directory in reversed(store.maps()):
        try:
            table = read_neighbours(directory)
        except StoreError:
            continue
        if table is not None:
            return table
    return None


def read_coordinates(directory: Path) -> pa.Table:
    """Read coordinates.parquet.

    Raises:
        StoreError: It is damaged, of another version, or holds a coordinate that is not finite.
    """
    path = directory / "coordinates.parquet"
    table = read_table(path, COORDINATES)
    if not np.isfinite(_xyz(table)).all():
        raise StoreError(
            f"{path}: holds a coordinate that is not finite: remove {directory} and run "
            "`retrieval index`"
        )
    return table


def previous_coordinates(store: Store, build: str) -> pa.Table | None:
    """Return the coordinates of the map of `build`, else of the map drawn last, or None.

    A damaged map is passed over: it can only say how the next one would have been turned.
    """
    for directory in (store.map(build), *reversed(store.maps())):
        try:
            return read_coordinates(directory)
        except StoreError:
            continue
    return None


def orphaned_maps(store: Store, builds: Iterable[Path]) -> list[Path]:
    """Return the maps that belong to none of `builds`, but for those with files of others.

    Those of what was published to an engine are no orphans.
    """
    names = {build.name for build in builds}
    for collection in store.engine_collections():
        from retrieval_pipeline.index.milvus.ledger import Ledger  # for homes with an engine alone

        if (published := Ledger(collection).published()) is not None:
            names.add(published.build)
    orphans = [directory for directory in store.maps() if directory.name not in names]
    return [directory for directory in orphans if store.is_removable(directory)]


def _content_ids(latent: LatentMap) -> pa.Array:
    ids = latent.corpus.items["content_id"].take(pa.array(latent.numbers))
    return ids.combine_chunks()


def _common(corpus: Corpus, numbers: Numbers, previous: pa.Table) -> tuple[Numbers, Numbers]:
    """Return rows of the map and rows of `previous` that are the same image."""
    ids = corpus.items.column("content_id").take(pa.array(numbers)).combine_chunks()
    rows = pc.index_in(ids, previous["content_id"].combine_chunks())
    here = np.flatnonzero(pc.is_valid(rows).to_numpy(zero_copy_only=False))
    return here, rows.drop_null().to_numpy(zero_copy_only=False).astype(np.int64)


def _xyz(table: pa.Table) -> Vectors:
    return np.stack([table[axis].to_numpy() for axis in "xyz"], axis=1)
