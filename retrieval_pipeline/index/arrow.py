"""What PyArrow lacks for the columns of an index."""

import numpy as np
import pyarrow as pa

from retrieval_pipeline.vectors import Vectors


def one_chunk(column: pa.ChunkedArray | pa.Array) -> pa.Array:
    """Return a column as one array, copied only if it has several chunks."""
    if not isinstance(column, pa.ChunkedArray):
        return column
    if column.num_chunks == 1:
        return column.chunk(0)
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else combined.chunk(0)


def as_matrix(column: pa.Array | pa.ChunkedArray, dim: int) -> Vectors:
    """View a column of fixed-size lists as float32 (n, dim); several chunks are copied together."""
    flat = one_chunk(column).flatten()
    # `to_numpy` would import pandas if it is installed, and that takes longer than all the rest.
    values = np.frombuffer(flat.buffers()[1], np.float32, len(flat), flat.offset * 4)
    return values.reshape(-1, dim)


def compact(table: pa.Table) -> pa.Table:
    """Return a table whose buffers hold nothing but its rows.

    A slice lies in the buffers of the whole, and Arrow writes and hashes up to 63 bytes of the next
    rows with it.
    """
    return table.take(pa.array(np.arange(len(table))))


def no_rows(schema: pa.Schema) -> pa.Table:
    """Return an empty table."""
    # `empty_table` would import pandas if it is installed, and that takes longer than all the rest.
    return pa.Table.from_batches([], schema)
