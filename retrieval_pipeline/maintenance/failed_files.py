"""The files that could not be indexed, each with its reason."""

from dataclasses import dataclass

import pyarrow.compute as pc

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.facts.grouped_files import read_grouped_files
from retrieval_pipeline.ingest.embed import embedded_ids
from retrieval_pipeline.ingest.manifest import Status
from retrieval_pipeline.paths import to_path
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, read_quarantine
from retrieval_pipeline.vectors import VectorSpace


@dataclass(frozen=True)
class FailedFile:
    """A file, or a folder that could not be listed.

    Attributes:
        source: Name of its source.
        path: Where it is.
        reason: A `Status` other than `ok`, or an `images.errors.Reason`.
        detail: What the system or the decoder said.
    """

    source: str
    path: Place
    reason: str
    detail: str


def read_failed_files(settings: Settings, space: VectorSpace) -> list[FailedFile]:
    """Return the files that `retrieval status` counts as in quarantine or as not readable.

    Raises:
        StoreError: A table is damaged.
    """
    store = Store(settings.home)
    embedded = embedded_ids(store, space)
    failed = []
    for source in settings.sources:
        manifest = read_manifest(store, source.name)
        rows = manifest.filter(pc.not_equal(manifest["status"], Status.OK.value)).to_pylist()
        found = [(row["path"], row["status"], row["error"] or "") for row in rows]
        why = {
            row["content_id"]: (row["reason"], row["detail"])
            for row in read_quarantine(store, space, source.name).to_pylist()
            # An embedded image whose views failed can be found.
            if row["content_id"] not in embedded
        }
        files = read_grouped_files(store, space, source.name).files.select(["path", "content_id"])
        found += [
            (path, *why[content])
            for path, content in zip(*map(list, files.to_pydict().values()), strict=True)
            if content in why
        ]
        failed += [
            FailedFile(source.name, source.path / to_path(path), reason, detail)
            for path, reason, detail in sorted(found)
        ]
    return failed
