"""What a build is made from: the join of all tables. What it tells of items is written as blocks.

Only numbers and keys of the join stay in memory while segments are written.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index.blocks import Block, ItemTables, of_items, write_blocks
from retrieval_pipeline.index.companions import companions_of_items
from retrieval_pipeline.index.facts_table import find_facts
from retrieval_pipeline.index.items import JoinedRows, join
from retrieval_pipeline.index.row_keys import RowKeys
from retrieval_pipeline.index.views import join_views
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline.views import Views


@dataclass(frozen=True)
class Inputs:
    """The items of a build.

    Attributes:
        items: Where their vectors are.
        views: Where the vectors of their further views are.
        keys: What identifies each row of vectors: those of the items, then those of the views.
        sources: How many files of the items each source has.
        blocks: What is told of the items.
    """

    items: JoinedRows
    views: JoinedRows
    keys: RowKeys
    sources: dict[str, int]
    blocks: tuple[Block, ...]


def read_inputs(
    store: Store,
    space: VectorSpace,
    sources: Sequence[str],
    views: Mapping[str, Views],
    known: Iterable[Block],
    *,
    write: bool = True,
) -> Inputs:
    """Join the tables of sources, and write the blocks that are not there yet.

    Args:
        store: Where tables and blocks are.
        space: The vector space whose embeddings to index.
        sources: The names of the sources.
        views: Which of the stored views of its pictures each source has; default "whole".
        known: Blocks of an earlier build, whose hashes are known.
        write: False writes no blocks, for those who do not hold the store's lock.

    Raises:
        BuildError: There is nothing to index.
        NewBlockError: `write` is False, and a block is not there or not known.
        StoreError: A table is damaged, or the blocks cannot be written.
    """
    inputs = _read(store, space, sources, views, known, write=write)
    # What the tables took, goes back to the system before segments are written.
    pa.default_memory_pool().release_unused()
    return inputs


def _read(
    store: Store,
    space: VectorSpace,
    sources: Sequence[str],
    views: Mapping[str, Views],
    known: Iterable[Block],
    *,
    write: bool = True,
) -> Inputs:
    joined = join(store, space, sources)
    if not len(joined):
        raise BuildError(
            "there is nothing to index: no source has an image that could be embedded. "
            "`retrieval status` shows what was found"
        )
    further = join_views(store, space, joined, views)
    facts = find_facts(store, joined)
    companions = companions_of_items(joined)

    def tables(start: int, end: int) -> ItemTables:
        return ItemTables(
            joined.table(start, end),
            None if facts is None else facts.of(start, end),
            of_items(companions, start, end),
            of_items(further.table, start, end),
        )

    blocks = write_blocks(store.blocks(space), tables, joined.keys, known, write=write)
    located = joined.located
    counts = np.bincount(located.sources, minlength=len(located.names))
    return Inputs(
        JoinedRows(joined.keys, joined.rows, joined.parts),
        JoinedRows(further.keys, further.rows, further.parts),
        np.concatenate([joined.keys, further.keys]),
        {name: int(count) for name, count in zip(located.names, counts, strict=True) if count},
        blocks,
    )
