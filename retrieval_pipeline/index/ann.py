"""Annoy's trees: growing them over vectors, opening their file, asking them for candidates."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from annoy import AnnoyIndex

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.index.matrices import Matrix, in_float32
from retrieval_pipeline.progress import Progress
from retrieval_pipeline.storage.stored_model import StoredModel
from retrieval_pipeline.vectors import Numbers, Vectors

# A segment keeps the trees that were grown with these three values: whoever changes one also raises
# segment.SEGMENT_FORMAT.
METRIC: Final = "dot"  # On unit vectors the dot product is the cosine.
TREE_COUNT = 64
TREE_SEED = 20  # Any fixed number: the same vectors give the same file.
# Vectors that are handed to Annoy as Python lists at a time.
LIST_ROWS = 8_192


class TreeFacts(StoredModel):
    """How many trees over how many vectors an Annoy file must hold."""

    trees: int
    vectors: int


@dataclass(frozen=True)
class Trees:
    """Annoy's trees over the rows of some vectors."""

    annoy: AnnoyIndex

    @classmethod
    def open(cls, file: Path, dim: int) -> "Trees":
        """Map an Annoy file over vectors of `dim` components into memory.

        The caller knows that the file is whole: with a damaged one Annoy may crash the process.

        Raises:
            OSError: The file is gone, or its size does not fit vectors of `dim` components.
        """
        annoy = AnnoyIndex(dim, METRIC)
        annoy.load(str(file))
        return cls(annoy)

    @property
    def facts(self) -> TreeFacts:
        """What Annoy says of the open file."""
        return TreeFacts(trees=self.annoy.get_n_trees(), vectors=self.annoy.get_n_items())

    def nearest(self, vector: Vectors, count: int, search_k: int) -> tuple[Numbers, Vectors]:
        """Return the rows nearest to `vector`, int (at most `count`,), and their products with it.

        Args:
            vector: The query, float32 (dim,), of as many components as the vectors in the trees.
            count: How many rows to return.
            search_k: How many of the trees' nodes to look at.
        """
        rows, scores = self.annoy.get_nns_by_vector(
            vector.tolist(), count, search_k, include_distances=True
        )
        return np.array(rows, np.int64), np.array(scores, np.float32)


def write_trees(file: Path, matrices: Sequence[Matrix], progress: Progress) -> TreeFacts:
    """Grow trees over the rows of `matrices`, float16 or float32 (n, dim) each, and save them.

    They grow in memory, not with Annoy's on_disk_build: that writes through a memory map, where a
    full disk kills the process.

    Returns:
        What every later `Trees.open` of the file must find.

    Raises:
        StoreError: Annoy could not write the file.
    """
    annoy = AnnoyIndex(matrices[0].shape[1], METRIC)
    annoy.set_seed(TREE_SEED)
    progress.start("growing the trees", None, "")
    number = 0
    for rows in in_float32(matrices, LIST_ROWS):
        for vector in rows.tolist():
            annoy.add_item(number, vector)
            number += 1
    annoy.build(TREE_COUNT, n_jobs=1)
    if not annoy.save(str(file)):
        raise StoreError(f"{file}: Annoy could not write its file")
    # Over a handful of vectors, a file that is loaded afresh tells another number of trees than
    # were grown: what it tells is what later loads must find.
    annoy.unload()
    trees = Trees.open(file, matrices[0].shape[1])
    progress.finish()
    return trees.facts
