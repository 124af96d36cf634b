"""Manifest -> embedding parts: decode ahead in worker processes, encode in lanes, publish."""

import contextlib
import importlib.metadata
import threading
import time
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.concurrency import available_cores
from retrieval_pipeline.config import Source
from retrieval_pipeline.encoders.base import Description, Encoder
from retrieval_pipeline.errors import EncoderError, Stopped
from retrieval_pipeline.images.decode_pool import DecodePool, Job, WorkerError
from retrieval_pipeline.images.errors import ImageError, Limits, Reason
from retrieval_pipeline.ingest.bottleneck import Timings
from retrieval_pipeline.ingest.encode_threads import Embedded, EncodeLanes, Result
from retrieval_pipeline.paths import to_path
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.schemas import QUARANTINE, embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import (
    read_manifest,
    read_quarantine,
    read_table,
    write_table,
)
from retrieval_pipeline.vectors import Vectors, VectorSpace

# A part is published at so many rows or after so many seconds: what a killed run loses.
PART_ROWS = 2_048
PART_SECONDS = 120.0

# From jobs to their results, batch by batch and in order.
Elsewhere = Callable[[Sequence[Job]], Generator[list[Result], None, None]]


@dataclass(frozen=True)
class EmbedReport:
    """What became of the images of one source; each content id is counted once.

    files = embedded + known + duplicates + quarantined + left

    `timings` are there if something was decoded.
    """

    source: str
    files: int
    duplicates: int
    known: int
    embedded: int
    quarantined: int
    newly_quarantined: int
    left: int
    seconds: float
    timings: Timings | None = None

    @property
    def images_per_second(self) -> float:
        """Images embedded in a second of wall time."""
        return self.embedded / self.seconds if self.seconds else 0.0


def update_embeddings(
    store: Store,
    source: Source,
    description: Description,
    load: Callable[[], Encoder],
    *,
    limits: Limits | None = None,
    workers: int | None = None,
    retry_quarantined: bool = False,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
    elsewhere: Elsewhere | None = None,
) -> EmbedReport:
    """Embed the images of `source` whose content has no embedding yet in this vector space.

    Parts are published as they fill, so that a run that ends early has lost little; images that
    cannot be used go to the quarantine table and are left alone until the software changes or
    `retry_quarantined`. `load` is only called when there is something to embed, and while the
    first images are decoded. `elsewhere` decodes and encodes instead of this process.

    Raises:
        EncoderError: The model cannot be loaded, or its device failed; what it had made is kept.
        WorkerError: Images cannot be decoded; likewise.
        StoreError: A table is damaged or cannot be written.
        Stopped: `stop` was set; the part in work was published.
    """
    progress = progress or Quiet()
    started = time.monotonic()
    space = description.space
    manifest = read_manifest(store, source.name)
    manifest = manifest.filter(pc.is_valid(manifest["content_id"]))
    paths = _first_paths(manifest)
    known = embedded_ids(store, space) & paths.keys()
    quarantine = _Quarantine.read(store, space, source.name, paths.keys() - known)
    skipped = set() if retry_quarantined else quarantine.settled()
    todo = [content for content in paths if content not in known and content not in skipped]
    jobs = (Job(source.path / to_path(paths[content]), content) for content in todo)
    progress.start(f"embedding {source.name}", len(todo), "images")
    writer = _PartWriter(store, space, source.name)
    left = 0
    timings: Timings | None = None

    def publish() -> None:
        writer.publish()
        quarantine.publish()

    def store_results(batches: Iterable[list[Result]]) -> int:
        """Write what comes, and return how many images were left for the next run."""
        left = 0
        contents = iter(todo)
        try:
            for batch in batches:
                for content, result in zip(islice(contents, len(batch)), batch, strict=True):
                    if isinstance(result, Embedded):
                        quarantine.discard(content)
                        writer.add(content, result)
                    elif isinstance(result, ImageError):
                        quarantine.add(content, paths[content], result)
                        progress.note(f"{source.name}/{paths[content]}: {result}")
                    else:
                        left += 1
                progress.advance(len(batch))
                if writer.is_due():
                    publish()
                if stop is not None and stop.is_set():
                    publish()
                    raise Stopped(
                        f"stopped while embedding {source.name}: {writer.count} images are kept"
                    )
        except (EncoderError, WorkerError):
            publish()
            raise
        publish()
        return left

    if todo and elsewhere is not None:
        with contextlib.closing(elsewhere(list(jobs))) as results:
            left = store_results(results)
    elif todo:
        with DecodePool(description.transform, limits or Limits(), workers) as pool:
            outcomes = (outcome for _, outcome in pool.map(jobs))
            lanes = EncodeLanes(load())
            batches = lanes.map(outcomes)
            loaded, done_before = time.monotonic(), pool.work
            left = store_results(batches)
            timings = Timings(
                loading=loaded - started,
                elapsed=time.monotonic() - loaded,
                decode=pool.work - done_before,
                encode=lanes.work,
                writing=writer.seconds,
                cores=available_cores(),
                efficiency=lanes.efficiency,
            )
    quarantine.publish()
    progress.finish()
    return EmbedReport(
        source=source.name,
        files=len(manifest),
        duplicates=len(manifest) - len(paths),
        known=len(known),
        embedded=writer.count,
        quarantined=len(quarantine),
        newly_quarantined=quarantine.added,
        left=left,
        seconds=time.monotonic() - started,
        timings=timings,
    )


def embedded_ids(store: Store, space: VectorSpace) -> set[str]:
    """Return the content ids that have an embedding in `space`, whatever their source.

    Raises:
        StoreError: A part is damaged.
    """
    schema = embedding_schema(space.dim)
    return {
        content
        for part in store.parts(space)
        for content in read_table(part, schema, ["content_id"])["content_id"].to_pylist()
    }


def _first_paths(manifest: pa.Table) -> dict[str, str]:
    """Return an example path for each content id, in the order of the manifest."""
    paths: dict[str, str] = {}
    columns = (manifest[name].to_pylist() for name in ("content_id", "path"))
    for content, path in zip(*columns, strict=True):
        paths.setdefault(content, path)
    return paths


class _PartWriter:
    """Collects rows and publishes them as immutable parts."""

    def __init__(self, store: Store, space: VectorSpace, source: str) -> None:
        self._store, self._space, self._source = store, space, source
        self._rows: list[tuple[str, Vectors, int, int, str]] = []
        self._last = time.monotonic()
        self.count = 0
        self.seconds = 0.0

    def add(self, content: str, embedded: Embedded) -> None:
        facts = embedded.width, embedded.height, embedded.format
        self._rows.append((content, embedded.vector, *facts))

    def is_due(self) -> bool:
        return len(self._rows) >= PART_ROWS or (
            bool(self._rows) and time.monotonic() - self._last > PART_SECONDS
        )

    def publish(self) -> None:
        began = time.monotonic()
        if self._rows:
            contents, vectors, widths, heights, formats = zip(*self._rows, strict=True)
            flat = pa.array(np.concatenate(vectors), pa.float32())
            columns = [
                pa.array(contents),
                pa.FixedSizeListArray.from_arrays(flat, self._space.dim),
                pa.array(widths, pa.int32()),
                pa.array(heights, pa.int32()),
                pa.array(formats),
            ]
            table = pa.table(columns, schema=embedding_schema(self._space.dim))
            write_table(self._store.next_part(self._space, self._source), table, self._space)
            self.count += len(self._rows)
            self._rows.clear()
        self._last = time.monotonic()
        self.seconds += self._last - began


class _Quarantine:
    """The images of one source that could not be used, by content id."""

    def __init__(self, store: Store, space: VectorSpace, source: str) -> None:
        self._store, self._space, self._source = store, space, source
        self._software = software()
        self._stored: dict[str, dict[str, object]] = {}
        self._rows: dict[str, dict[str, object]] = {}
        self.added = 0

    @classmethod
    def read(cls, store: Store, space: VectorSpace, source: str, wanted: set[str]) -> "_Quarantine":
        """Read the table; rows of content that is gone or embedded by now are dropped."""
        quarantine = cls(store, space, source)
        rows = read_quarantine(store, space, source).to_pylist()
        quarantine._stored = {row["content_id"]: row for row in rows}
        quarantine._rows = {row["content_id"]: row for row in rows if row["content_id"] in wanted}
        return quarantine

    def __len__(self) -> int:
        return len(self._rows)

    def settled(self) -> set[str]:
        """Content ids that this very software has tried; trying again would change nothing."""
        return {
            content
            for content, row in self._rows.items()
            if row["tried_with"] == self._software and row["reason"] != Reason.UNREADABLE
        }

    def add(self, content: str, path: str, error: ImageError) -> None:
        former = self._rows.get(content)
        self.added += former is None
        self._rows[content] = {
            "content_id": content,
            "path": path,
            "reason": error.reason.value,
            "detail": error.detail,
            "attempts": (former["attempts"] if former else 0) + 1,  # type: ignore[operator]
            "last_tried": datetime.now(UTC),
            "tried_with": self._software,
        }

    def discard(self, content: str) -> None:
        self._rows.pop(content, None)

    def publish(self) -> None:
        if self._rows != self._stored:
            rows = sorted(self._rows.values(), key=lambda row: str(row["path"]))
            table = pa.Table.from_pylist(rows, schema=QUARANTINE)
            write_table(self._store.quarantine(self._space, self._source), table, self._space)
            self._stored = dict(self._rows)


def software() -> str:
    """Name the versions that decide whether an image can be decoded; plugins may be missing."""
    found = []
    for name in ("retrieval-pipeline", "pillow", "pillow-heif", "pillow-jxl-plugin"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join(found)
