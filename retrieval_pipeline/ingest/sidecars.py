"""The table of the files that hold facts of a source's pictures, as the crawl has seen them."""

from collections.abc import Sequence

import pyarrow as pa

from retrieval_pipeline.ingest.manifest import FileRow
from retrieval_pipeline.storage.reading import is_there
from retrieval_pipeline.storage.schemas import SIDECARS
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_sidecars, write_table


def read_sidecar_rows(store: Store, source: str) -> list[FileRow]:
    """Return the rows of the table; none if there is no table yet.

    Raises:
        StoreError: It is damaged.
    """
    table = read_sidecars(store, source)
    columns = (table[name].to_pylist() for name in SIDECARS.names)
    return [FileRow(*values) for values in zip(*columns, strict=True)]


def save_sidecar_rows(store: Store, source: str, rows: Sequence[FileRow]) -> bool:
    """Write the table, unless it holds these rows already, or there are none and never were any.

    Returns:
        Whether it was written.

    Raises:
        StoreError: It cannot be written.
    """
    columns = [
        pa.array([getattr(row, field.name) for row in rows], field.type) for field in SIDECARS
    ]
    table = pa.table(columns, schema=SIDECARS)
    path = store.sidecars(source)
    differs = read_sidecars(store, source) != table if is_there(path) else len(rows) > 0
    if differs:
        write_table(path, table)
    return differs
