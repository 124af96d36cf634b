"""Which further views the embedded pictures of a source should have by its settings, and lack."""

import functools
from collections.abc import Collection

import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.encoders.base import Description
from retrieval_pipeline.storage.schemas import VIEW_COLUMNS, embedding_schema, views_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_table
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline.views import LONG, View, Views, further_views


class ViewTables:
    """The sizes of embedded pictures and their stored views, read once for a run over sources."""

    def __init__(self, store: Store, description: Description) -> None:
        self._store, self._space = store, description.space
        self._own_is_cropped = description.transform.crop is not None

    @functools.cached_property
    def stored(self) -> dict[str, set[View]]:
        """What `stored_views` returned when it was asked for first, and what was added since.

        Raises:
            StoreError: A part is damaged.
        """
        return stored_views(self._store, self._space)

    @functools.cached_property
    def _pictures(self) -> pa.Table:
        """The columns content_id, width and height of all embedded pictures."""
        schema = embedding_schema(self._space.dim)
        columns = ["content_id", "width", "height"]
        tables = [read_table(part, schema, columns) for part in self._store.parts(self._space)]
        return pa.concat_tables([schema.empty_table().select(columns), *tables])

    @functools.cached_property
    def _long_pictures(self) -> pa.Table:
        edges = self._pictures["width"], self._pictures["height"]
        shorter = pc.multiply(pc.min_element_wise(*edges), LONG)
        return self._pictures.filter(pc.greater_equal(pc.max_element_wise(*edges), shorter))

    def add(self, content: str, views: Collection[View]) -> None:
        """Note that these views of a content are stored by now."""
        if views:
            self.stored.setdefault(content, set()).update(views)

    def missing(self, kind: Views, contents: Collection[str]) -> dict[str, tuple[View, ...]]:
        """Return the views that each of these contents lacks; what lacks none is left out.

        Args:
            kind: Which views are wanted.
            contents: Content ids. One that got its embedding after the tables were read counts as
                complete until they are read again.

        Raises:
            StoreError: A part is damaged.
        """
        if kind == "centre" or not contents:
            return {}
        table = self._long_pictures if kind == "whole" else self._pictures
        wanted = pa.array(list(contents), pa.string())
        table = table.filter(pc.is_in(table["content_id"], value_set=wanted))
        missing: dict[str, tuple[View, ...]] = {}
        for content, width, height in zip(
            *(column.to_pylist() for column in table.columns), strict=True
        ):
            there = self.stored.get(content, ())
            views = further_views(width, height, kind, self._own_is_cropped)
            if lacking := tuple(view for view in views if view not in there):
                missing[content] = lacking
        return missing


def stored_views(store: Store, space: VectorSpace) -> dict[str, set[View]]:
    """Return the views that have a vector in `space`, from any source, by content id.

    Raises:
        StoreError: A part is damaged.
    """
    stored: dict[str, set[View]] = {}
    for part in store.view_parts(space):
        columns = ["content_id", *VIEW_COLUMNS]
        table = read_table(part, views_schema(space.dim), columns)
        for content, *edges in zip(*(table[name].to_pylist() for name in columns), strict=True):
            stored.setdefault(content, set()).add(View(*edges))
    return stored
