"""Pictures and tables for the Dagster UI; they live in the event log, so each stays small."""

import base64
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import dagster as dg
import pyarrow as pa

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import ImageError, Limits, Reason
from retrieval_pipeline.images.pictures import encoded, picture, pictures
from retrieval_pipeline.images.transform import Fit
from retrieval_pipeline.ingest.manifest import Status
from retrieval_pipeline.maintenance.gc import Freed
from retrieval_pipeline.paths import printable, to_path, to_text
from retrieval_pipeline.rendering.contact_sheet import contact_sheet
from retrieval_pipeline.search.results import Answer, rounded
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, read_quarantine
from retrieval_pipeline.vectors import VectorSpace

# Pictures on a contact sheet: enough to recognise a directory at a glance.
SHEET_PICTURES = 12
# Of a picture or a table with pictures, as base64: an event log keeps it for ever.
PREVIEW_BYTES = 95_000
# Width of the map's picture and quality of its compression: thumbnails can be told apart, and full
# of them it takes 70 KB. What takes more is made smaller.
MAP_PIXELS, MAP_QUALITY = 1000, 60
# Rows of a table, and characters of an error: enough to see what is wrong.
TABLE_ROWS, DETAIL = 50, 200
# Named, so that a table without rows has them, too.
UNREADABLE_COLUMNS = dg.TableSchema(columns=[dg.TableColumn("path"), dg.TableColumn("why")])
FREED_COLUMNS = dg.TableSchema(
    columns=[dg.TableColumn("path"), dg.TableColumn("bytes", "int"), dg.TableColumn("why")]
)
HIT_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("rank", "int"),
        dg.TableColumn("score", "float"),
        dg.TableColumn("relevance", "float"),
        dg.TableColumn("taken"),
        dg.TableColumn("place"),
        dg.TableColumn("camera"),
        dg.TableColumn("source"),
        dg.TableColumn("path"),
        dg.TableColumn("copies", "int"),
    ]
)
QUARANTINE_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("reason"),
        dg.TableColumn("images", "int"),
        dg.TableColumn("example"),
        dg.TableColumn("detail"),
    ]
)
FAILED_COLUMNS = dg.TableSchema(
    columns=[
        dg.TableColumn("path"),
        dg.TableColumn("reason"),
        dg.TableColumn("detail"),
        dg.TableColumn("attempts", "int"),
        dg.TableColumn("last_tried"),
    ]
)
# Why a picture is not decoded once more to be shown among those that failed.
NOT_AGAIN = frozenset({Reason.TIMED_OUT, Reason.CRASHED, Reason.TOO_LARGE})
# Pixels and count of the thumbnails in a table of hits: together below 100 KB.
HIT_PIXELS = 128
HIT_PICTURES = 16


def source_sheet(store: Store, settings: Settings, source: str) -> dg.MarkdownMetadataValue:
    """Return a contact sheet of images spread over one source."""
    root = settings.source(source).path
    manifest = read_manifest(store, source).select(["path", "content_id"])
    step = max(1, len(manifest) // SHEET_PICTURES)
    spread = pa.array(range(0, len(manifest), step)[:SHEET_PICTURES], pa.int64())
    jobs = [
        Job(root / to_path(row["path"]), row["content_id"])
        for row in manifest.take(spread).to_pylist()
    ]
    return shown_image(contact_sheet(jobs, Limits.of(settings.images)), "image/png")


def unreadable_table(store: Store, source: str) -> dg.TableMetadataValue:
    """Return the first paths of a source that could not be read, and why."""
    rows = read_manifest(store, source).to_pylist()
    return dg.MetadataValue.table(
        [
            dg.TableRecord({"path": printable(row["path"]), "why": row["error"] or row["status"]})
            for row in rows
            if row["status"] != Status.OK
        ][:TABLE_ROWS],
        UNREADABLE_COLUMNS,
    )


def quarantine_table(store: Store, space: VectorSpace, source: str) -> dg.TableMetadataValue:
    """Return how many images of a source cannot be used for each reason, with an example."""
    rows = read_quarantine(store, space, source).to_pylist()
    counts = Counter(row["reason"] for row in rows)
    examples = {row["reason"]: row for row in reversed(rows)}
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "reason": reason.replace("_", " "),
                    "images": count,
                    "example": printable(examples[reason]["path"]),
                    "detail": printable(examples[reason]["detail"])[:DETAIL],
                }
            )
            for reason, count in counts.most_common()
        ],
        QUARANTINE_COLUMNS,
    )


def failed_table(store: Store, space: VectorSpace, source: str) -> dg.TableMetadataValue:
    """Return the images of a source that cannot be used, those that were tried last first."""
    rows = read_quarantine(store, space, source).sort_by([("last_tried", "descending")])
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "path": printable(row["path"]),
                    "reason": row["reason"].replace("_", " "),
                    "detail": printable(row["detail"])[:DETAIL],
                    "attempts": row["attempts"],
                    "last_tried": f"{row['last_tried']:%Y-%m-%d %H:%M} UTC",
                }
            )
            for row in rows.slice(0, TABLE_ROWS).to_pylist()
        ],
        FAILED_COLUMNS,
    )


def failed_sheet(
    store: Store, settings: Settings, space: VectorSpace, source: str
) -> dg.MarkdownMetadataValue:
    """Return a contact sheet of images that cannot be used, those that were tried last first.

    It shows as much of each as can be drawn, else the reason. What killed its worker or took too
    long is not decoded once more.
    """
    root, limits = settings.source(source).path, Limits.of(settings.images)
    rows = read_quarantine(store, space, source).sort_by([("last_tried", "descending")])
    failed = rows.slice(0, SHEET_PICTURES).to_pylist()
    jobs = [
        ImageError(Reason(row["reason"]), row["detail"])
        if row["reason"] in NOT_AGAIN
        else Job(root / to_path(row["path"]), row["content_id"])
        for row in failed
    ]
    captions = [PurePosixPath(row["path"]).name for row in failed]
    sheet = contact_sheet(jobs, limits, captions, partial=True)
    return shown_image(sheet, "image/png")


def freed_table(freed: Sequence[Freed], store: Store) -> dg.TableMetadataValue:
    """Return the first of what the garbage collection removed, and why."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "path": str(each.path.relative_to(store.home)),
                    "bytes": each.bytes,
                    "why": each.why,
                }
            )
            for each in freed[:TABLE_ROWS]
        ],
        FREED_COLUMNS,
    )


def map_preview(png: Path) -> dg.MarkdownMetadataValue:
    """Return a map's picture, small enough for the event log.

    Raises:
        ImageError: The file is gone or damaged.
    """
    pixels = MAP_PIXELS
    while len(shown := _image(_webp(png, pixels), "image/webp")) > PREVIEW_BYTES:
        pixels = pixels * 3 // 4
    return dg.MetadataValue.md(shown)


def shown_image(data: bytes, mime: str) -> dg.MarkdownMetadataValue:
    """Return an image that the UI shows."""
    return dg.MetadataValue.md(_image(data, mime))


def hits_table(answer: Answer) -> dg.TableMetadataValue:
    """Return the hits as a table."""
    return dg.MetadataValue.table(
        [
            dg.TableRecord(
                {
                    "rank": rank,
                    "score": rounded(hit.score),
                    "relevance": rounded(hit.relevance),
                    "taken": hit.facts.day,
                    "place": hit.facts.where,
                    "camera": hit.facts.camera or "",
                    "source": hit.source,
                    "path": printable(to_text(str(hit.path))),
                    "copies": len(hit.locations),
                }
            )
            for rank, hit in enumerate(answer.hits, 1)
        ],
        HIT_COLUMNS,
    )


def hits_pictures(answer: Answer, limits: Limits) -> dg.MarkdownMetadataValue:
    """Return the hits with thumbnails, as a Markdown table."""
    rows = ["| | rank | score | taken | file |", "|---|---|---|---|---|"]
    size = 0
    hits = answer.hits[:HIT_PICTURES]
    found = pictures([Job(hit.path, hit.content_id) for hit in hits], Fit(HIT_PIXELS), limits)
    for rank, (hit, each) in enumerate(zip(hits, found, strict=True), 1):
        if isinstance(each, ImageError):
            shown = str(each)
        else:
            shown = _image(encoded(each.pixels), "image/webp")
        name = printable(to_text(str(hit.path))).replace("|", "\\|")
        score = "" if hit.score is None else f"{hit.score:.3f}"
        row = f"| {shown} | {rank} | {score} | {hit.facts.day} | `{name}` |"
        if (size := size + len(row)) > PREVIEW_BYTES:
            break
        rows.append(row)
    return dg.MetadataValue.md("\n".join(rows))


def _webp(png: Path, pixels: int) -> bytes:
    # Our own file, which may be larger than what the settings allow for the user's pictures.
    return encoded(picture(Job(png), Fit(pixels), Limits()).pixels, quality=MAP_QUALITY)


def _image(data: bytes, mime: str) -> str:
    return f"![](data:{mime};base64,{base64.b64encode(data).decode()})"
