"""Blocks: immutable files that hold what a build tells of its items, some ten thousand items each.

All but the vectors, which are in segments. Where a block ends depends on its content alone, as in
backups (content-defined chunking; Muthitacharoen et al., 2001, doi:10.1145/502034.502052). So a new
picture or a moved folder changes the blocks that it is in, and builds share all others.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index.arrow import compact, no_rows, one_chunk
from retrieval_pipeline.index.companions import COMPANION_COLUMNS, check_companions
from retrieval_pipeline.index.facts_table import (
    FACTS_COLUMNS,
    check_facts,
    encoded_alone,
    places_version,
    with_places,
)
from retrieval_pipeline.index.hashed_files import FileFacts, check_files, remember_hashed
from retrieval_pipeline.index.items import ITEM_COLUMNS, check_items, table_digest
from retrieval_pipeline.index.row_keys import RowKeys
from retrieval_pipeline.index.views import VIEW_ROW_COLUMNS, check_views
from retrieval_pipeline.storage.atomic import replacing
from retrieval_pipeline.storage.reading import mapped, reading
from retrieval_pipeline.storage.stored_model import StoredModel

# Items of a block: at least, at most, and how many follow on average after the least.
LEAST_ITEMS = 16_384
MOST_ITEMS = 65_536
FURTHER_ITEMS = 16_384

# The tables of a block, and their columns. Those with a column "item" have some rows for some
# items, and count the items of their block from 0.
ITEMS, FACTS, COMPANIONS, VIEWS = "items", "facts", "companions", "views"
COLUMNS: Mapping[str, pa.Schema] = {
    ITEMS: ITEM_COLUMNS,
    FACTS: FACTS_COLUMNS,
    COMPANIONS: COMPANION_COLUMNS,
    VIEWS: VIEW_ROW_COLUMNS,
}


class BlockFile(StoredModel):
    """One table of a block.

    Attributes:
        name: Of the file: a hash of what the table was made from.
        rows: Number of rows.
        facts: What the file must be.
    """

    name: str
    rows: int
    facts: FileFacts


class Block(StoredModel):
    """Some neighbouring items of a build.

    Attributes:
        items: How many.
        tables: Their tables, by the names of COLUMNS; empty ones are left out.
    """

    items: int
    tables: dict[str, BlockFile]


@dataclass(frozen=True)
class ItemTables:
    """What is told of items, in their order.

    Attributes:
        items: The columns of ITEM_COLUMNS.
        facts: The columns of FACTS_COLUMNS, a row for each item; None if none were read yet.
        companions: The columns of COMPANION_COLUMNS.
        views: The columns of VIEW_ROW_COLUMNS.
    """

    items: pa.Table
    facts: pa.Table | None
    companions: pa.Table
    views: pa.Table


class NewBlockError(BuildError):
    """A block is not there that the tables need now."""


def cut(keys: RowKeys) -> list[tuple[int, int]]:
    """Return where the blocks of items begin and end.

    Args:
        keys: The content ids of the items, as `row_keys.keys_of` gives them.
    """
    numbers = np.ascontiguousarray(keys[:, :8]).view(np.uint64)[:, 0]
    ends = np.flatnonzero(numbers % FURTHER_ITEMS == 0)
    found, start = [], 0
    while start < len(keys):
        at = np.searchsorted(ends, start + LEAST_ITEMS)
        end = int(ends[at]) if at < len(ends) else len(keys)
        end = min(end, start + MOST_ITEMS, len(keys))
        found.append((start, end))
        start = end
    return found


def write_blocks(
    directory: Path,
    tables: Callable[[int, int], ItemTables],
    keys: RowKeys,
    known: Iterable[Block],
    *,
    write: bool = True,
) -> tuple[Block, ...]:
    """Write the blocks that are not there yet, and return all of them.

    Args:
        directory: Of the blocks.
        tables: Returns what to write of the items from a first to before a last one; in tables
            with some rows for some items, these are counted from 0.
        keys: The content ids of the items.
        known: Blocks of an earlier build, whose hashes are known.
        write: False writes nothing, for those who do not hold the store's lock.

    Raises:
        NewBlockError: `write` is False, and a block is not there or not known.
        StoreError: The file system refused.
    """
    files = {file.name: file for block in known for file in block.tables.values()}
    blocks = []
    for start, end in cut(keys):
        told = tables(start, end)
        parts = {ITEMS: compact(told.items)}
        if told.facts is not None:
            parts[FACTS] = encoded_alone(told.facts)
        parts |= {
            name: compact(table)
            for name, table in ((COMPANIONS, told.companions), (VIEWS, told.views))
            if len(table)
        }
        blocks.append(
            Block(
                items=end - start,
                tables={
                    name: _write(directory, name, part, files, write=write)
                    for name, part in parts.items()
                },
            )
        )
    return tuple(blocks)


def of_items(table: pa.Table, start: int, end: int) -> pa.Table:
    """Return the rows of some items, which are counted from 0."""
    if not len(table):
        return table
    owners = one_chunk(table["item"]).to_numpy()
    first, last = np.searchsorted(owners, [start, end]).tolist()
    field = table.schema.field("item")
    items = pa.array(owners[first:last] - start, field.type)
    rows = table.slice(first, last - first)
    return rows.set_column(table.schema.get_field_index("item"), field, items)


def _write(
    directory: Path, name: str, part: pa.Table, known: dict[str, BlockFile], *, write: bool
) -> BlockFile:
    """Write one table of a block, unless it is there."""
    # Places are named only where a table is written: the version tells which list of towns it was.
    places = (places_version(part),) if name == FACTS else ()
    file = directory / f"{table_digest(part, name, *places)}.arrow"
    found = known.get(file.name)
    if found is not None and _is_whole(file, found.facts):
        return found
    if not write:
        raise NewBlockError(f"{file}: not there, or not whole: run `retrieval index`")
    with replacing(file) as temporary:
        table = with_places(part) if name == FACTS else part
        with pa.ipc.new_file(str(temporary), COLUMNS[name]) as writer:
            # One record batch, so that each dictionary is stored once.
            writer.write_table(table.combine_chunks(), max_chunksize=max(len(part), 1))
    written = BlockFile(name=file.name, rows=len(part), facts=FileFacts.of(file))
    remember_hashed(directory, {file.name: written.facts})
    return written


def _is_whole(file: Path, facts: FileFacts) -> bool:
    try:
        check_files(file.parent, {file.name: facts})
    except BuildError:
        return False
    return True


def files_of(blocks: Sequence[Block]) -> dict[str, FileFacts]:
    """Return what the files of blocks must be, by file name."""
    return {file.name: file.facts for block in blocks for file in block.tables.values()}


def open_blocks(directory: Path, blocks: Sequence[Block], unchecked: set[str]) -> ItemTables:
    """Map blocks into memory, as tables of one chunk for each block.

    Args:
        directory: Of the blocks. The caller knows that the files are whole.
        blocks: In the order of their items.
        unchecked: Names of the files whose values are to be checked, too.

    Raises:
        BuildError: A file does not hold what it should.
    """
    found: dict[str, list[pa.Table]] = {name: [] for name in COLUMNS}
    start = 0
    for block in blocks:
        for name, file in block.tables.items():
            table = map_table(directory / file.name)
            path = directory / file.name
            if name not in COLUMNS or table.schema != COLUMNS[name] or len(table) != file.rows:
                raise BuildError(f"{path}: not the table of a block: run `retrieval index`")
            if file.name in unchecked:
                _check(name, table, block.items, path)
            if "item" in table.schema.names:
                field = table.schema.field("item")
                items = pa.array(one_chunk(table["item"]).to_numpy() + start, field.type)
                table = table.set_column(table.schema.get_field_index("item"), field, items)
            found[name].append(table)
        start += block.items
    tables = {
        name: pa.concat_tables(found[name]) if found[name] else no_rows(schema)
        for name, schema in COLUMNS.items()
    }
    facts = tables[FACTS] if found[FACTS] else None
    if len(tables[ITEMS]) != start or (facts is not None and len(facts) != start):
        raise BuildError(f"{directory}: blocks lack items: run `retrieval index`")
    return ItemTables(tables[ITEMS], facts, tables[COMPANIONS], tables[VIEWS])


def _check(name: str, table: pa.Table, items: int, file: Path) -> None:
    if name == ITEMS:
        check_items(table, file)
    elif name == FACTS:
        check_facts(table, file)
    elif name == COMPANIONS:
        check_companions(table, items, file)
    else:
        check_views(table, items, file)


def map_table(file: Path) -> pa.Table:
    """Map an Arrow file into memory; the caller compares its columns.

    Raises:
        BuildError: The file is missing or is no Arrow file.
        UnreadableError: It cannot be read.
    """
    try:
        with reading(file):
            return pa.ipc.open_file(pa.py_buffer(mapped(file))).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BuildError(f"{file}: {error}: run `retrieval index`") from None
