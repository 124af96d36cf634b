"""The columns of the Parquet tables, and the metadata that name a table's vector space."""

import pyarrow as pa

from retrieval_pipeline.vectors import VectorSpace

SCHEMA_VERSION = b"1"

# Keys of a manifest's metadata: JSON of how many files are not looked at, by extension; and "true"
# if files of one photograph are one item.
NOT_LOOKED_AT, GROUPED = b"not_looked_at", b"grouped"

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
# Files beside pictures that hold facts of these: XMP, and the JSON of Google Takeout.
SIDECARS = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
    ]
)
# The fields of `facts.model.PictureFacts`, for each file of the manifest whose content is known.
FACTS = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        # Hash of the paths, sizes and times of the sidecars that were read; null without any.
        pa.field("sidecar_digest", pa.string()),
        pa.field("taken_at", pa.timestamp("us")),
        pa.field("utc_offset_minutes", pa.int16()),
        pa.field("taken_from", pa.string()),
        pa.field("camera_make", pa.string()),
        pa.field("camera_model", pa.string()),
        pa.field("camera", pa.string()),
        pa.field("lens", pa.string()),
        pa.field("exposure_seconds", pa.float32()),
        pa.field("f_number", pa.float32()),
        pa.field("focal_length_mm", pa.float32()),
        pa.field("iso", pa.int32()),
        pa.field("latitude", pa.float64()),
        pa.field("longitude", pa.float64()),
        pa.field("altitude_m", pa.float32()),
        pa.field("orientation", pa.int8()),
        pa.field("title", pa.string()),
        pa.field("caption", pa.string()),
        pa.field("keywords", pa.list_(pa.string()), nullable=False),
        pa.field("rating", pa.int8()),
        pa.field("motion_photo", pa.bool_()),
        pa.field("problems", pa.list_(pa.string()), nullable=False),
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
# The pictures of an album, in the order in which they were added.
ALBUM = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        # Where it was when it was added: source, "/" and the path in it. It tells people which
        # picture it was that has left the index.
        pa.field("path", pa.string()),
        pa.field("added_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)
# The rows that a collection of an engine holds, by the program's own account.
LEDGER = pa.schema(
    [
        # The primary key.
        pa.field("id", pa.string(), nullable=False),
        # Hash of the row that was sent; null where it is not known whether it arrived.
        pa.field("digest", pa.binary(16)),
        # Hash of the block of items that the row belongs to; null where it is not known.
        pa.field("block", pa.binary(16)),
        # When the picture was first published, in microseconds since 1970; 0 where that is unknown.
        pa.field("first_published", pa.int64(), nullable=False),
    ]
)
LABELS = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("word", pa.string(), nullable=False),
        # 0 to 1: how sure it is that the picture has to do with the word (search/relevance.py).
        pa.field("relevance", pa.float32(), nullable=False),
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
