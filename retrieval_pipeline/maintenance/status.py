"""The status: what is indexed, by which model, when it was last looked at, and what failed."""

from collections import Counter
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyarrow.compute as pc

from retrieval_pipeline.config import Settings, Source
from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index.build import BuildInfo, read_info
from retrieval_pipeline.ingest.crawl import Status
from retrieval_pipeline.ingest.embed import embedded_ids
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, read_quarantine
from retrieval_pipeline.vectors import VectorSpace


@dataclass(frozen=True)
class SourceStatus:
    """One source, as it was at its last crawl.

    Attributes:
        name: The source's name.
        path: Its directory.
        reachable: Whether the directory is there now.
        files: Number of files with a content id.
        images: Number of different content ids among them.
        bytes: Sum of the files' sizes.
        embedded: Content ids with an embedding in the vector space of the settings.
        quarantined: Number of content ids that could not be embedded, by reason.
        unreadable: Number of files and directories that could not be read.
        crawled_at: When the source was last crawled; None before the first time.
    """

    name: str
    path: Place
    reachable: bool
    files: int
    images: int
    bytes: int
    embedded: int
    quarantined: dict[str, int]
    unreadable: int
    crawled_at: datetime | None

    @property
    def pending(self) -> int:
        """Number of content ids that the next run will try to embed."""
        return self.images - self.embedded - sum(self.quarantined.values())


@dataclass(frozen=True)
class LibraryStatus:
    """Everything that `retrieval status` shows.

    Attributes:
        home: As in the settings.
        model: The model of the settings.
        sources: In the order of the settings.
        build: Directory of the current build; None before the first one.
        info: The facts about it; None if it cannot be used.
        problem: Why there is no usable build, or why it is not of the settings' model.
    """

    home: Place
    model: str
    sources: tuple[SourceStatus, ...]
    build: Path | None
    info: BuildInfo | None
    problem: str | None


def read_status(settings: Settings, space: VectorSpace) -> LibraryStatus:
    """Read the state of every source and of the current build.

    Args:
        settings: Name the home and the sources.
        space: The vector space of the settings' model.

    Raises:
        StoreError: A table is damaged.
    """
    store = Store(settings.home)
    # First, since it refuses a directory that is no home.
    build = store.current_build()
    embedded = embedded_ids(store, space)
    sources = tuple(_source_status(store, space, source, embedded) for source in settings.sources)
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
    store: Store, space: VectorSpace, source: Source, embedded: set[str]
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
        quarantined=dict(reasons.most_common()),
        unreadable=pc.sum(pc.not_equal(manifest["status"], Status.OK.value)).as_py() or 0,
        crawled_at=datetime.fromtimestamp(path.stat().st_mtime, UTC) if path.exists() else None,
    )


def search_line(info: BuildInfo) -> str:
    """Describe how a build is searched, its recall, its speed, and how both were measured."""
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
                "pending": source.pending,
                "quarantined": source.quarantined,
                "unreadable": source.unreadable,
                "crawled_at": source.crawled_at.isoformat() if source.crawled_at else None,
            }
            for source in status.sources
        ],
    }
