"""The builds of the embedded index: opening them."""

import contextlib
import fcntl
from pathlib import Path
from typing import IO

import numpy as np
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
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.index.former_build import FACTS_FILE, VOCABULARY_FILE, open_former
from retrieval_pipeline.index.hashed_files import FileFacts, check_files, remember_hashed
from retrieval_pipeline.index.runs import RowMap, are_sound
from retrieval_pipeline.index.segment import Segment, open_segment
from retrieval_pipeline.index.segmented_index import Part, SegmentedIndex
from retrieval_pipeline.storage.reading import reading
from retrieval_pipeline.storage.store import Store, blocks_beside, segments_beside
from retrieval_pipeline.vectors import Vectors


class Build(Corpus):
    """An open build: its files are mapped into memory, and nobody changes or removes them.

    Attributes:
        path: Its directory.
        info: The contents of its build.json.
    """

    info: BuildInfo

    def __init__(
        self,
        path: Path,
        info: BuildInfo,
        tables: ItemTables,
        vector_index: SegmentedIndex,
        lock: IO[bytes],
    ) -> None:
        super().__init__(path.name, info, tables)
        self.path = path
        self._vectors = vector_index
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

    def _open_vectors(self) -> SegmentedIndex:
        return self._vectors

    def _read_vocabulary(self) -> Vectors | None:
        if (found := vocabulary_file(self.path, self.info)) is None:
            return None
        return load_array(found, np.float32, (None, self.info.dim))


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
