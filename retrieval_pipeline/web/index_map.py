"""The map of an index as pages have it: where its pictures lie, in which cluster and region."""

import functools
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.errors import MapError, StoreError
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.index.row_keys import find, keys_of
from retrieval_pipeline.latent_map.clusters import sample
from retrieval_pipeline.latent_map.coordinates import (
    MapInfo,
    from_coarse_to_fine,
    read_coordinates,
    read_map_info,
    read_neighbours,
)
from retrieval_pipeline.latent_map.drawing import colour_of, fact_groups
from retrieval_pipeline.latent_map.fact_groups import groupings
from retrieval_pipeline.latent_map.html import POINTS
from retrieval_pipeline.rendering.templating import as_base64
from retrieval_pipeline.search.query_vectors import QueryVectors
from retrieval_pipeline.vectors import Numbers, Vectors
from retrieval_pipeline.web.api_models import Coloured, FactColours, MapData
from retrieval_pipeline.web.parameters import Region

# Thumbnails that a map may show: more than the finest zoom has room for.
THUMBNAILS = 20_000


@dataclass(frozen=True)
class IndexMap:
    """Where the pictures of an index lie on its map.

    Attributes:
        info: The facts about the map.
        corpus: All items of the index.
        numbers: int64 (n,), the items that the map shows, ascending: of a million, all.
        x: float32 (n,).
        y: float32 (n,).
        clusters: int32 (n,), the cluster of each.
        neighbours: float32 (n, 2), where they lie in the layout by UMAP; None without one.
    """

    info: MapInfo
    corpus: Corpus
    numbers: Numbers
    x: Vectors
    y: Vectors
    clusters: npt.NDArray[np.int32]
    neighbours: Vectors | None

    def cluster_of(self, content_id: str) -> str | None:
        """Return the name of a picture's cluster; None if the map does not show the picture."""
        number = self.corpus.number_of(content_id)
        if number is None:
            return None
        row = int(np.searchsorted(self.numbers, number))
        if row == len(self.numbers) or self.numbers[row] != number:
            return None
        return self.info.clusters[int(self.clusters[row])].name

    def inside(self, region: Region) -> list[str]:
        """Return the content ids of the pictures in a region.

        Raises:
            MapError: The region is one of a layout that the map has not.
        """
        x, y = self.x, self.y
        if region.layout == "neighbours":
            if self.neighbours is None:
                raise MapError("this map has no layout by neighbours: choose the region anew")
            x, y = self.neighbours.T
        chosen = self.numbers[region.contains(x, y)]
        ids: list[str] = self.corpus.items["content_id"].take(pa.array(chosen)).to_pylist()
        return ids

    def told(self, query_vectors: QueryVectors | None) -> MapData:
        """Return what a browser draws the map from, with the nearness to a query if there is one.

        Raises:
            BuildError: Vectors are missing, which nearness needs.
            StoreError: They cannot be read.
        """
        rows = sample(len(self.numbers), POINTS)
        numbers = self.numbers[rows]
        names, source_of = self._sources
        points = np.stack([self.x[rows], self.y[rows]], axis=1)
        ids = self.corpus.items["content_id"].take(pa.array(numbers)).to_pylist()
        shares = self.info.explained
        scores = None
        if query_vectors is not None:
            scores = query_vectors.scores(self.corpus.scan(query_vectors.vectors))[numbers]
        return MapData(
            build=self.corpus.name,
            axes=(
                f"component 1: {shares[0]:.1%} of the variance",
                f"component 2: {shares[1]:.1%} of the variance",
            ),
            ids=as_base64(bytes.fromhex("".join(ids))),
            x=_base64(self.x[rows], "<f4"),
            y=_base64(self.y[rows], "<f4"),
            neighbours=None
            if self.neighbours is None
            else (
                _base64(self.neighbours[rows, 0], "<f4"),
                _base64(self.neighbours[rows, 1], "<f4"),
            ),
            cluster=_base64(self.clusters[rows], "<u2"),
            clusters=[
                Coloured(name=each.name, colour=colour_of(number), images=each.images)
                for number, each in enumerate(self.info.clusters)
            ],
            source=_base64(source_of[numbers], "<u2"),
            sources=[
                Coloured(name=name, colour=colour_of(number), images=int(images))
                for number, (name, images) in enumerate(
                    zip(names, np.bincount(source_of, minlength=len(names)), strict=True)
                )
            ],
            facts={
                kind: FactColours(
                    codes=_base64(grouping.group_of, "<u2"),
                    groups=[
                        Coloured(name=group.name, colour=group.colour, images=group.images)
                        for group in fact_groups(grouping)
                    ],
                )
                for kind, grouping in groupings(self.corpus, numbers).items()
            },
            score=None if scores is None else _base64(scores, "<f4"),
            order=_base64(from_coarse_to_fine(points, np.arange(len(rows)))[:THUMBNAILS], "<u4"),
            images=len(self.corpus),
        )

    @functools.cached_property
    def _sources(self) -> tuple[list[str], Numbers]:
        """The sources of the items' first files: their names, and the number of each item's."""
        firsts = [
            pc.list_element(chunk, 0).field("source")
            for chunk in self.corpus.items["locations"].chunks
        ]
        encoded = pa.concat_arrays(firsts).dictionary_encode()
        return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()


def read_map(directory: Path, corpus: Corpus) -> IndexMap | None:
    """Read the map of an index; None if it is not there, damaged, or of other pictures."""
    if not directory.is_dir():
        return None
    try:
        info, table = read_map_info(directory), read_coordinates(directory)
        layout = read_neighbours(directory)
    except (MapError, StoreError):
        return None
    ids, all_ids = table["content_id"], corpus.items["content_id"]
    if ids.equals(all_ids):
        numbers = np.arange(len(ids))
    else:
        numbers = find(keys_of(ids), keys_of(all_ids)).astype(np.int64)
        if (numbers < 0).any() or (np.diff(numbers) <= 0).any():
            return None
    x, y, clusters = (table[name].to_numpy() for name in ("x", "y", "cluster"))
    neighbours = None
    if layout is not None and layout["content_id"].equals(ids):
        neighbours = np.stack([layout[axis].to_numpy() for axis in "xy"], axis=1)
    return IndexMap(info, corpus, numbers, x, y, clusters, neighbours)


def _base64(numbers: npt.NDArray[Any], dtype: str) -> str:
    return as_base64(numbers.astype(dtype).tobytes())
