"""The facts of each item of a build, as columns that queries map into memory."""

import bisect
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.facts.model import Origin
from retrieval_pipeline.index.arrow import one_chunk
from retrieval_pipeline.index.items import JoinedItems
from retrieval_pipeline.index.row_keys import keys_of
from retrieval_pipeline.storage.reading import is_there
from retrieval_pipeline.storage.schemas import FACTS
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_batches
from retrieval_pipeline.vectors import Numbers

# Each different text is stored once, and a number for each item.
_REPEATED = pa.dictionary(pa.int32(), pa.string())

# The columns of a table of facts, whose rows are the items in their order.
FACTS_COLUMNS = pa.schema(
    [
        # Microseconds from 1970-01-01 00:00 to what the clock on the wall said, no time zone.
        pa.field("taken_at", pa.int64()),
        pa.field("utc_offset_minutes", pa.int16()),
        pa.field("taken_from", _REPEATED),
        pa.field("camera", _REPEATED),
        pa.field("lens", _REPEATED),
        pa.field("iso", pa.int32()),
        pa.field("exposure_seconds", pa.float32()),
        pa.field("f_number", pa.float32()),
        pa.field("focal_length_mm", pa.float32()),
        pa.field("latitude", pa.float64()),
        pa.field("longitude", pa.float64()),
        pa.field("altitude_m", pa.float32()),
        pa.field("orientation", pa.int8()),
        pa.field("title", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("keywords", pa.list_(pa.string())),
        pa.field("rating", pa.int8()),
        # The nearest town, its region, and its country (ISO 3166-1 alpha-2).
        pa.field("place", _REPEATED),
        pa.field("region", _REPEATED),
        pa.field("country", _REPEATED),
    ]
)


# Those that tables of facts have; the others are worked out.
_STORED = pa.schema([field for field in FACTS_COLUMNS if field.name in FACTS.names])
# Rows of a table of facts that are read at a time.
BATCH_ROWS = 65_536


@dataclass(frozen=True)
class FoundFacts:
    """The facts of items, in rows of the tables of facts.

    Attributes:
        table: The columns of FACTS_COLUMNS that such tables have, in one chunk.
        rows: For each item the row of its facts, int64 (items,); -1 if nothing was read yet.
    """

    table: pa.Table
    rows: Numbers

    def of(self, start: int, end: int) -> pa.Table:
        """Return the columns of FACTS_COLUMNS of items `start` to `end`; all null if unknown."""
        rows = self.rows[start:end]
        taken = self.table.take(pa.array(rows, mask=rows < 0))
        columns = [
            taken[field.name]
            if field.name in taken.schema.names
            else pa.nulls(len(taken), field.type)
            for field in FACTS_COLUMNS
        ]
        return pa.table(columns, schema=FACTS_COLUMNS).combine_chunks()


def find_facts(store: Store, items: JoinedItems) -> FoundFacts | None:
    """Find the facts of items; None if they were never read for a source of these.

    Of an item with several files, the facts of that one count whose date has the strongest origin;
    of several such files, of the first one.

    Raises:
        StoreError: A table of facts is damaged.
    """
    located = items.located
    owners = located.owners()
    rows = np.full(len(located), -1, np.int64)
    batches = [_STORED.empty_table()]
    start = 0
    is_read = False
    for number in np.unique(located.sources):
        file = store.facts(located.names[number])
        if not is_there(file):
            continue
        is_read = True
        mine, paths = located.of(int(number))
        for batch in read_batches(file, FACTS, ["content_id", "path", *_STORED.names], BATCH_ROWS):
            here, found = _look_up(paths, batch["path"])
            # A file may have changed since its facts were read.
            same = keys_of(batch["content_id"])[found] == items.keys[owners[mine[here]]]
            is_same = same.all(axis=1)
            rows[mine[here[is_same]]] = start + found[is_same]
            start += len(batch)
            batches.append(_encoded(batch))
    if not is_read:
        return None
    facts = pa.concat_tables(batches).unify_dictionaries().combine_chunks()
    if located.items is not None:
        origins = one_chunk(facts["taken_from"]).cast(pa.string())
        rows = _strongest(rows, owners, origins, len(items))
    return FoundFacts(facts, rows)


def _look_up(paths: pa.Array, some: pa.Array) -> tuple[Numbers, Numbers]:
    """Return which of `paths`, ascending, are among some, and for each of these its place there.

    Only the paths between the first and the last of `some` are looked up.
    """
    ends = pc.min_max(some)
    if not ends["min"].is_valid:
        return np.empty(0, np.int64), np.empty(0, np.int64)
    numbers = range(len(paths))
    first = bisect.bisect_left(numbers, ends["min"].as_py(), key=lambda at: paths[at].as_py())
    last = bisect.bisect_right(numbers, ends["max"].as_py(), key=lambda at: paths[at].as_py())
    found = pc.index_in(paths.slice(first, last - first), value_set=some)
    is_there = pc.is_valid(found).to_numpy(zero_copy_only=False)
    return first + np.flatnonzero(is_there), found.drop_null().to_numpy()


def _encoded(batch: pa.RecordBatch) -> pa.Table:
    """Return rows of a table of facts with the columns of _STORED, repeated texts stored once."""
    columns = [batch[field.name] for field in _STORED]
    return pa.table(
        [
            column.dictionary_encode() if field.type == _REPEATED else column.cast(field.type)
            for column, field in zip(columns, _STORED, strict=True)
        ],
        schema=_STORED,
    )


def with_places(facts: pa.Table) -> pa.Table:
    """Return columns of FACTS_COLUMNS with the places of their coordinates, if they can be named.

    They are filled in late: naming reads a list of all towns, and what is unchanged is not named
    again (`places_version` tells whether it is).
    """
    if places_version(facts) is None:
        return facts
    latitudes, longitudes = (np.array(facts[name].to_numpy()) for name in ("latitude", "longitude"))
    from retrieval_pipeline.facts.places import name_places

    places = name_places(latitudes, longitudes)
    for name in places.column_names:
        number = FACTS_COLUMNS.get_field_index(name)
        facts = facts.set_column(number, FACTS_COLUMNS.field(name), places[name])
    return facts.combine_chunks()


def places_version(facts: pa.Table) -> str | None:
    """Return what names the places of these facts; None if none has coordinates, or no extra."""
    if facts["latitude"].null_count == len(facts):
        return None
    from retrieval_pipeline.facts.places import gazetteer_version

    return gazetteer_version()


def _strongest(
    rows: Numbers, owners: npt.NDArray[np.int32], origins: pa.Array, items: int
) -> Numbers:
    """Return for each item the row of facts of its best file, int64 (items,); -1 for none.

    Args:
        rows: For each file the row of its facts, -1 if there are none.
        owners: For each file the number of its item, ascending.
        origins: For each row of facts where the date was found, null without a date.
        items: Number of items.
    """
    strength = pc.fill_null(pc.index_in(origins, pa.array(list(Origin))), len(Origin))
    strength = np.append(strength.to_numpy(), len(Origin) + 1)  # that of row -1
    order = np.lexsort((np.arange(len(rows)), strength[rows], owners))
    _, first = np.unique(owners[order], return_index=True)
    chosen = np.full(items, -1, np.int64)
    chosen[owners[order[first]]] = rows[order[first]]
    return chosen


def encoded_alone(facts: pa.Table) -> pa.Table:
    """Return some rows with dictionaries of their own values only, in the order of these."""
    for number, field in enumerate(FACTS_COLUMNS):
        if field.type == _REPEATED:
            values = one_chunk(facts[field.name]).dictionary_decode()
            facts = facts.set_column(number, field, values.dictionary_encode())
    return facts


def check_facts(facts: pa.Table, file: Path) -> None:
    """Check the values of a table of facts whose columns are those of FACTS_COLUMNS.

    Raises:
        BuildError: A value cannot be, such as a text that is not UTF-8.
    """
    try:
        facts.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise BuildError(f"{file}: {error}: run `retrieval index`") from None
