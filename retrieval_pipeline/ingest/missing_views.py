"""Which further views the embedded pictures of a source should have by its settings, and lack."""

from collections.abc import Collection

import numpy as np

from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.encoders.base import Description
from retrieval_pipeline.storage.schemas import VIEW_COLUMNS, embedding_schema, views_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_table
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline.views import LONG, View, further_views


def missing_views(
    store: Store, source: Source, description: Description, contents: Collection[str]
) -> dict[str, tuple[View, ...]]:
    """Return the views that each of these embedded contents lacks; what lacks none is left out.

    Args:
        store: Holds the embeddings.
        source: Its `views` say which ones are wanted.
        description: Of the encoder.
        contents: Content ids of the source that have an embedding.

    Raises:
        StoreError: A part is damaged.
    """
    if source.views == "centre" or not contents:
        return {}
    space = description.space
    stored = stored_views(store, space)
    missing: dict[str, tuple[View, ...]] = {}
    for part in store.parts(space):
        columns = ["content_id", "width", "height"]
        table = read_table(part, embedding_schema(space.dim), columns)
        if source.views == "whole":
            edges = np.stack([table["width"].to_numpy(), table["height"].to_numpy()])
            table = table.take(np.flatnonzero(edges.max(axis=0) >= LONG * edges.min(axis=0)))
        for content, width, height in zip(
            *(table[name].to_pylist() for name in columns), strict=True
        ):
            if content in contents:
                cropped = description.transform.crop is not None
                wanted = further_views(width, height, source.views, cropped)
                there = stored.get(content, ())
                if lacking := tuple(view for view in wanted if view not in there):
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
