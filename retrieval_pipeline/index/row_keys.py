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
# Keys are looked up among those whose last byte is the same modulo the number of shelves, one shelf
# after the other: Arrow's hash table of ten million keys would take a gigabyte.
KEYS_PER_SHELF = 500_000
MOST_SHELVES = 255  # that a byte can tell apart


def no_keys() -> RowKeys:
    """Return an empty array of keys."""
    return np.empty((0, DIGEST_BYTES), np.uint8)


def content_ids_of(keys: RowKeys) -> pa.Array:
    """Return the content ids, 32 hex digits each, that `keys_of` made these keys of."""
    digits = binascii.hexlify(keys.tobytes())
    offsets = np.arange(len(keys) + 1, dtype=np.int32) * 2 * DIGEST_BYTES
    buffers = [None, pa.py_buffer(offsets), pa.py_buffer(digits)]
    return pa.Array.from_buffers(pa.string(), len(keys), buffers)


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


def view_keys(own: RowKeys, views: pa.Table) -> RowKeys:
    """Return the keys of further views.

    Args:
        own: The keys of the items.
        views: The columns item and VIEW_COLUMNS.
    """
    edges = [one_chunk(views[name]).cast(pa.string()) for name in VIEW_COLUMNS]
    owners = content_ids_of(own[one_chunk(views["item"]).to_numpy()])
    texts = pc.binary_join_element_wise(owners, *edges, " ").to_pylist()
    hashes = b"".join(blake3(text.encode()).digest(length=DIGEST_BYTES) for text in texts)
    return np.frombuffer(hashes, np.uint8).reshape(-1, DIGEST_BYTES)


def find(keys: RowKeys, among: RowKeys) -> npt.NDArray[np.int32]:
    """Return for each key its first row in `among`, int32 (len(keys),); -1 if it is not there."""
    found = np.full(len(keys), -1, np.int32)
    shelves = min(1 + len(among) // KEYS_PER_SHELF, MOST_SHELVES)
    shelf, shelf_among = keys[:, -1] % shelves, among[:, -1] % shelves
    for number in range(shelves):
        here, there = np.flatnonzero(shelf == number), np.flatnonzero(shelf_among == number)
        rows = pc.index_in(_as_arrow(keys[here]), value_set=_as_arrow(among[there]))
        is_there = pc.is_valid(rows).to_numpy(zero_copy_only=False)
        found[here[is_there]] = there[rows.drop_null().to_numpy()]
    return found


def _as_arrow(keys: RowKeys) -> pa.Array:
    values = pa.py_buffer(np.ascontiguousarray(keys))
    return pa.Array.from_buffers(pa.binary(DIGEST_BYTES), len(keys), [None, values])
