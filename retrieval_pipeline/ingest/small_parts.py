"""Merging the many small parts of embedding tables that small additions leave.

A run that embeds one picture writes a part of one row, and whoever reads a table opens each of its
parts.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

import pyarrow as pa

from retrieval_pipeline.storage.atomic import discard
from retrieval_pipeline.storage.parts import PICTURES, VIEWS, merged_part, parts_in
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_space, read_table, write_table
from retrieval_pipeline.vectors import VectorSpace

# Parts of fewer bytes are small: some 350 vectors of 768 dimensions.
SMALL_BYTES = 1 << 20
# How many of them a table may have before they are merged, so that a row is seldom written again.
MOST_SMALL = 64


def merge_small_parts(store: Store) -> list[Path]:
    """Merge neighbouring small parts of tables that have more than MOST_SMALL of them.

    All rows stay, and nothing is embedded again. It can be killed at any moment: a merged part
    replaces the others in the moment in which it appears (see `storage.parts`). The caller holds
    the store's lock.

    Returns:
        The merged parts.

    Raises:
        StoreError: A part is damaged, or the file system refused.
    """
    merged = []
    for directory in filter(store.is_inside, store.embedding_directories()):
        for table in (PICTURES, VIEWS):
            for group in _groups(parts_in(directory, table.names)[0]):
                space = read_space(group[0])
                rows = [read_table(part, table.schema(space.dim)) for part in group]
                merged.append(replace_parts(group, pa.concat_tables(rows), space))
    return merged


def _groups(parts: Sequence[Path]) -> Iterator[list[Path]]:
    sizes = {part: part.stat().st_size for part in parts}
    if sum(size < SMALL_BYTES for size in sizes.values()) <= MOST_SMALL:
        return
    for is_small, group in groupby(parts, lambda part: sizes[part] < SMALL_BYTES):
        if is_small and len(neighbours := list(group)) > 1:
            yield neighbours


def replace_parts(parts: Sequence[Path], rows: pa.Table, space: VectorSpace) -> Path:
    """Write rows as the part that replaces these neighbours, then remove these; return its path.

    Raises:
        StoreError: The file system refused.
    """
    target = merged_part(parts)
    write_table(target, rows, space)
    for part in parts:
        if part != target:
            discard(part)
    return target
