"""One build of the index: opening it, and asking it."""

import contextlib
import fcntl
import functools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrieval_pipeline.errors import BuildError, StoreError, UnreadableError
from retrieval_pipeline.index.arrays import load_array
from retrieval_pipeline.index.blocks import FACTS, ItemTables, map_table, open_blocks
from retrieval_pipeline.index.build_info import (
    BUILD_FORMAT,
    INFO_FILE,
    RUNS_FILE,
    BuildInfo,
    read_info,
)
from retrieval_pipeline.index.former_build import FACTS_FILE, VOCABULARY_FILE, open_former
from retrieval_pipeline.index.hashed_files import FileFacts, check_files, remember_hashed
from retrieval_pipeline.index.item_facts import ItemFacts, read_item_facts
from retrieval_pipeline.index.knn import Plan, evenly_spaced
from retrieval_pipeline.index.records import ItemRecord, read_records
from retrieval_pipeline.index.row_keys import keys_of
from retrieval_pipeline.index.runs import RowMap, are_sound
from retrieval_pipeline.index.score_statistics import SAMPLE_PICTURES
from retrieval_pipeline.index.segment import Segment, open_segment
from retrieval_pipeline.index.segmented_index import Part, SegmentedIndex
from retrieval_pipeline.index.views import rows_of_views
from retrieval_pipeline.storage.reading import reading
from retrieval_pipeline.storage.schemas import VIEW_COLUMNS
from retrieval_pipeline.storage.store import Store, blocks_beside, segments_beside
from retrieval_pipeline.vectors import Numbers, Vectors
from retrieval_pipeline.views import View


class Build:
    """An open build: its files are mapped into memory, and nobody changes or removes them.

    Items are numbered from 0, in the order of the source and path of their first file. Each has a
    vector of its own, and may have others of further views: `rows` tells which rows of vectors are
    whose.

    Attributes:
        path: Its directory.
        info: The contents of its build.json.
        items: What is told of each item, with the columns of `items.ITEM_COLUMNS`.
        vector_index: The vectors of all rows.
        rows: Which item each row of vectors belongs to.
        views: Of which view each row after those of the items is the vector, with the columns of
            `views.VIEW_ROW_COLUMNS`.
        companions: The files that belong to items without being such, with the columns of
            `companions.COMPANION_COLUMNS`.
    """

    def __init__(
        self,
        path: Path,
        info: BuildInfo,
        tables: ItemTables,
        vector_index: SegmentedIndex,
        lock: IO[bytes],
    ) -> None:
        self.path = path
        self.info = info
        self.items = tables.items
        self.vector_index = vector_index
        self.views = tables.views
        self.rows = rows_of_views(len(tables.items), tables.views)
        self.companions = tables.companions
        self._facts = tables.facts
        # Python closes the file, which ends the lock, when nobody refers to this object any more.
        self._lock = lock

    @classmethod
    def open(cls, path: Path, *, rehash: bool = False) -> "Build":
        """Check every file of the build against its description, then map the files into memory.

        Files that were hashed earlier, and not touched since, are not hashed again unless `rehash`,
        so that a build of gigabytes opens in milliseconds.

        Raises:
            BuildError: The build is missing, damaged or of another version.
            UnreadableError: A file cannot be read, which says nothing about its content.
        """
        lock = _lock_shared(path)
        info = read_info(path)
        open_it = _open if info.format == BUILD_FORMAT else open_former
        return cls(path, info, *open_it(path, info, rehash=rehash), lock)

    def __len__(self) -> int:
        """Return the number of items."""
        return self.info.items

    @functools.cached_property
    def facts(self) -> pa.Table | None:
        """The facts of the items, a row for each, with the columns of `facts_table.FACTS_COLUMNS`.

        None if the build was made before facts were read.
        """
        # Blocks have dictionaries of their own; comparing their numbers needs common ones.
        return None if self._facts is None else self._facts.unify_dictionaries()

    @property
    def plan(self) -> Plan:
        """The plan of the largest segment; without loaded codes, a scan instead of codes."""
        return max(self.vector_index.parts, key=lambda part: len(part.index)).usable_plan

    def load_codes(self) -> None:
        """Read the codes if plans use them; this pays off for many queries only.

        Raises:
            BuildError: The codes cannot be read.
        """
        self.vector_index.load_codes()

    def number_of(self, content_id: str) -> int | None:
        """Return the number of the item with this content id; None if there is none."""
        if not re.fullmatch("[0-9a-f]{32}", content_id):
            return None
        keys, order = self._sorted_keys
        key = np.uint64(int(content_id[:16], 16))
        first, last = (int(np.searchsorted(keys, key, side)) for side in ("left", "right"))
        for number in order[first:last].tolist():
            if self.items["content_id"][number].as_py() == content_id:
                return int(number)
        return None

    @functools.cached_property
    def _sorted_keys(self) -> tuple[npt.NDArray[np.uint64], Numbers]:
        """The first 8 bytes of the content ids, sorted, and the item number of each."""
        keys = np.ascontiguousarray(keys_of(self.items["content_id"])[:, :8]).view(">u8")[:, 0]
        order = np.argsort(keys)
        return keys[order].astype(np.uint64), order

    def records(self, numbers: Sequence[int] | Numbers) -> list[ItemRecord]:
        """Return what is told of these items, in this order."""
        return read_records(self.items, numbers, self.companions)

    def item_facts(self, numbers: Sequence[int] | Numbers) -> list[ItemFacts]:
        """Return when, where and with what these items were taken, in this order."""
        return read_item_facts(self.facts, numbers)

    def vectors(self, numbers: Numbers) -> Vectors:
        """Return the full vectors of these items, or of these `rows`: float32 (n, dim)."""
        return self.vector_index.vectors(numbers)

    def view_of(self, row: int) -> View | None:
        """Return the view that a row is the vector of; None for an item's own vector."""
        if row < len(self):
            return None
        values = self.views.slice(row - len(self), 1).to_pylist()[0]
        return View(*(values[name] for name in VIEW_COLUMNS))

    def best_rows(self, numbers: Numbers, vector: Vectors) -> Numbers:
        """Return for each of these items its row that is nearest to `vector`, float32 (dim,)."""
        further, places = self.rows.further_rows(numbers)
        if not len(further):
            return numbers
        scores = self.vectors(further) @ vector
        order = np.lexsort((further, -scores, places))
        found, first = np.unique(places[order], return_index=True)
        best = order[first]
        nearer = scores[best] > self.vectors(numbers[found]) @ vector
        rows = numbers.copy()
        rows[found[nearer]] = further[best[nearer]]
        return rows

    @functools.cached_property
    def sample_numbers(self) -> Numbers:
        """Numbers of items, evenly spaced, whose scores stand for the scores of all."""
        return evenly_spaced(len(self), SAMPLE_PICTURES)

    @functools.cached_property
    def sample(self) -> Vectors:
        """The vectors of `sample_numbers`, float32 (n, dim), n at most SAMPLE_PICTURES."""
        return self.vectors(self.sample_numbers)

    @functools.cached_property
    def vocabulary(self) -> Vectors | None:
        """The vectors of `vocabulary.words()`, float32 (n, dim); None if the build has none."""
        if (found := vocabulary_file(self.path, self.info)) is None:
            return None
        return load_array(found, np.float32, (None, self.info.dim))

    def scan(self, vectors: Vectors) -> Vectors:
        """Return the exact score of every item's own vector.

        The result is (items,) for (dim,), and (items, n) for (n, dim).
        """
        return self.vector_index.scan(vectors)[: len(self)]

    def best(self, vector: Vectors, count: int) -> tuple[Numbers, Vectors]:
        """Return the `count` best items for `vector` (dim,) and their scores, by the build's plans.

        An item's score is that of its best row. Of equal scores the smaller row comes first.
        """
        wanted = count
        while True:
            rows, scores = self.vector_index.best(vector, wanted)
            if not self.info.views:
                return rows, scores
            numbers = self.rows.items_of(rows)
            first = np.sort(np.unique(numbers, return_index=True)[1])
            if len(first) >= count or len(rows) < wanted:
                return numbers[first[:count]], scores[first[:count]]
            # Several rows of one item were found: look further down.
            wanted *= 2


def _open(
    path: Path, info: BuildInfo, *, rehash: bool = False
) -> tuple[ItemTables, SegmentedIndex]:
    if RUNS_FILE not in info.files:
        raise BuildError(f"{path / INFO_FILE}: does not name {RUNS_FILE}: run `retrieval index`")
    if check_files(path, info.files, rehash=rehash):
        _remember(path, info.files)
    blocks, shared = blocks_beside(path), info.shared_files
    hashed = check_files(blocks, shared, rehash=rehash)
    tables = open_blocks(blocks, info.blocks, hashed)
    if hashed:
        _remember(blocks, {name: shared[name] for name in hashed})
    if (len(tables.items), len(tables.views)) != (info.items, info.views):
        raise BuildError(f"{path / INFO_FILE}: does not fit its blocks: run `retrieval index`")
    segments = [_open_entry(path, info, number, rehash) for number in range(len(info.segments))]
    runs = load_array(path / RUNS_FILE, np.int32, (None, 4))
    rows, sizes = info.items + info.views, tuple(map(len, segments))
    if not are_sound(runs, sizes, rows):
        raise BuildError(f"{path / RUNS_FILE}: does not fit its segments: run `retrieval index`")
    parts = [Part(each.vector_index, each.info.calibration.plan) for each in segments]
    return tables, SegmentedIndex(parts, RowMap(runs, sizes, rows))


def _open_entry(path: Path, info: BuildInfo, number: int, rehash: bool) -> Segment:
    entry = info.segments[number]
    segment = open_segment(segments_beside(path) / entry.name, info.space.key, rehash=rehash)
    if (len(segment), segment.info.dim) != (entry.rows, info.dim):
        raise BuildError(f"{segment.path}: not as {INFO_FILE} says: run `retrieval index`")
    return segment


def _remember(directory: Path, files: dict[str, FileFacts]) -> None:
    # On a read-only disk every reader has to hash again.
    with contextlib.suppress(StoreError):
        remember_hashed(directory, files)


def facts_of(path: Path, info: BuildInfo) -> pa.Table | None:
    """Return the facts of the items of a build, whose files are not checked; None if it has none.

    Raises:
        BuildError: A file is missing or damaged.
    """
    if FACTS_FILE in info.files:
        return map_table(path / FACTS_FILE)
    names = [block.tables[FACTS].name for block in info.blocks if FACTS in block.tables]
    return (
        pa.concat_tables(map_table(blocks_beside(path) / name) for name in names) if names else None
    )


def vocabulary_file(path: Path, info: BuildInfo) -> Path | None:
    """Return the file with the vectors of the vocabulary; None if a build has none."""
    if info.vocabulary_vectors is not None:
        return blocks_beside(path) / info.vocabulary_vectors.name
    return path / VOCABULARY_FILE if VOCABULARY_FILE in info.files else None


def _lock_shared(build: Path) -> IO[bytes]:
    """Lock a build against `retention.remove_build` until the returned file is closed.

    Raises:
        BuildError: The build is missing.
    """
    try:
        with reading(build / INFO_FILE):
            file = (build / INFO_FILE).open("rb")
    except OSError as error:
        raise BuildError(f"{build}: {error.strerror}: run `retrieval index`") from None
    # Some network file systems know no locks. On these an open build may be removed; what is mapped
    # into memory remains readable.
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_SH)
    return file


def open_current(store: Store) -> Build:
    """Open the build that CURRENT names.

    Raises:
        BuildError: Nothing was indexed yet, or the build is damaged.
        StoreError: CURRENT is damaged.
    """
    path = store.current_build()
    while path is not None:
        try:
            return Build.open(path)
        except BuildError:
            # Between reading CURRENT and opening the files, the build may have been replaced and
            # removed.
            tried, path = path, store.current_build()
            if path == tried:
                raise
    raise BuildError(f"nothing is indexed yet in {store.home}: run `retrieval index` first")


def current_or_none(store: Store) -> Path | None:
    """Return the directory of the current build; None if there is none or CURRENT is damaged.

    The next build to be published replaces a damaged CURRENT.

    Raises:
        UnreadableError: CURRENT cannot be read; there may be a current build.
    """
    try:
        return store.current_build()
    except UnreadableError:
        raise
    except StoreError:
        return None


def list_builds(store: Store) -> dict[Path, BuildInfo | str]:
    """Return the build.json of each build, or why it cannot be used; the newest build first."""
    builds: dict[Path, BuildInfo | str] = {}
    for build in sorted(store.all_builds(), key=lambda path: path.name, reverse=True):
        try:
            builds[build] = read_info(build)
        except (BuildError, UnreadableError) as error:
            builds[build] = str(error)
    return builds
