"""Companions: the files that belong to the items of a build without being items.

Such as the RAW file of a JPEG, the original of an edited copy, the video of a Live Photo.
"""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.facts.groups import Kind
from retrieval_pipeline.index.arrow import one_chunk
from retrieval_pipeline.index.items import JoinedItems

# Sorted by item; within an item by kind, source and path. Size and time of a video are 0: nobody
# asked the file system.
COMPANION_COLUMNS = pa.schema(
    [
        pa.field("item", pa.int64(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("source", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
    ]
)


def companions_of_items(items: JoinedItems) -> pa.Table:
    """Return the columns of COMPANION_COLUMNS of items."""
    located = items.located
    tables = [COMPANION_COLUMNS.empty_table()]
    for number, source in enumerate(located.names):
        each = items.companions[source]
        pairs = [(best, one) for best, many in each.of.items() for one in many]
        if not pairs:
            continue
        is_here = located.sources == number
        places = located.files["path"].filter(pa.array(is_here))
        owners = pa.array(located.owners()[is_here])
        found = pc.index_in(pa.array([best for best, _ in pairs], pa.string()), one_chunk(places))
        rows = each.rows.take(
            pc.index_in(
                pa.array([one.path for _, one in pairs], pa.string()), one_chunk(each.rows["path"])
            )
        )
        table = pa.table(
            [
                owners.take(found).cast(pa.int64()),
                pa.array([one.kind.value for _, one in pairs], pa.string()),
                pa.repeat(pa.scalar(source, pa.string()), len(pairs)),
                *(rows[name] for name in ("path", "size", "mtime_ns")),
            ],
            names=COMPANION_COLUMNS.names,
        )
        # Those of files that are not embedded belong to no item.
        tables.append(table.filter(pc.is_valid(table["item"])).cast(COMPANION_COLUMNS))
    keys = [(name, "ascending") for name in ("item", "kind", "source", "path")]
    return pa.concat_tables(tables).sort_by(keys).combine_chunks()


def check_companions(companions: pa.Table, items: int, file: Path) -> None:
    """Check the values of a table whose columns are those of COMPANION_COLUMNS.

    Raises:
        BuildError: A value cannot be, such as a text that is not UTF-8 or the number of no item.
    """
    try:
        companions.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise BuildError(f"{file}: {error}: run `retrieval index`") from None
    numbers = companions["item"].to_numpy()
    kinds = pc.is_in(companions["kind"], pa.array([kind.value for kind in Kind]))
    if (
        any(column.null_count for column in companions.columns)
        or not pc.all(kinds, min_count=0).as_py()
        or (np.diff(numbers) < 0).any()
        or (len(numbers) and not 0 <= numbers[0] <= numbers[-1] < items)
    ):
        raise BuildError(f"{file}: a companion has an impossible value: run `retrieval index`")
