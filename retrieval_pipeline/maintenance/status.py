"""What is indexed, by which model, how fresh, and what failed."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow.compute as pc

from retrieval_pipeline.config import Settings, Source
from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index.build import BuildInfo, read_info
from retrieval_pipeline.ingest.crawl import Status
from retrieval_pipeline.ingest.embed import damaged_ids, embedded_ids
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, read_quarantine
from retrieval_pipeline.vectors import VectorSpace

if TYPE_CHECKING:
    from pathlib import Path

    from retrieval_pipeline.index.build import BuildInfo


@dataclass(frozen=True)
class SourceStatus:
    """One source, as of its last crawl.

    Attributes:
        name: Of the source.
        path: Its directory.
        reachable: The directory is there now.
        files: Files with a content id.
        images: Different contents among them.
        bytes: Sizes of the files, added up.
        embedded: Contents that have an embedding in the vector space of the settings.
        damaged: Those of them whose file lacks the end of its picture.
        quarantined: Contents that cannot be used, by reason.
        unreadable: Files and directories that could not be read.
        crawled_at: When the source was last looked at; None before the first time.
    """

    name: str
    path: Place
    reachable: bool
    files: int
    images: int
    bytes: int
    embedded: int
    damaged: int
    quarantined: dict[str, int]
    unreadable: int
    crawled_at: datetime | None

    @property
    def pending(self) -> int:
        """Contents that the next run will try to embed."""
        return self.images - self.embedded - sum(self.quarantined.values())


@dataclass(frozen=True)
class LibraryStatus:
    """Everything `retrieval status` shows."""

    home: Place
    model: str
    sources: tuple[SourceStatus, ...]
    build: Path | None
    info: BuildInfo | None
    problem: str | None


def read_status(settings: Settings, space: VectorSpace) -> LibraryStatus:
    """Read the state of every source in `space` and of the current build.

    Raises:
        StoreError: A table is damaged.
    """
    store = Store(settings.home)
    embedded, damaged = embedded_ids(store, space), damaged_ids(store, space)
    sources = tuple(
        _source_status(store, space, source, embedded, damaged) for source in settings.sources
    )
    build = store.current_build()
    info, problem = None, None
    if build is None:
        problem = "nothing is indexed yet: run `retrieval index`"
    else:
        try:
            info = read_info(build)
        except BuildError as error:
            problem = str(error)
        else:
            if info.space != space:
                problem = (
                    f"the index answers with {info.model}; the settings now name {space.model}: "
                    "`retrieval index` makes the change"
                )
    return LibraryStatus(settings.home, space.model, sources, build, info, problem)


def _source_status(
    store: Store, space: VectorSpace, source: Source, embedded: set[str], damaged: set[str]
) -> SourceStatus:
    manifest = read_manifest(store, source.name)
    files = manifest.filter(pc.is_valid(manifest["content_id"]))
    contents = set(files["content_id"].to_pylist())
    quarantine = read_quarantine(store, space, source.name).to_pylist()
    reasons = Counter(row["reason"] for row in quarantine if row["content_id"] in contents)
    path = store.manifest(source.name)
    return SourceStatus(
        name=source.name,
        path=source.path,
        reachable=source.path.is_dir(),
        files=len(files),
        images=len(contents),
        bytes=pc.sum(files["size"]).as_py() or 0,
        embedded=len(contents & embedded),
        damaged=len(contents & damaged),
        quarantined=dict(reasons.most_common()),
        unreadable=pc.sum(pc.not_equal(manifest["status"], Status.OK.value)).as_py() or 0,
        crawled_at=datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.exists() else None,
    )


def search_line(info: BuildInfo) -> str:
    """Say how a build is searched, what that finds, and on what it was tried."""
    calibration = info.calibration
    line = f"{calibration.plan}, recall@10 {calibration.recall_at_10:.3f}"
    if calibration.plan.kind == "codes":
        line = f"{line} (where many queries are asked, with faiss; else the projected scan)"
    if not calibration.image_queries:
        return line
    chosen = next(each for each in calibration.measured if each.plan == calibration.plan)
    tried = f"{calibration.image_queries} pictures, {calibration.text_queries} texts"
    return f"{line}, {chosen.p50_ms:.1f} ms (measured with {tried})"


def status_json(status: LibraryStatus) -> dict[str, Any]:
    """Return the JSON object of `retrieval status`."""
    info = status.info
    return {
        "home": str(status.home),
        "model": status.model,
        "build": status.build.name if status.build else None,
        "index": info.model_dump(mode="json", exclude={"files"}) if info else None,
        "recall_at_10": info.recall_at_10 if info else None,
        "problem": status.problem,
        "sources": [
            {
                "name": source.name,
                "path": str(source.path),
                "reachable": source.reachable,
                "files": source.files,
                "images": source.images,
                "bytes": source.bytes,
                "embedded": source.embedded,
                "damaged": source.damaged,
                "pending": source.pending,
                "quarantined": source.quarantined,
                "unreadable": source.unreadable,
                "crawled_at": source.crawled_at.isoformat() if source.crawled_at else None,
            }
            for source in status.sources
        ],
    }
