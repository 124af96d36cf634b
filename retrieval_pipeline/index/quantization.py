"""Projected vectors as short codes, which faiss compares sooner: for large collections.

Each component is rounded to 4 bits; the codes of all items are compared by table look-ups within
the processor's registers, and the best of them again with 8 bits (product quantisation: Jégou et
al., 2011, doi:10.1109/TPAMI.2010.57; in registers: André et al., 2015,
doi:10.14778/2856318.2856324).
"""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index.items import BATCH_ROWS
from retrieval_pipeline.vectors import Vectors

# Vectors from which the rounding is learnt; 16 values a component need few.
TRAINING = 50_000


def can_use_codes() -> bool:
    """Tell whether faiss is installed."""
    return importlib.util.find_spec("faiss") is not None


def require_codes() -> None:
    """Raise a BuildError with the way out if codes cannot be made."""
    if not can_use_codes():
        raise BuildError(
            'index.codes needs faiss: pip install "retrieval-pipeline[codes]", or set codes = false'
        )


def write_codes(file: Path, vectors: Vectors) -> None:
    """Write the codes of unit vectors, float32 (n, components), n at least 16."""
    import faiss

    dim = vectors.shape[1]
    short = faiss.IndexPQFastScan(dim, dim, 4, faiss.METRIC_INNER_PRODUCT)
    longer = faiss.IndexScalarQuantizer(
        dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index = faiss.IndexRefine(short, longer)
    step = -(-len(vectors) // TRAINING)
    threads = faiss.omp_get_max_threads()
    try:
        # Sums of several threads would differ from run to run. The number is torch's as well.
        faiss.omp_set_num_threads(1)
        index.train(np.ascontiguousarray(vectors[::step]))
        for start in range(0, len(vectors), BATCH_ROWS):
            index.add(np.ascontiguousarray(vectors[start : start + BATCH_ROWS]))
    finally:
        faiss.omp_set_num_threads(threads)
    # Not by faiss, whose errors do not say that the disk is full.
    file.write_bytes(faiss.serialize_index(index).data)


class Codes:
    """The codes of a build; once they are loaded, they take 192 bytes of memory an item."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._index: Any = None

    @property
    def loaded(self) -> bool:
        """Whether they can be asked."""
        return self._index is not None

    def load(self) -> None:
        """Read them, if faiss is installed; its import alone takes longer than a few queries.

        Raises:
            BuildError: The file is gone, or this faiss cannot read it.
        """
        if self.loaded or not can_use_codes():
            return
        import faiss

        try:
            self._index = faiss.read_index(str(self._file))
        except RuntimeError:
            raise BuildError(
                f"{self._file}: faiss {faiss.__version__} cannot read it: run `retrieval index`"
            ) from None

    def nearest(self, vector: Vectors, count: int, closer: int) -> npt.NDArray[np.int64]:
        """Return the `count` items proposed for a projected vector; `closer` get a second look."""
        import faiss

        parameters = faiss.IndexRefineSearchParameters()
        parameters.k_factor = closer / count
        _, found = self._index.search(vector[None], count, params=parameters)
        numbers: npt.NDArray[np.int64] = found[0]
        return numbers[numbers >= 0]
