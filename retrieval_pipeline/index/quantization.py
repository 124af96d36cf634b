"""Quantised vectors, which faiss compares faster than floats: for large collections.

Each component of a reduced vector is rounded to 4 bits. A query is compared with the 4-bit codes of
all items by table look-ups within the processor's registers; the best of them are compared again
with 8-bit codes (product quantisation: Jégou et al., 2011, doi:10.1109/TPAMI.2010.57; in registers:
André et al., 2015, doi:10.14778/2856318.2856324).
"""

import importlib.util
from pathlib import Path
from typing import Any, Literal

import numpy as np

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index.items import BATCH_ROWS
from retrieval_pipeline.vectors import Numbers, Vectors

# Whether to write codes; "auto": of AUTO_ROWS vectors or more, where faiss is installed. A scan of
# codes takes half the time of a scan of the reduced vectors at 100,000 (docs/benchmarks.md).
WantCodes = bool | Literal["auto"]
AUTO_ROWS = 50_000
# How many vectors the rounding is learnt from: 16 values a component need few.
TRAINING_ROWS = 50_000


def can_use_codes() -> bool:
    """Tell whether faiss is installed."""
    return importlib.util.find_spec("faiss") is not None


def writes_codes(wanted: WantCodes, rows: int) -> bool:
    """Tell whether codes of so many vectors are written here."""
    return wanted is True or (wanted == "auto" and rows >= AUTO_ROWS and can_use_codes())


def require_codes() -> None:
    """Check that codes can be made.

    Raises:
        BuildError: faiss is not installed; the message says what to do.
    """
    if not can_use_codes():
        raise BuildError(
            'index.codes needs faiss: pip install "retrieval-pipeline[codes]", or set codes = false'
        )


def write_codes(file: Path, vectors: Vectors) -> None:
    """Write the codes of unit vectors, float32 (n, dim), n at least 16. faiss must be installed."""
    import faiss

    dim = vectors.shape[1]
    four_bits = faiss.IndexPQFastScan(dim, dim, 4, faiss.METRIC_INNER_PRODUCT)
    eight_bits = faiss.IndexScalarQuantizer(
        dim, faiss.ScalarQuantizer.QT_8bit, faiss.METRIC_INNER_PRODUCT
    )
    index = faiss.IndexRefine(four_bits, eight_bits)
    step = -(-len(vectors) // TRAINING_ROWS)
    threads = faiss.omp_get_max_threads()
    try:
        # With several threads, the order of additions and so the rounding would differ from run to
        # run. PyTorch shares this setting, so it is put back.
        faiss.omp_set_num_threads(1)
        index.train(np.ascontiguousarray(vectors[::step]))
        for start in range(0, len(vectors), BATCH_ROWS):
            index.add(np.ascontiguousarray(vectors[start : start + BATCH_ROWS]))
    finally:
        faiss.omp_set_num_threads(threads)
    # faiss could write the file itself, but its errors do not say that the disk is full.
    file.write_bytes(faiss.serialize_index(index).data)


class Codes:
    """The codes of all items: at 128 dimensions 64 bytes an item in memory, and 128 mapped."""

    def __init__(self, index: Any) -> None:
        self._index = index  # a faiss.IndexRefine

    def nearest(self, vector: Vectors, count: int, rerank: int) -> tuple[Numbers, Vectors]:
        """Return the rows nearest to a reduced vector, int64 (at most `count`,), and their scores.

        A score is the product with the 8-bit code.

        Args:
            vector: The query, float32 (reduced dimensions,).
            count: How many items to return.
            rerank: How many of the best by 4 bits are compared again by 8 bits.
        """
        import faiss

        parameters = faiss.IndexRefineSearchParameters()
        parameters.k_factor = rerank / count
        scores, found = self._index.search(vector[None], count, params=parameters)
        is_found = found[0] >= 0
        return found[0][is_found], scores[0][is_found]


def read_codes(file: Path) -> Codes | None:
    """Read codes into memory; None if faiss is not installed.

    Importing faiss alone takes longer than a few queries without codes.

    Raises:
        BuildError: The file is gone, or the installed faiss cannot read it.
    """
    if not can_use_codes():
        return None
    import faiss

    try:
        # Most of them are mapped into memory, not read.
        return Codes(faiss.read_index(str(file), faiss.IO_FLAG_MMAP_IFC))
    except RuntimeError:
        raise BuildError(
            f"{file}: faiss {faiss.__version__} cannot read it: run `retrieval index`"
        ) from None
