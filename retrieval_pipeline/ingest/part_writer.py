"""Collects embeddings and writes them as immutable Parquet files (parts)."""

import time
from dataclasses import astuple

import numpy as np
import pyarrow as pa

from retrieval_pipeline.ingest.encode_threads import Embedded
from retrieval_pipeline.storage.schemas import embedding_schema, views_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import (
    write_table,
)
from retrieval_pipeline.vectors import Vectors, VectorSpace
from retrieval_pipeline.views import View

# A part is written after this many rows or seconds: a killed run loses at most that much.
PART_ROWS = 2_048
PART_SECONDS = 120.0


class PartWriter:
    """Collects the embeddings of one source and writes them as immutable parts.

    Attributes:
        count: Pictures written so far.
        views: Further views written so far.
        seconds: Wall time spent on writing.
    """

    def __init__(self, store: Store, space: VectorSpace, source: str) -> None:
        self._store, self._space, self._source = store, space, source
        self._rows: list[tuple[str, Vectors, int, int, str]] = []
        self._view_rows: list[tuple[str, View, Vectors]] = []
        self._last = time.monotonic()
        self.count = self.views = 0
        self.seconds = 0.0

    def add(self, content: str, embedded: Embedded) -> None:
        """Add the embeddings of a content id to the next parts."""
        facts = embedded.width, embedded.height, embedded.format
        if embedded.vector is not None:
            self._rows.append((content, embedded.vector, *facts))
        for view, vector in zip(embedded.views, embedded.view_vectors, strict=True):
            self._view_rows.append((content, view, vector))

    def is_due(self) -> bool:
        """Tell whether enough rows wait, or have waited long enough, to write a part."""
        rows = len(self._rows) + len(self._view_rows)
        return rows >= PART_ROWS or (rows > 0 and time.monotonic() - self._last > PART_SECONDS)

    def publish(self) -> None:
        """Write the collected rows as the next part of each table; without rows, do nothing.

        Views come last: if the run is killed before they are written, the next one sees that a
        known picture lacks them.

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
        if self._view_rows:
            contents, views, vectors = zip(*self._view_rows, strict=True)
            flat = pa.array(np.concatenate(vectors), pa.float32())
            edges = zip(*map(astuple, views), strict=True)
            columns = [
                pa.array(contents),
                *(pa.array(values, pa.float64()) for values in edges),
                pa.FixedSizeListArray.from_arrays(flat, self._space.dim),
            ]
            table = pa.table(columns, schema=views_schema(self._space.dim))
            write_table(self._store.next_view_part(self._space, self._source), table, self._space)
            self.views += len(self._view_rows)
            self._view_rows.clear()
        self._last = time.monotonic()
        self.seconds += self._last - began
