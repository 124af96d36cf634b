"""The columns of the Parquet tables, and the metadata that name a table's vector space."""

import pyarrow as pa

from retrieval_pipeline.vectors import VectorSpace

SCHEMA_VERSION = b"1"

MANIFEST = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("content_id", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
    ]
)
# The attributes of a `views.View`.
VIEW_COLUMNS = ("x", "y", "width", "height")
QUARANTINE = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("last_tried", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("tried_with", pa.string(), nullable=False),
    ]
)
JUDGEMENTS = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("liked", pa.bool_(), nullable=False),
        pa.field("judged_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)


def embedding_schema(dim: int) -> pa.Schema:
    """Return the columns of an embedding part, for vectors of `dim` components."""
    return pa.schema(
        [
            pa.field("content_id", pa.string(), nullable=False),
            pa.field("embedding", pa.list_(pa.float32(), dim), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("format", pa.string(), nullable=False),
        ]
    )


def views_schema(dim: int) -> pa.Schema:
    """Return the columns of a part with vectors of further views, of `dim` components.

    A row is a `views.View` of the picture with this content id, and its vector.
    """
    return pa.schema(
        [
            pa.field("content_id", pa.string(), nullable=False),
            *(pa.field(name, pa.float64(), nullable=False) for name in VIEW_COLUMNS),
            pa.field("embedding", pa.list_(pa.float32(), dim), nullable=False),
        ]
    )


def space_metadata(space: VectorSpace) -> dict[bytes, bytes]:
    """Return schema metadata that name the vector space of a table's vectors."""
    return {
        b"model": space.model.encode(),
        b"revision": space.revision.encode(),
        b"dim": str(space.dim).encode(),
        b"preprocessing": space.preprocessing.encode(),
    }
