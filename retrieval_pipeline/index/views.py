"""Further views of the items to index: which rows of the view tables belong into a build."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index.arrow import no_rows, one_chunk
from retrieval_pipeline.index.items import JoinedItems, JoinedRows
from retrieval_pipeline.index.row_keys import find, keys_of, no_keys, view_keys
from retrieval_pipeline.index.rows import Rows
from retrieval_pipeline.storage.schemas import VIEW_COLUMNS, views_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_table
from retrieval_pipeline.vectors import Flags, Values, VectorSpace
from retrieval_pipeline.views import KINDS, View, Views, further_views

# By how much rounding may move the edge of a view beyond that of its picture.
EDGE_TOLERANCE = 1e-9


# Of which view each row of vectors after those of the items is, in their order.
VIEW_ROW_COLUMNS = pa.schema(
    [
        pa.field("item", pa.int32(), nullable=False),
        *(pa.field(name, pa.float64(), nullable=False) for name in VIEW_COLUMNS),
    ]
)


@dataclass(frozen=True)
class JoinedViews(JoinedRows):
    """The further views of the items.

    Attributes:
        table: Which they are, in the columns of VIEW_ROW_COLUMNS.
    """

    table: pa.Table


def join_views(
    store: Store, space: VectorSpace, items: JoinedItems, kinds: Mapping[str, Views]
) -> JoinedViews:
    """Return the stored views of items, as far as the settings ask for them.

    An item that lies in several sources has the views that any of them asks for.

    Args:
        store: Holds the view tables.
        space: The vector space.
        items: What is indexed.
        kinds: For each source which views its pictures have.

    Raises:
        StoreError: A table is damaged.
    """
    schema = views_schema(space.dim)
    columns = ["content_id", *VIEW_COLUMNS]
    paths = store.view_parts(space)
    if not paths:
        return JoinedViews(no_keys(), np.empty(0, np.int64), [], no_rows(VIEW_ROW_COLUMNS))
    tables = [read_table(path, schema, columns) for path in paths]
    stored = pa.concat_tables(
        [pa.schema([schema.field(name) for name in columns]).empty_table(), *tables]
    )
    owners = find(keys_of(stored["content_id"]), items.keys)
    edges = zip(*(stored[name].to_pylist() for name in VIEW_COLUMNS), strict=True)
    wanted = _wanted(items, np.unique(owners[owners >= 0]), kinds)
    # A view that was embedded twice counts once. Views of an item are sorted as they lie in it.
    found: dict[tuple[int, int], tuple[int, View]] = {}
    for row, (number, edge) in enumerate(zip(owners.tolist(), edges, strict=True)):
        view = View(*edge)
        place = wanted.get(number, {}).get(view)
        if place is not None:
            found.setdefault((number, place), (row, view))
    order = sorted(found)
    chosen = [found[key][1] for key in order]
    table = pa.table(
        [
            pa.array([number for number, _ in order], pa.int32()),
            *(
                pa.array([getattr(view, name) for view in chosen], pa.float64())
                for name in VIEW_COLUMNS
            ),
        ],
        schema=VIEW_ROW_COLUMNS,
    )
    return JoinedViews(
        view_keys(items.keys, table),
        np.array([found[key][0] for key in order], np.int64),
        [(path, len(part)) for path, part in zip(paths, tables, strict=True)],
        table,
    )


def _wanted(
    items: JoinedItems, numbers: npt.NDArray[np.integer], kinds: Mapping[str, Views]
) -> dict[int, dict[View, int]]:
    """Return the views that each of these items should have, and their order."""
    located = items.located
    kind_of = [kinds.get(name, "whole") for name in located.names]
    sides = items.pictures.sides[items.rows[numbers]].tolist()
    wanted = {}
    for number, (width, height) in zip(numbers.tolist(), sides, strict=True):
        first, end = located.starts(number, number + 1)
        kind = max((kind_of[source] for source in located.sources[first:end]), key=KINDS.index)
        # Whatever the encoder crops: what it sees itself has no row in its table.
        views = further_views(width, height, kind, own_is_cropped=False)
        wanted[number] = {view: place for place, view in enumerate(views)}
    return wanted


def rows_of_views(items: int, views: pa.Table) -> Rows:
    """Return which item each row belongs to."""
    if not len(views):
        # Without chunks, `one_chunk` would make pyarrow import pandas, if it is installed.
        return Rows(items, np.empty(0, np.int64))
    return Rows(items, one_chunk(views["item"]).to_numpy().astype(np.int64))


def are_views(x: Values, y: Values, width: Values, height: Values) -> Flags:
    """Tell of each view, float64 (n,), whether it is a part of a picture, bool (n,)."""
    inside = (x >= 0) & (y >= 0) & (np.maximum(x + width, y + height) <= 1 + EDGE_TOLERANCE)
    flags: Flags = inside & (width > 0) & (height > 0)
    return flags


def check_views(views: pa.Table, items: int, file: Path) -> None:
    """Check the values of a table whose columns are those of VIEW_ROW_COLUMNS.

    Args:
        views: The table, mapped into memory.
        items: How many items there are.
        file: Where the table is, for the error.

    Raises:
        BuildError: A value cannot be, such as a view beyond the edge of its picture.
    """
    try:
        views.validate(full=True)
    except (pa.ArrowException, ValueError) as error:
        raise BuildError(f"{file}: {error}: run `retrieval index`") from None
    owners = one_chunk(views["item"]).to_numpy(zero_copy_only=False)
    if (
        any(column.null_count for column in views.columns)
        or (np.diff(owners, prepend=0) < 0).any()
        or (owners >= items).any()
        or not are_views(*(views[name].to_numpy() for name in VIEW_COLUMNS)).all()
    ):
        raise BuildError(f"{file}: a view has an impossible value: run `retrieval index`")
