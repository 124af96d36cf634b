"""Collects embeddings and writes them as immutable Parquet files (parts)."""

import time

import numpy as np
import pyarrow as pa

from retrieval_pipeline.ingest.encode_threads import Embedded
from retrieval_pipeline.storage.schemas import embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import (
    write_table,
)
from retrieval_pipeline.vectors import Vectors, VectorSpace

# A part is written after this many rows or seconds: a killed run loses at most that much.
PART_ROWS = 2_048
PART_SECONDS = 120.0


class PartWriter:
    """Collects the embeddings of one source and writes them as immutable parts.

    Attributes:
        count: Rows written so far.
        seconds: Wall time spent on writing.
    """

    def __init__(self, store: Store, space: VectorSpace, source: str) -> None:
        self._store, self._space, self._source = store, space, source
        self._rows: list[tuple[str, Vectors, int, int, str]] = []
        self._last = time.monotonic()
        self.count = 0
        self.seconds = 0.0

    def add(self, content: str, embedded: Embedded) -> None:
        """Add the embedding of a content id to the next part."""
        facts = embedded.width, embedded.height, embedded.format
        self._rows.append((content, embedded.vector, *facts))

    def is_due(self) -> bool:
        """Tell whether enough rows wait, or have waited long enough, to write a part."""
        return len(self._rows) >= PART_ROWS or (
            bool(self._rows) and time.monotonic() - self._last > PART_SECONDS
        )

    def publish(self) -> None:
        """Write the collected rows as the next part; without rows, do nothing.

        Raises:
            StoreError: The file system refused.
        """
        began = time.monotonic()
        if self._rows:
            contents, vectors, widths, heights, formats = zip(*self._rows, strict=True)
            flat = pa.array(np.concatenate(vectors), pa.float32())
            columns = [
                pa.array(contents),
                pa.FixedSizeListArray.from_arrays(flat, self._space.dim),
                pa.array(widths, pa.int32()),
                pa.array(heights, pa.int32()),
                pa.array(formats),
            ]
            table = pa.table(columns, schema=embedding_schema(self._space.dim))
            write_table(self._store.next_part(self._space, self._source), table, self._space)
            self.count += len(self._rows)
            self._rows.clear()
        self._last = time.monotonic()
        self.seconds += self._last - began
