"""One build of the index: its build.json, checking its files, opening it, searching it."""

import contextlib
import fcntl
import functools
import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from blake3 import blake3
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from retrieval_pipeline.errors import BuildError, StoreError, UnreadableError
from retrieval_pipeline.index.ann import METRIC, TreeFacts
from retrieval_pipeline.index.arrays import load_array
from retrieval_pipeline.index.autotune import Calibration
from retrieval_pipeline.index.companions import (
    COMPANION_COLUMNS,
    COMPANIONS_FILE,
    check_companions,
)
from retrieval_pipeline.index.facts_table import FACTS_COLUMNS, FACTS_FILE, check_facts
from retrieval_pipeline.index.item_facts import ItemFacts, read_item_facts
from retrieval_pipeline.index.items import as_matrix, check_items, items_schema
from retrieval_pipeline.index.knn import Plan, VectorIndex, evenly_spaced
from retrieval_pipeline.index.records import ItemRecord, read_records
from retrieval_pipeline.index.score_statistics import SAMPLE_PICTURES, Background
from retrieval_pipeline.index.search_structures import (
    ITEM_NUMBERS_FILE,
    TREES_FILE,
    PreviousBuild,
    SearchStructures,
    build_json_mismatch,
    open_vector_index,
)
from retrieval_pipeline.index.views import (
    check_views,
    row_ids,
    rows_of_views,
    view_rows_schema,
)
from retrieval_pipeline.index.vocabulary import words
from retrieval_pipeline.storage.atomic import replacing
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.reading import mapped, reading
from retrieval_pipeline.storage.schemas import VIEW_COLUMNS
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.sync import CHECKED
from retrieval_pipeline.vectors import Numbers, Vectors, VectorSpace
from retrieval_pipeline.views import View

# Raised when files of a build change their meaning: builds of another format are not opened.
BUILD_FORMAT = 4

# Names of the files in a build's directory; `search_structures` names the others.
ITEMS_FILE = "items.arrow"
VIEWS_FILE = "views.arrow"
VOCABULARY_FILE = "vocabulary.npy"
INFO_FILE = "build.json"


class FileFacts(BaseModel):
    """What a file of a build must be: its size in bytes and its BLAKE3, as a content id."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    blake3: str


class Check(BaseModel):
    """A check that a build went through before it was published.

    Attributes:
        name: Of the check, in snake_case.
        passed: Whether the build may be published as far as this check goes.
        found: What was found, as part of a sentence.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    passed: bool
    found: str


class BuildInfo(BaseModel):
    """The contents of build.json.

    Attributes:
        format: BUILD_FORMAT of the program that wrote it.
        created_at: When the build was begun, in UTC.
        inputs: Hash of the items and of every setting that the build was made with.
        model: With `revision`, `dim` and `preprocessing`, the vector space (see VectorSpace).
        metric: Annoy's name of the similarity.
        trees: What each Annoy file holds, by file name.
        tree_components: Number of components of the vectors in the trees.
        items: How many images there are, copies counted once.
        locations: How many files hold them.
        sources: How many of these files each source has.
        calibration: How the build is searched, and what that finds.
        background: How unrelated texts and pictures score.
        vocabulary: Hash of the words whose vectors the build has; None if it has none.
        build_seconds: How long writing it took, without the checks.
        files: What each other file of the build must be, by file name.
        checks: The checks that it passed before it was published.
        views: How many further views of the images there are.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    created_at: datetime
    inputs: str
    model: str
    revision: str
    dim: int
    preprocessing: str
    metric: str
    trees: dict[str, TreeFacts]
    tree_components: int
    items: int
    locations: int
    sources: dict[str, int]
    calibration: Calibration
    background: Background
    vocabulary: str | None
    build_seconds: float
    files: dict[str, FileFacts]
    checks: tuple[Check, ...] = ()
    views: int = 0

    @property
    def space(self) -> VectorSpace:
        """The vector space of the build; queries must be encoded in the same one."""
        return VectorSpace(self.model, self.revision, self.dim, self.preprocessing)

    @property
    def recall_at_10(self) -> float:
        """Share of a query's true ten nearest items that are found, measured at the build."""
        return self.calibration.recall_at_10


class OtherVersionError(BuildError):
    """A build was written by another version of this program; its files may be sound."""


def vocabulary_digest() -> str:
    """Return the hash of the present vocabulary, to compare with that of a build."""
    return blake3("\n".join(words()).encode()).hexdigest(length=16)


def write_info(directory: Path, info: BuildInfo) -> None:
    """Write build.json into the directory of a build that is not yet published."""
    (directory / INFO_FILE).write_text(info.model_dump_json(indent=2), encoding="utf-8")


def read_info(build: Path) -> BuildInfo:
    """Read the build.json of a build's directory.

    Raises:
        BuildError: The file is missing or damaged.
        OtherVersionError: Another version of this program wrote it.
    """
    try:
        with reading(build / INFO_FILE):
            data = (build / INFO_FILE).read_bytes()
    except OSError as error:
        raise BuildError(f"{build}: {error.strerror}: run `retrieval index`") from None
    try:
        found = from_json(data)
        if (found.get("format"), found.get("metric")) != (BUILD_FORMAT, METRIC):
            raise OtherVersionError(f"{build}: made by another version: run `retrieval index`")
        return BuildInfo.model_validate(found)
    except (ValueError, AttributeError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not JSON"
        raise BuildError(f"{build / INFO_FILE}: damaged ({what}): run `retrieval index`") from None


def check_files(build: Path, info: BuildInfo, *, rehash: bool = False) -> bool:
    """Compare the size and hash of every file with build.json.

    A file that was hashed earlier, and is still the same by size, modification time and inode, is
    not hashed again unless `rehash`.

    Returns:
        Whether all files were hashed earlier; `remember_hashed` notes that for the next time.

    Raises:
        BuildError: A file is missing, or is not what build.json says.
    """
    known = {} if rehash else _read_hashed(build)
    needed = {ITEMS_FILE, TREES_FILE, ITEM_NUMBERS_FILE, *info.trees}
    if missing := needed.union([VIEWS_FILE] if info.views else []) - set(info.files):
        raise BuildError(
            f"{build / INFO_FILE}: does not name {min(missing)}: run `retrieval index`"
        )
    for name, facts in info.files.items():
        file = build / name
        try:
            with reading(file):
                whole = file.stat().st_size == facts.size and (
                    known.get(name) == _identity(file, facts)
                    or content_id_of_file(file) == facts.blake3
                )
        except OSError as error:
            raise BuildError(f"{file}: {error.strerror}: run `retrieval index`") from None
        if not whole:
            raise BuildError(
                f"{file}: not as build.json says, so not loaded: run `retrieval index`"
            )
    return known == _identities(build, info)


def remember_hashed(build: Path, info: BuildInfo) -> None:
    """Note that the build's files, as they are now, have the hashes of `info`.

    Raises:
        StoreError: The file system refused.
    """
    with replacing(build / CHECKED) as temporary:
        temporary.write_text(json.dumps(_identities(build, info)), encoding="utf-8")


def _identities(build: Path, info: BuildInfo) -> dict[str, list[int | str]]:
    return {name: _identity(build / name, facts) for name, facts in info.files.items()}


def _identity(file: Path, facts: FileFacts) -> list[int | str]:
    """Return a file's hash with what shows that the file is still the one that was hashed."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino, facts.blake3]


def _read_hashed(build: Path) -> dict[str, object]:
    """Return what `remember_hashed` noted, by file name; {} if that is missing or damaged."""
    try:
        hashed = from_json((build / CHECKED).read_bytes())
    except (OSError, ValueError):
        return {}
    return hashed if isinstance(hashed, dict) else {}


def map_items(file: Path) -> pa.Table:
    """Map an Arrow file of a build into memory; the caller compares its columns.

    Raises:
        BuildError: The file is missing or is no Arrow file.
    """
    try:
        with reading(file):
            return pa.ipc.open_file(pa.py_buffer(mapped(file))).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BuildError(f"{file}: {error}: run `retrieval index`") from None


def _map_views(build: Path, info: BuildInfo) -> pa.Table:
    """Map views.arrow into memory; an empty table if the build has no views.

    Raises:
        BuildError: The file is missing, or it is not as build.json says.
    """
    schema = view_rows_schema(info.dim)
    views = map_items(build / VIEWS_FILE) if info.views else _no_rows(schema)
    if views.schema != schema or len(views) != info.views:
        raise build_json_mismatch(build / VIEWS_FILE)
    return views


def _no_rows(schema: pa.Schema) -> pa.Table:
    # `empty_table` would import pandas if it is installed, and that takes longer than all the rest.
    return pa.Table.from_batches([], schema)


def item_matrices(items: pa.Table, dim: int) -> list[Vectors]:
    """View the embeddings as float32 matrices (n, dim), one for each record batch of a table."""
    return [as_matrix(chunk, dim) for chunk in items.column("embedding").chunks if len(chunk)]


class Build:
    """An open build: its files are mapped into memory, and nobody changes or removes them.

    Items are numbered from 0, in the order of items.arrow. Each has a vector of its own, and may
    have others of further views: `rows` tells which rows of vectors are whose.

    Attributes:
        rows: Which item each row of vectors belongs to.
        views: Of which view each row after those of the items is the vector, with the columns of
            `views.view_rows_schema`.
        facts: The facts of the items, a row for each, with the columns of
            `facts_table.FACTS_COLUMNS`; None if the build was made before facts were read.
        companions: The files that belong to items without being such, with the columns of
            `companions.COMPANION_COLUMNS`.
    """

    def __init__(
        self,
        path: Path,
        info: BuildInfo,
        items: pa.Table,
        vector_index: VectorIndex,
        lock: IO[bytes],
        views: pa.Table,
        facts: pa.Table | None = None,
        companions: pa.Table | None = None,
    ) -> None:
        self.path = path
        self.info = info
        self.items = items
        self.vector_index = vector_index
        self.views = views
        self.rows = rows_of_views(len(items), views)
        self.facts = facts
        self.companions = _no_rows(COMPANION_COLUMNS) if companions is None else companions
        # Python closes the file, which ends the lock, when nobody refers to this object any more.
        self._lock = lock

    @classmethod
    def open(cls, path: Path, *, rehash: bool = False) -> "Build":
        """Check every file of the build against build.json, then map the files into memory.

        Files that were hashed earlier, and not touched since, are not hashed again unless `rehash`,
        so that a build of gigabytes opens in milliseconds.

        Raises:
            BuildError: The build is missing, damaged or of another version.
            UnreadableError: A file cannot be read, which says nothing about its content.
        """
        lock = _lock_shared(path)
        info = read_info(path)
        hashed_earlier = check_files(path, info, rehash=rehash)
        items = map_items(path / ITEMS_FILE)
        if items.schema != items_schema(info.dim) or len(items) != info.items:
            raise build_json_mismatch(path / ITEMS_FILE)
        views = _map_views(path, info)
        facts = map_items(path / FACTS_FILE) if FACTS_FILE in info.files else None
        if facts is not None and (facts.schema != FACTS_COLUMNS or len(facts) != info.items):
            raise build_json_mismatch(path / FACTS_FILE)
        companions = map_items(path / COMPANIONS_FILE) if COMPANIONS_FILE in info.files else None
        if companions is not None and companions.schema != COMPANION_COLUMNS:
            raise build_json_mismatch(path / COMPANIONS_FILE)
        if not hashed_earlier:
            check_items(items, path / ITEMS_FILE)
            check_views(views, len(items), path / VIEWS_FILE)
            if facts is not None:
                check_facts(facts, path / FACTS_FILE)
            if companions is not None:
                check_companions(companions, info.items, path / COMPANIONS_FILE)
            # On a read-only disk every reader has to hash again.
            with contextlib.suppress(StoreError):
                remember_hashed(path, info)
        matrices = item_matrices(items, info.dim) + item_matrices(views, info.dim)
        try:
            with reading(path):
                index = open_vector_index(
                    path, matrices, info.trees, info.tree_components, info.files
                )
        except OSError as error:
            raise BuildError(f"{path}: {error}: run `retrieval index`") from None
        return cls(path, info, items, index, lock, views, facts, companions)

    def __len__(self) -> int:
        """Return the number of items."""
        return self.info.items

    @property
    def plan(self) -> Plan:
        """The plan that searches follow; without loaded codes, a scan instead of codes."""
        return self.vector_index.usable_plan(self.info.calibration.plan)

    def load_codes(self) -> None:
        """Read the codes if the build's plan uses them; this pays off for many queries only.

        Raises:
            BuildError: The codes cannot be read.
        """
        self.vector_index.load_codes_for(self.info.calibration.plan)

    @property
    def as_previous(self) -> PreviousBuild:
        """What the next build may reuse of this one."""
        return PreviousBuild(
            directory=self.path,
            hashes={name: facts.blake3 for name, facts in self.info.files.items()},
            row_ids=row_ids(self.items["content_id"], self.views),
            structures=SearchStructures(
                self.info.trees, self.info.tree_components, self.info.calibration
            ),
        )

    def number_of(self, content_id: str) -> int | None:
        """Return the number of the item with this content id; None if there is none."""
        ids, order = self._sorted_ids
        position = int(np.searchsorted(ids, np.bytes_(content_id.encode(errors="replace"))))
        found = position < len(ids) and ids[position] == content_id.encode(errors="replace")
        return int(order[position]) if found else None

    @functools.cached_property
    def _sorted_ids(self) -> tuple[npt.NDArray[np.bytes_], Numbers]:
        """The content ids, sorted, and the item number of each: 40 MB for a million items."""
        ids = np.array(self.items["content_id"].to_pylist(), np.bytes_)
        order = np.argsort(ids)
        return ids[order], order

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
        if VOCABULARY_FILE not in self.info.files:
            return None
        return load_array(self.path / VOCABULARY_FILE, np.float32, (None, self.info.dim))

    def scan(self, vectors: Vectors) -> Vectors:
        """Return the exact score of every item's own vector.

        The result is (items,) for (dim,), and (items, n) for (n, dim).
        """
        return self.vector_index.scan(vectors)[: len(self)]

    def best(self, vector: Vectors, count: int) -> tuple[Numbers, Vectors]:
        """Return the `count` best items for `vector` (dim,) and their scores, by the build's plan.

        An item's score is that of its best row. Of equal scores the smaller row comes first.
        """
        wanted = count
        while True:
            rows, scores = self.vector_index.best(vector, wanted, self.plan)
            if not self.info.views:
                return rows, scores
            numbers = self.rows.items_of(rows)
            first = np.sort(np.unique(numbers, return_index=True)[1])
            if len(first) >= count or len(rows) < wanted:
                return numbers[first[:count]], scores[first[:count]]
            # Several rows of one item were found: look further down.
            wanted *= 2


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
