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

# Sources whose companions stay in memory until they are asked for again.
MOST_KEPT = 16


@dataclass(frozen=True)
class Companions:
    """The companions of the files of one source.

    Attributes:
        of: Path of a file -> its companions, for those that have any.
        rows: path, size and mtime_ns of every companion.
    """

    of: Mapping[str, list[Companion]]
    rows: pa.Table

    @property
    def pictures(self) -> list[str]:
        """The paths of companions that are pictures, and would be items of their own."""
        return _pictures(self.of)


@dataclass(frozen=True)
class GroupedFiles:
    """The files of one source.

    Attributes:
        files: Those whose content is known and which are no companions: content_id, path, size and
            mtime_ns.
        companions: Their companions.
    """

    files: pa.Table
    companions: Companions


def read_grouped_files(store: Store, space: VectorSpace, source: str) -> GroupedFiles:
    """Group the files of a source, if its settings wanted that when it was last crawled.

    A picture that cannot be embedded in `space` is in no group: the RAW file of a damaged JPEG is
    shown itself.

    A run asks for this several times: companions are worked out again when a table has changed.

    Raises:
        StoreError: A table is damaged.
    """
    tables = (
        store.manifest(source),
        store.quarantine(space, source),
        store.sidecars(source),
        store.facts(source),
    )
    companions = _companions(store, space, source, tuple(map(_version, tables)))
    files = _files(store, source)
    if lesser := companions.pictures:
        files = files.filter(pc.invert(pc.is_in(files["path"], pa.array(lesser, pa.string()))))
    return GroupedFiles(files, companions)


def _version(table: Path) -> tuple[int, int, int] | None:
    """Return what tells a table from the one that it replaced; None if there is none.

    Tables are never written in place: a new one is another file.
    """
    try:
        found = table.stat()
    except OSError:  # reading it says what is wrong
        return None
    return found.st_ino, found.st_size, found.st_mtime_ns


_COLUMNS = ["path", "size", "mtime_ns"]


def _pictures(companions: Mapping[str, list[Companion]]) -> list[str]:
    return [each.path for many in companions.values() for each in many if each.kind in PICTURES]


def _files(store: Store, source: str) -> pa.Table:
    manifest = read_manifest(store, source, ["content_id", *_COLUMNS])
    if not manifest["content_id"].null_count:
        return manifest
    return manifest.filter(pc.is_valid(manifest["content_id"]))


@functools.lru_cache(MOST_KEPT)
def _companions(
    store: Store, space: VectorSpace, source: str, _: tuple[tuple[int, int, int] | None, ...]
) -> Companions:
    path = store.manifest(source)
    files = _files(store, source)
    if not is_there(path) or read_metadata(path).get(GROUPED) != b"true":
        return Companions({}, files.schema.empty_table().select(_COLUMNS))
    unusable = read_quarantine(store, space, source)["content_id"]
    usable = files.filter(pc.invert(pc.is_in(files["content_id"], unusable.combine_chunks())))
    pictures = usable["path"].to_pylist()
    beside = read_sidecars(store, source)
    found = companions_of(pictures, beside["path"].to_pylist(), _Dates(store, source).taken)
    lesser = pa.array(_pictures(found), pa.string())
    rows = files.filter(pc.is_in(files["path"], lesser)).select(_COLUMNS)
    return Companions(found, pa.concat_tables([rows, beside.select(_COLUMNS)]).combine_chunks())


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
