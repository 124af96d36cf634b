"""The files of a source that make items, and their companions, from the tables of a store."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from functools import cached_property
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.facts.groups import PICTURES, Companion, companions_of
from retrieval_pipeline.facts.model import Origin
from retrieval_pipeline.storage.reading import is_there
from retrieval_pipeline.storage.schemas import GROUPED
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import (
    read_facts,
    read_manifest,
    read_metadata,
    read_quarantine,
    read_sidecars,
)
from retrieval_pipeline.vectors import VectorSpace

# Sources whose files stay in memory until they are asked for again, some 0.2 kB a file.
MOST_KEPT = 16


@dataclass(frozen=True)
class GroupedFiles:
    """The files of one source.

    Attributes:
        files: The rows of the manifest whose content is known and which are no companions.
        companions: Path of a file -> its companions, for those that have any.
        rows: path, size and mtime_ns of every companion.
    """

    files: pa.Table
    companions: Mapping[str, list[Companion]]
    rows: pa.Table

    @property
    def pictures(self) -> int:
        """Number of companions that are pictures, and would be items of their own."""
        return sum(each.kind in PICTURES for many in self.companions.values() for each in many)


def read_grouped_files(store: Store, space: VectorSpace, source: str) -> GroupedFiles:
    """Group the files of a source, if its settings wanted that when it was last crawled.

    A picture that cannot be embedded in `space` is in no group: the RAW file of a damaged JPEG is
    shown itself.

    A run asks for this several times: it is worked out again when a table has changed.

    Raises:
        StoreError: A table is damaged.
    """
    tables = (
        store.manifest(source),
        store.quarantine(space, source),
        store.sidecars(source),
        store.facts(source),
    )
    return _read(store, space, source, tuple(map(_version, tables)))


def _version(table: Path) -> tuple[int, int, int] | None:
    """Return what tells a table from the one that it replaced; None if there is none.

    Tables are never written in place: a new one is another file.
    """
    try:
        found = table.stat()
    except OSError:  # reading it says what is wrong
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


@functools.lru_cache(MOST_KEPT)
def _read(
    store: Store, space: VectorSpace, source: str, _: tuple[tuple[int, int, int] | None, ...]
) -> GroupedFiles:
    manifest = read_manifest(store, source)
    files = manifest.filter(pc.is_valid(manifest["content_id"]))
    path = store.manifest(source)
    columns = ["path", "size", "mtime_ns"]
    if not is_there(path) or read_metadata(path).get(GROUPED) != b"true":
        return GroupedFiles(files, {}, files[:0].select(columns))
    unusable = read_quarantine(store, space, source)["content_id"]
    usable = files.filter(pc.invert(pc.is_in(files["content_id"], unusable.combine_chunks())))
    pictures = usable["path"].to_pylist()
    beside = read_sidecars(store, source)
    companions = companions_of(pictures, beside["path"].to_pylist(), _Dates(store, source).taken)
    lesser = [each.path for many in companions.values() for each in many if each.kind in PICTURES]
    is_lesser = pc.is_in(files["path"], pa.array(lesser, pa.string()))
    rows = pa.concat_tables([files.filter(is_lesser).select(columns), beside.select(columns)])
    return GroupedFiles(files.filter(pc.invert(is_lesser)), companions, rows.combine_chunks())


class _Dates:
    """When the pictures of a source were taken, as their cameras say."""

    def __init__(self, store: Store, source: str) -> None:
        self._store, self._source = store, source

    @cached_property
    def _facts(self) -> tuple[dict[str, int], pa.Table]:
        # Most sources have no groups of pictures: only others need these.
        facts = read_facts(self._store, self._source).select(["path", "taken_at", "taken_from"])
        facts = facts.filter(pc.equal(facts["taken_from"], Origin.EXIF.value)).combine_chunks()
        return {path: row for row, path in enumerate(facts["path"].to_pylist())}, facts

    def taken(self, path: str) -> datetime | None:
        """Return the date in the EXIF of a picture; None if it has none, or was not read yet."""
        rows, facts = self._facts
        row = rows.get(path)
        found: datetime | None = None if row is None else facts["taken_at"][row].as_py()
        return found
