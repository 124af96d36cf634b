"""The facts of each item of a build, as columns that queries map into memory."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.facts.model import Origin
from retrieval_pipeline.facts.places import gazetteer_version, name_places
from retrieval_pipeline.index.arrow import one_chunk
from retrieval_pipeline.storage.reading import is_there
from retrieval_pipeline.storage.schemas import FACTS
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_facts

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


def has_facts(store: Store, items: pa.Table) -> bool:
    """Return whether facts were ever read for a source of these items."""
    return any(is_there(store.facts(source)) for source in _sources(items))


def facts_of_items(store: Store, items: pa.Table) -> pa.Table:
    """Return the columns of FACTS_COLUMNS for items with the columns content_id and locations.

    Of an item with several files, the facts of that one count whose date has the strongest origin;
    of several such files, of the first one. All is null for an item whose facts were not read yet.

    Raises:
        StoreError: A table of facts is damaged.
    """
    locations = one_chunk(items["locations"])
    files = pc.list_flatten(locations)
    owners = pc.list_parent_indices(locations).to_numpy().astype(np.int64)
    contents = one_chunk(items["content_id"])
    rows = np.full(len(files), -1, np.int64)
    tables = [FACTS.empty_table()]
    for source in _sources(items):
        table = read_facts(store, source)
        mine = np.flatnonzero(
            pc.equal(files.field("source"), source).to_numpy(zero_copy_only=False)
        )
        found = pc.index_in(files.field("path").take(pa.array(mine)), one_chunk(table["path"]))
        # A file may have changed since its facts were read.
        same = pc.equal(
            one_chunk(table["content_id"]).take(found), contents.take(pa.array(owners[mine]))
        )
        is_known = pc.fill_null(same, False).to_numpy(zero_copy_only=False)
        start = sum(map(len, tables))
        rows[mine[is_known]] = start + found.filter(pa.array(is_known)).to_numpy()
        tables.append(table)
    facts = pa.concat_tables(tables)
    chosen = _strongest(rows, owners, one_chunk(facts["taken_from"]), len(items))
    taken = facts.take(pa.array(chosen, mask=chosen < 0))
    columns = [
        taken[field.name].cast(field.type)
        if field.name in taken.schema.names
        else pa.nulls(len(taken), field.type)
        for field in FACTS_COLUMNS
    ]
    return pa.table(columns, schema=FACTS_COLUMNS).combine_chunks()


def with_places(facts: pa.Table) -> pa.Table:
    """Return columns of FACTS_COLUMNS with the places of their coordinates, if they can be named.

    They are filled in late: naming reads a list of all towns, and what is unchanged is not named
    again (`places_version` tells whether it is).
    """
    if places_version(facts) is None:
        return facts
    latitudes, longitudes = (np.array(facts[name].to_numpy()) for name in ("latitude", "longitude"))
    places = name_places(latitudes, longitudes)
    for name in places.column_names:
        number = FACTS_COLUMNS.get_field_index(name)
        facts = facts.set_column(number, FACTS_COLUMNS.field(name), places[name])
    return facts.combine_chunks()


def places_version(facts: pa.Table) -> str | None:
    """Return what names the places of these facts; None if none has coordinates, or no extra."""
    located = facts["latitude"].null_count < len(facts)
    return gazetteer_version() if located else None


def _sources(items: pa.Table) -> list[str]:
    files = pc.list_flatten(one_chunk(items["locations"]))
    return sorted(pc.unique(files.field("source")).to_pylist())


def _strongest(
    rows: npt.NDArray[np.int64], owners: npt.NDArray[np.int64], origins: pa.Array, items: int
) -> npt.NDArray[np.int64]:
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
