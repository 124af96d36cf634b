"""Manifest and sidecars -> facts: when, where and with what each picture was taken.

What a picture's bytes say is read once for each content, while it is embedded or, for pictures
that were embedded before, from the headers alone. What belongs to a file (its name, its time, its
sidecars) is merged on top, and again whenever a sidecar changes.
"""

import contextlib
import json
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3

from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.errors import Stopped
from retrieval_pipeline.facts.merge import facts_of_file, first_of
from retrieval_pipeline.facts.model import Origin, PictureFacts, ReadFacts
from retrieval_pipeline.facts.sidecars import is_xmp, may_be_sidecar, sidecars_of
from retrieval_pipeline.facts.table import FactsRow, from_table, to_table
from retrieval_pipeline.images.decode_pool import DecodePool, Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.transform import Fit
from retrieval_pipeline.index.arrow import one_chunk
from retrieval_pipeline.index.items import table_digest
from retrieval_pipeline.ingest.hashing import file_version
from retrieval_pipeline.ingest.manifest import FileRow
from retrieval_pipeline.ingest.sidecars import read_sidecar_rows
from retrieval_pipeline.paths import to_path
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.reading import is_there
from retrieval_pipeline.storage.remote import Remote
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import (
    read_facts,
    read_manifest,
    read_metadata,
    write_table,
)

# Version of the rules by which facts are read: with a new one, all headers are read again.
RULES = 2

# Keys of the table's metadata: the rules; and a hash of all that the table was made from, which is
# missing where a run has not finished it.
_RULES, _INPUTS = b"rules", b"inputs"

# Files between two looks at the clock and at `stop`.
BATCH_FILES = 2_048
# The table is saved so often, in seconds, so that a killed run loses little.
CHECKPOINT_SECONDS = 60.0


@dataclass(frozen=True)
class FactsReport:
    """What is known of the pictures of one source.

    Attributes:
        source: Name of the source.
        files: Files with a row of facts.
        dated: Files whose date is more than the time of the file.
        headers_read: Pictures whose header was read, since they were embedded before.
        published: True if the table was written, False if nothing had changed.
    """

    source: str
    files: int
    dated: int
    headers_read: int
    published: bool


def update_facts(
    store: Store,
    source: Source,
    limits: Limits | None = None,
    workers: int | None = None,
    *,
    pool: Callable[[], DecodePool] | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> FactsReport:
    """Bring the table of the facts of a source's pictures up to date.

    Args:
        store: Holds the manifest and the table of sidecars, and receives the facts.
        source: The source whose pictures are looked at.
        limits: Bounds for reading one file; None means the defaults.
        workers: Number of processes that read headers and sidecars; None means one per core.
        pool: Returns processes that the caller keeps, to use these instead.
        progress: Told of files.
        stop: Ends the run when it is set; what is finished is kept.

    Raises:
        StoreError: A table is damaged or cannot be written.
        WorkerError: No decode worker can be started.
        Stopped: `stop` was set; what is finished is kept.
    """
    progress = progress or Quiet()
    sidecars = _sidecars(store, source.name)
    files = _files(store, source.name, sidecars)
    inputs = table_digest(files, RULES).encode()
    former = _former(store, source.name)
    if is_there(store.facts(source.name)) and _metadata(store, source.name).get(_INPUTS) == inputs:
        return _report(source.name, former, headers_read=0, published=False)
    is_current = _is_current(files, former)
    kept = former.take(pc.index_in(one_chunk(files["path"].filter(is_current)), former["path"]))
    todo = files.filter(pc.invert(is_current))
    rows: list[FactsRow] = []
    headers_read = 0
    progress.start(f"reading facts of {source.name}", len(todo), "files")
    saved = time.monotonic()
    with contextlib.ExitStack() as stack:
        if pool is not None:
            readers = pool()
        else:
            own = DecodePool(Fit(1), limits or Limits(), workers)
            readers = stack.enter_context(own)
        reader = _Reader(source, readers, _known_contents(former, todo), sidecars)
        for start in range(0, len(todo), BATCH_FILES):
            batch = [_File(**row) for row in todo.slice(start, BATCH_FILES).to_pylist()]
            rows += reader.rows(batch)
            progress.advance(len(batch))
            stopped = stop is not None and stop.is_set()
            if stopped or time.monotonic() - saved > CHECKPOINT_SECONDS:
                _save(store, source.name, kept, rows)
                saved = time.monotonic()
            if stopped:
                what = f"reading facts of {source.name}"
                raise Stopped(f"stopped while {what}: finished files are kept")
        headers_read = reader.headers_read
    progress.finish()
    # Files that have changed since the crawl have no row yet: the next run looks at them again.
    complete = len(kept) + len(rows) == len(files)
    table = _save(store, source.name, kept, rows, inputs if complete else None)
    return _report(source.name, table, headers_read=headers_read, published=True)


def record_facts(store: Store, source: str, found: Mapping[str, PictureFacts]) -> None:
    """Add what the bytes of newly embedded pictures say: content id -> facts.

    Sidecars are left to `update_facts`.

    Raises:
        StoreError: A table is damaged or cannot be written.
    """
    files = _files(store, source, {})
    files = files.filter(pc.is_in(files["content_id"], pa.array(list(found), pa.string())))
    rows = [
        FactsRow(
            each["content_id"],
            each["path"],
            None,
            facts_of_file(found[each["content_id"]], each["path"], each["mtime_ns"]),
        )
        for each in files.to_pylist()
    ]
    former = _former(store, source)
    others = pc.invert(pc.is_in(former["path"], one_chunk(files["path"])))
    _save(store, source, former.filter(others), rows)


@dataclass(frozen=True, slots=True)
class _File:
    """A file of the manifest whose content is known, and a hash of its sidecars if it has any."""

    content_id: str
    path: str
    size: int
    mtime_ns: int
    sidecar_digest: str | None


class _Reader:
    """Makes rows of facts, and reads headers and sidecars for them.

    Attributes:
        headers_read: Number of pictures whose header was read.
    """

    def __init__(
        self,
        source: Source,
        pool: DecodePool,
        contents: dict[str, PictureFacts],
        sidecars: Mapping[str, Sequence[FileRow]],
    ) -> None:
        self._source, self._pool = source, pool
        self._contents, self._sidecars = contents, sidecars
        self.headers_read = 0

    def rows(self, files: Sequence[_File]) -> list[FactsRow]:
        """Return the rows of files; without those that have changed since the crawl."""
        self._read_headers(files)
        beside = self._read_sidecars(files)
        return [
            FactsRow(
                each.content_id,
                each.path,
                each.sidecar_digest,
                facts_of_file(
                    self._contents[each.content_id],
                    each.path,
                    each.mtime_ns,
                    *beside.get(each.path, ()),
                ),
            )
            for each in files
            if each.content_id in self._contents
        ]

    def _read_headers(self, files: Sequence[_File]) -> None:
        wanted: dict[str, _File] = {}
        for each in files:
            if each.content_id not in self._contents:
                wanted.setdefault(each.content_id, each)
        jobs = (Job(self._source.path / to_path(each.path)) for each in wanted.values())
        read = self._pool.facts(jobs, ReadFacts())
        for each, (job, facts) in zip(wanted.values(), read, strict=True):
            self.headers_read += 1
            if not _has_changed(job, each):
                self._contents[each.content_id] = _found(facts, "header")

    def _read_sidecars(
        self, files: Sequence[_File]
    ) -> dict[str, tuple[PictureFacts, PictureFacts]]:
        """Return path of a picture -> facts of its XMP files, and of Takeout's file."""
        owners = {each.path: self._sidecars[each.path] for each in files if each.sidecar_digest}
        paths = dict.fromkeys(row.path for rows in owners.values() for row in rows)
        of: dict[str, PictureFacts] = {}
        kinds: tuple[Literal["xmp", "takeout"], ...] = ("xmp", "takeout")
        for kind in kinds:
            mine = [path for path in paths if is_xmp(path) == (kind == "xmp")]
            jobs = (Job(self._source.path / to_path(path)) for path in mine)
            read = self._pool.facts(jobs, ReadFacts(kind))
            for path, (_, facts) in zip(mine, read, strict=True):
                origin = Origin.SIDECAR if kind == "xmp" else Origin.TAKEOUT
                of[path] = _found(facts, origin)
        return {
            path: (
                first_of(*(of[row.path] for row in rows if is_xmp(row.path))),
                first_of(*(of[row.path] for row in rows if not is_xmp(row.path))),
            )
            for path, rows in owners.items()
        }


def _found(facts: PictureFacts | ImageError, what: str) -> PictureFacts:
    """Return facts; of a file that could not be read none, and why not."""
    if isinstance(facts, ImageError):
        return PictureFacts(problems=(f"{what}: {facts.reason.spoken}",))
    return facts


def _has_changed(job: Job, file: _File) -> bool:
    """Return whether a local file is another one than the crawl has seen."""
    if isinstance(job.path, Remote):
        return False  # asking for its time would take as long as reading the header
    try:
        return file_version(Path(job.path)) != (file.size, file.mtime_ns)
    except OSError:
        return True


def _sidecars(store: Store, source: str) -> dict[str, list[FileRow]]:
    """Return the sidecars of each picture that has any, those first that win over the others."""
    rows = read_sidecar_rows(store, source)
    candidates = {row.path: row for row in rows if may_be_sidecar(row.path)}
    if not candidates:
        return {}
    pictures = read_manifest(store, source)["path"].to_pylist()
    found = sidecars_of(pictures, list(candidates))
    return {path: [candidates[each] for each in names] for path, names in found.items()}


def _files(store: Store, source: str, sidecars: Mapping[str, Sequence[FileRow]]) -> pa.Table:
    """Return the fields of _File as columns, sorted by path."""
    manifest = read_manifest(store, source)
    files = manifest.filter(pc.is_valid(manifest["content_id"])).sort_by("path")
    files = files.select(["content_id", "path", "size", "mtime_ns"])
    digests: list[str | None] = [None] * len(files)
    if sidecars:
        digests = [_digest(sidecars.get(path)) for path in files["path"].to_pylist()]
    return files.append_column("sidecar_digest", pa.array(digests, pa.string()))


def _digest(sidecars: Sequence[FileRow] | None) -> str | None:
    """Return a hash of the paths, sizes and times of sidecars."""
    if sidecars is None:
        return None
    stamps = [(row.path, row.size, row.mtime_ns) for row in sidecars]
    return blake3(json.dumps(stamps).encode()).hexdigest(length=16)


def _former(store: Store, source: str) -> pa.Table:
    """Return the rows of the table of facts that these rules can have made."""
    table = read_facts(store, source)
    if _metadata(store, source).get(_RULES) != str(RULES).encode():
        return table[:0]
    return table.filter(pc.is_in(table["taken_from"], pa.array([*map(str, Origin), None])))


def _metadata(store: Store, source: str) -> Mapping[bytes, bytes]:
    path = store.facts(source)
    return read_metadata(path) if is_there(path) else {}


def _is_current(files: pa.Table, former: pa.Table) -> pa.Array:
    """Return for each file whether the former table has its facts, bool (files,)."""
    found = pc.index_in(one_chunk(files["path"]), one_chunk(former["path"]))
    rows = former.take(found)
    same = pc.and_(
        pc.equal(rows["content_id"], files["content_id"]),
        pc.equal(
            pc.fill_null(rows["sidecar_digest"], ""), pc.fill_null(files["sidecar_digest"], "")
        ),
    )
    # A date that was taken from the time of the file must still be that.
    offset = pc.multiply(pc.fill_null(rows["utc_offset_minutes"].cast(pa.int64()), 0), 60_000_000)
    taken = pc.subtract(rows["taken_at"].cast(pa.int64()), offset)
    by_other = pc.not_equal(pc.fill_null(rows["taken_from"], ""), Origin.FILE_TIME.value)
    still = pc.fill_null(pc.equal(taken, pc.divide(files["mtime_ns"], 1000)), False)
    return one_chunk(pc.and_(pc.fill_null(same, False), pc.or_(by_other, still)))


def _known_contents(former: pa.Table, todo: pa.Table) -> dict[str, PictureFacts]:
    """Return content id -> what its bytes say, as far as former rows tell.

    Rows with sidecars do not: what these say hides what the bytes do.
    """
    wanted = pc.and_(
        pc.is_null(former["sidecar_digest"]),
        pc.is_in(former["content_id"], one_chunk(todo["content_id"])),
    )
    return {row.content_id: _of_bytes(row.facts) for row in from_table(former.filter(wanted))}


def _of_bytes(facts: PictureFacts) -> PictureFacts:
    """Return facts without a date that the name or time of the file gave."""
    if facts.taken_from not in (Origin.FILE_NAME, Origin.FILE_TIME):
        return facts
    return replace(facts, taken_at=None, utc_offset_minutes=None, taken_from=None)


def _save(
    store: Store,
    source: str,
    kept: pa.Table,
    rows: Sequence[FactsRow],
    inputs: bytes | None = None,
) -> pa.Table:
    """Write the table of facts, and return it; `inputs` is the hash of all that it was made from.

    Raises:
        StoreError: The file system refused.
    """
    table = pa.concat_tables([kept, to_table(rows)]).sort_by("path")
    metadata = {_RULES: str(RULES).encode()} | ({} if inputs is None else {_INPUTS: inputs})
    write_table(store.facts(source), table, more=metadata)
    return table


def _report(source: str, table: pa.Table, *, headers_read: int, published: bool) -> FactsReport:
    no_date = pc.is_in(table["taken_from"], pa.array([Origin.FILE_TIME.value, None], pa.string()))
    undated = pc.sum(no_date).as_py() or 0
    return FactsReport(source, len(table), len(table) - undated, headers_read, published)
