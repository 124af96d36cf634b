"""Row keys: 16 bytes that identify a row of vectors in whatever segment or build it is.

That of a picture's own vector is its content id, that of a further view a hash of content id and
view.
"""

import binascii

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index.arrow import one_chunk
from retrieval_pipeline.storage.content_id import DIGEST_BYTES
from retrieval_pipeline.storage.schemas import VIEW_COLUMNS

# uint8 (n, DIGEST_BYTES).
RowKeys = npt.NDArray[np.uint8]


def keys_of(content_ids: pa.ChunkedArray | pa.Array) -> RowKeys:
    """Return content ids, 32 hex digits each, as bytes.

    Raises:
        BuildError: One is something else.
    """
    ids = one_chunk(content_ids)
    try:
        # A value of another length, or that is no hex digit, fails in one of the two.
        fixed = ids.cast(pa.binary()).cast(pa.binary(2 * DIGEST_BYTES))
        digits = fixed.buffers()[1]
        start = 2 * DIGEST_BYTES * fixed.offset
        text = memoryview(digits)[start : start + 2 * DIGEST_BYTES * len(fixed)] if digits else b""
        return np.frombuffer(binascii.unhexlify(text), np.uint8).reshape(-1, DIGEST_BYTES)
    except (pa.ArrowInvalid, binascii.Error):
        raise BuildError(
            "a table holds a content id that is not 32 hex digits: run `retrieval verify`"
        ) from None


def row_keys(content_ids: pa.ChunkedArray | pa.Array, views: pa.Table) -> RowKeys:
    """Return the keys of all rows: those of the items, then those of their further views.

    Args:
        content_ids: Of the items.
        views: The columns item and VIEW_COLUMNS of the rows after those of the items.
    """
    own = keys_of(content_ids)
    if not len(views):
        return own
    edges = [one_chunk(views[name]).cast(pa.string()) for name in VIEW_COLUMNS]
    owners = one_chunk(content_ids).take(one_chunk(views["item"]))
    texts = pc.binary_join_element_wise(owners, *edges, " ").to_pylist()
    hashes = b"".join(blake3(text.encode()).digest(length=DIGEST_BYTES) for text in texts)
    return np.concatenate([own, np.frombuffer(hashes, np.uint8).reshape(-1, DIGEST_BYTES)])


def find(keys: RowKeys, among: RowKeys) -> npt.NDArray[np.int32]:
    """Return for each key its row in `among`, int32 (len(keys),); -1 if it is not there."""
    found = pc.index_in(_as_arrow(keys), value_set=_as_arrow(among))
    # A copy: Arrow's own memory may not be written.
    return np.array(pc.fill_null(found, -1).to_numpy(), np.int32)


def _as_arrow(keys: RowKeys) -> pa.Array:
    values = pa.py_buffer(np.ascontiguousarray(keys))
    return pa.Array.from_buffers(pa.binary(DIGEST_BYTES), len(keys), [None, values])
