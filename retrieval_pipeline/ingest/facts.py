"""Manifest -> facts: when, where and with what each picture was taken."""

import threading
from dataclasses import dataclass

import pyarrow.compute as pc

from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.facts.merge import merged
from retrieval_pipeline.facts.model import PictureFacts
from retrieval_pipeline.facts.table import FactsRow, to_table
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.reading import is_there
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_facts, read_manifest, write_table


@dataclass(frozen=True)
class FactsReport:
    """What is known of the pictures of one source.

    Attributes:
        source: Name of the source.
        files: Files with a row of facts.
        published: True if the table was written, False if nothing had changed.
    """

    source: str
    files: int
    published: bool


def update_facts(
    store: Store,
    source: Source,
    *,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> FactsReport:
    """Bring the table of the facts of a source's pictures up to date with its manifest.

    Args:
        store: Holds the manifest and receives the facts.
        source: The source whose pictures are looked at.
        progress: Told of files.
        stop: Ends the run when it is set; what is finished is kept.

    Raises:
        StoreError: A table is damaged or cannot be written.
        Stopped: `stop` was set.
    """
    progress = progress or Quiet()
    manifest = read_manifest(store, source.name)
    manifest = manifest.filter(pc.is_valid(manifest["content_id"])).sort_by("path")
    columns = (manifest[name].to_pylist() for name in ("content_id", "path", "mtime_ns"))
    table = to_table(
        FactsRow(content, path, None, merged(PictureFacts(), mtime_ns))
        for content, path, mtime_ns in zip(*columns, strict=True)
    )
    path = store.facts(source.name)
    published = not is_there(path) or read_facts(store, source.name) != table
    if published:
        write_table(path, table)
    return FactsReport(source.name, len(table), published)
