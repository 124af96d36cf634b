"""Columns of the stored tables and where their values come from, as Dagster shows them."""

from collections.abc import Mapping, Sequence

import dagster as dg
import pyarrow as pa

from retrieval_pipeline.orchestration.flow import Flow

# The dimension depends on the model; the columns do not.
ANY_DIMENSION = 1

# Where Arrow's own name is long.
_TYPES = {"embedding": "list<float>", "locations": "list<struct>"}
_DESCRIPTIONS = {
    "path": "Relative to the source; bytes that are not UTF-8 as \\xNN",
    "size": "Bytes",
    "mtime_ns": "Time of the last change, nanoseconds since 1970",
    "content_id": "First 128 bits of the BLAKE3 of the file's bytes, as hex",
    "status": "ok, unreadable, changing or too_large",
    "error": "Why a file has no content id",
    "embedding": "Unit vector, float32, as many components as the model has",
    "width": "Pixels of the upright picture",
    "height": "Pixels of the upright picture",
    "format": "As Pillow names it",
    "locations": "Every file that holds this image: source, path, size, mtime_ns",
    "x": "Along the first principal component",
    "y": "Along the second principal component",
    "z": "Along the third principal component",
    "cluster": "Number of the cluster",
    "sidecar_digest": "Hash of the paths, sizes and times of the sidecars",
    "taken_at": "By the clock on the wall where the picture was taken",
    "utc_offset_minutes": "Of that clock, east of UTC positive",
    "taken_from": "Where the date was found: sidecar, exif, xmp, iptc, png, takeout, file_name, "
    "file_time",
    "camera_make": "As the camera writes it",
    "camera_model": "As the camera writes it",
    "camera": "Make and model, the make once",
    "lens": "Model of the lens",
    "exposure_seconds": "Exposure time",
    "f_number": "Focal length divided by aperture",
    "focal_length_mm": "As it is, not as on 35 mm film",
    "iso": "Sensitivity",
    "latitude": "WGS 84 degrees, north positive",
    "longitude": "WGS 84 degrees, east positive",
    "altitude_m": "Metres above the sea",
    "orientation": "EXIF orientation of the stored pixels",
    "title": "A short name",
    "caption": "A description",
    "keywords": "Tags",
    "rating": "Stars, 0 to 5; -1 is rejected",
    "motion_photo": "Whether a video of the same moment is in the file",
    "word": "A person's own",
    "relevance": "0 to 1: how sure it is that the picture has to do with the word",
    "problems": "Why facts that are there were refused",
}


def columns(schema: pa.Schema) -> dict[str, dg.TableSchema]:
    """Return the metadata of an asset's definition that tells the columns of its table."""
    return {
        "dagster/column_schema": dg.TableSchema(
            columns=[
                dg.TableColumn(
                    column.name,
                    _TYPES.get(column.name, str(column.type)),
                    _DESCRIPTIONS[column.name],
                    dg.TableColumnConstraints(nullable=column.nullable),
                )
                for column in schema
            ]
        )
    }


def lineage(flow: Flow, origins: Mapping[str, Sequence[str]]) -> dict[str, dg.TableColumnLineage]:
    """Return the metadata that says from which "asset.column" each column is made."""
    return {
        "dagster/column_lineage": dg.TableColumnLineage(
            deps_by_column={
                name: [
                    dg.TableColumnDep(asset_key=flow.key(asset), column_name=column)
                    for asset, _, column in (origin.partition(".") for origin in each)
                ]
                for name, each in origins.items()
            }
        )
    }


_FROM_PICTURE = ("file_manifest.content_id",)
_FROM_VECTOR = ("retrieval_index.embedding",)

EMBEDDING_ORIGINS = {
    "content_id": _FROM_PICTURE,
    "embedding": _FROM_PICTURE,
    "width": _FROM_PICTURE,
    "height": _FROM_PICTURE,
    "format": _FROM_PICTURE,
}
ITEM_ORIGINS = {
    "content_id": ("image_embeddings.content_id",),
    "locations": ("file_manifest.path", "file_manifest.size", "file_manifest.mtime_ns"),
    "embedding": ("image_embeddings.embedding",),
    "width": ("image_embeddings.width",),
    "height": ("image_embeddings.height",),
    "format": ("image_embeddings.format",),
}
MAP_ORIGINS = {
    "content_id": ("retrieval_index.content_id",),
    "x": _FROM_VECTOR,
    "y": _FROM_VECTOR,
    "z": _FROM_VECTOR,
    "cluster": _FROM_VECTOR,
}
