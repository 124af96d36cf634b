"""One build of the index: what it consists of, checking it, opening it, asking it."""

import contextlib
import fcntl
import functools
import json
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
from retrieval_pipeline.index.ann import (
    ANNOY,
    METRIC,
    PLACES,
    Former,
    Structures,
    TreeFacts,
    map_nearest,
    not_as_said,
)
from retrieval_pipeline.index.autotune import Calibration
from retrieval_pipeline.index.items import (
    as_matrix,
    items_schema,
)
from retrieval_pipeline.index.knn import Nearest, Plan, spread
from retrieval_pipeline.index.score_statistics import SAMPLE_PICTURES, Background
from retrieval_pipeline.index.vocabulary import words
from retrieval_pipeline.storage.atomic import replacing
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.reading import mapped, reading
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.sync import CHECKED
from retrieval_pipeline.vectors import Numbers, Vectors, VectorSpace

FORMAT = 4

ITEMS = "items.arrow"
VOCABULARY = "vocabulary.npy"
INFO = "build.json"


class FileFacts(BaseModel):
    """What a file of a build must be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    blake3: str


class Check(BaseModel):
    """Something that was looked at before a build was published, and what was found."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    passed: bool
    found: str


class BuildInfo(BaseModel):
    """The contents of build.json."""

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

    @property
    def space(self) -> VectorSpace:
        """The vector space of the build: queries must be encoded in it."""
        return VectorSpace(self.model, self.revision, self.dim, self.preprocessing)

    @property
    def recall_at_10(self) -> float:
        """Share of the true ten nearest items that a query finds, as measured when it was built."""
        return self.calibration.recall_at_10


class OtherVersionError(BuildError):
    """A build that another version of this program wrote; it may be whole."""


def vocabulary_digest() -> str:
    """Return the hash of the vocabulary: a build with another one has other vectors of words."""
    return blake3("\n".join(words()).encode()).hexdigest(length=16)


def write_info(directory: Path, info: BuildInfo) -> None:
    """Write build.json into the directory of a build that is not published yet."""
    (directory / INFO).write_text(info.model_dump_json(indent=2), encoding="utf-8")


def read_info(build: Path) -> BuildInfo:
    """Read build.json.

    Raises:
        BuildError: It is missing, damaged or of another version.
    """
    try:
        with reading(build / INFO):
            data = (build / INFO).read_bytes()
    except OSError as error:
        raise BuildError(f"{build}: {error.strerror}: run `retrieval index`") from None
    try:
        found = from_json(data)
        if (found.get("format"), found.get("metric")) != (FORMAT, METRIC):
            raise OtherVersionError(f"{build}: made by another version: run `retrieval index`")
        return BuildInfo.model_validate(found)
    except (ValueError, AttributeError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else "not JSON"
        raise BuildError(f"{build / INFO}: damaged ({what}): run `retrieval index`") from None


def check_files(build: Path, info: BuildInfo, *, rehash: bool = False) -> None:
    """Compare every file with build.json; one that was hashed before and is the same file passes.

    Raises:
        BuildError: A file is missing or is not what it must be.
    """
    known = {} if rehash else _read_stamp(build)
    if missing := {ITEMS, ANNOY, PLACES, *info.trees} - set(info.files):
        raise BuildError(f"{build / INFO}: does not name {min(missing)}: run `retrieval index`")
    for name, facts in info.files.items():
        file = build / name
        try:
            with reading(file):
                whole = file.stat().st_size == facts.size and (
                    known.get(name) == file_identity(file, facts)
                    or content_id_of_file(file) == facts.blake3
                )
        except OSError as error:
            raise BuildError(f"{file}: {error.strerror}: run `retrieval index`") from None
        if not whole:
            raise BuildError(
                f"{file}: not as build.json says, so not loaded: run `retrieval index`"
            )
    stamp = {name: file_identity(build / name, facts) for name, facts in info.files.items()}
    if stamp != known:
        # Without it the next reader hashes again; a store on a read-only disk can do no better.
        with contextlib.suppress(StoreError):
            write_stamp(build, stamp)


def file_identity(file: Path, facts: FileFacts) -> list[int | str]:
    """Return what tells that a file is still the one that had this hash."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino, facts.blake3]


def _read_stamp(build: Path) -> dict[str, object]:
    """Return the identities of the files that were hashed before; {} if that is not known."""
    try:
        stamp = from_json((build / CHECKED).read_bytes())
    except (OSError, ValueError):
        return {}
    return stamp if isinstance(stamp, dict) else {}


def write_stamp(build: Path, stamp: dict[str, list[int | str]]) -> None:
    """Note which files of a build were hashed, so that they are not hashed again unchanged.

    Raises:
        StoreError: The file system refused.
    """
    with replacing(build / CHECKED) as temporary:
        temporary.write_text(json.dumps(stamp), encoding="utf-8")


def map_items(file: Path) -> pa.Table:
    """Map items.arrow into memory; its columns are those of `items_schema` if it is sound.

    Raises:
        BuildError: It is missing or no Arrow file.
    """
    try:
        with reading(file):
            return pa.ipc.open_file(pa.py_buffer(mapped(file))).read_all()
    except (pa.ArrowException, OSError, ValueError) as error:
        raise BuildError(f"{file}: {error}: run `retrieval index`") from None


def item_matrices(items: pa.Table, dim: int) -> list[Vectors]:
    """View the embeddings of items as float32 matrices (n, dim), one for each record batch."""
    return [as_matrix(chunk, dim) for chunk in items.column("embedding").chunks]


class Build:
    """An open build. Its files are memory-mapped and never change, nor are they removed."""

    def __init__(
        self, path: Path, info: BuildInfo, items: pa.Table, nearest: Nearest, hold: IO[bytes]
    ) -> None:
        self.path = path
        self.info = info
        self.items = items
        self.nearest = nearest
        # Closed, and with it unlocked, when nobody uses the build any more.
        self._hold = hold

    @classmethod
    def open(cls, path: Path, *, rehash: bool = False) -> "Build":
        """Check every file of the build against build.json, then map it.

        Files that were hashed before, and have not been touched since, are not hashed again unless
        `rehash`: a build of gigabytes opens in milliseconds.

        Raises:
            BuildError: The build is missing, damaged or of another version.
            UnreadableError: A file cannot be read, which says nothing about its content.
        """
        hold = _hold(path)
        info = read_info(path)
        check_files(path, info, rehash=rehash)
        items = map_items(path / ITEMS)
        if items.schema != items_schema(info.dim) or len(items) != info.items:
            raise not_as_said(path / ITEMS)
        matrices = item_matrices(items, info.dim)
        try:
            with reading(path):
                nearest = map_nearest(path, matrices, info.trees, info.tree_components, info.files)
        except OSError as error:
            raise BuildError(f"{path}: {error}: run `retrieval index`") from None
        return cls(path, info, items, nearest, hold)

    def __len__(self) -> int:
        """Return the number of items."""
        return self.info.items

    @property
    def plan(self) -> Plan:
        """How the build is searched."""
        return self.nearest.usable(self.info.calibration.plan)

    def load_codes(self) -> None:
        """Read the codes if the build is to be searched by them: worth it for many queries only.

        Raises:
            BuildError: They cannot be read.
        """
        self.nearest.load_for(self.info.calibration.plan)

    @property
    def kept(self) -> Former:
        """What the next build may take over."""
        return Former(
            directory=self.path,
            hashes={name: facts.blake3 for name, facts in self.info.files.items()},
            content_ids=self.items["content_id"],
            structures=Structures(
                self.info.trees, self.info.tree_components, self.info.calibration
            ),
        )

    def number_of(self, content_id: str) -> int | None:
        """Return the item with this content id, or None."""
        ids, order = self._sorted_ids
        place = int(np.searchsorted(ids, np.bytes_(content_id.encode())))
        found = place < len(ids) and ids[place] == content_id.encode()
        return int(order[place]) if found else None

    @functools.cached_property
    def _sorted_ids(self) -> tuple[npt.NDArray[np.bytes_], Numbers]:
        """The content ids in their order, and the item of each: 40 MB for a million."""
        ids = np.array(self.items["content_id"].to_pylist(), np.bytes_)
        order = np.argsort(ids)
        return ids[order], order

    def vectors(self, numbers: Numbers) -> Vectors:
        """Return the full vectors of these items, float32 (len(numbers), dim)."""
        return self.nearest.vectors(numbers)

    @functools.cached_property
    def sample_numbers(self) -> Numbers:
        """Items spread evenly over the build, whose scores stand for the scores of all."""
        return spread(len(self), SAMPLE_PICTURES)

    @functools.cached_property
    def sample(self) -> Vectors:
        """Vectors of `sample_numbers`, float32 (n, dim), n <= SAMPLE_PICTURES."""
        return self.vectors(self.sample_numbers)

    @functools.cached_property
    def vocabulary(self) -> Vectors | None:
        """Vectors of `vocabulary.words()`, float32 (n, dim); None if the build has none."""
        if VOCABULARY not in self.info.files:
            return None
        with reading(self.path / VOCABULARY):
            vectors: Vectors = np.load(self.path / VOCABULARY)
        return vectors

    def scan(self, vectors: Vectors) -> Vectors:
        """Return the exact score of every item: (items,) for (dim,), (items, n) for (n, dim)."""
        return self.nearest.scan(vectors)

    def best(self, vector: Vectors, count: int) -> tuple[Numbers, Vectors]:
        """Return the `count` best items for `vector` and their scores, by the build's plan."""
        return self.nearest.best(vector, count, self.plan)


def _hold(build: Path) -> IO[bytes]:
    """Keep `retire_builds` off a build until the returned file is closed."""
    try:
        with reading(build / INFO):
            file = (build / INFO).open("rb")
    except OSError as error:
        raise BuildError(f"{build}: {error.strerror}: run `retrieval index`") from None
    # Some network file systems know no locks: there, a removed build lives on as far as it is
    # mapped.
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
            # It may have been replaced and removed between the pointer and the files.
            former, path = path, store.current_build()
            if path == former:
                raise
    raise BuildError(f"nothing is indexed yet in {store.home}: run `retrieval index` first")


def current_or_none(store: Store) -> Path | None:
    """Return the current build; a damaged pointer, which the next build replaces, is none.

    Raises:
        UnreadableError: The pointer cannot be read; there may be a current build.
    """
    try:
        return store.current_build()
    except UnreadableError:
        raise
    except StoreError:
        return None


def list_builds(store: Store) -> dict[Path, BuildInfo | str]:
    """Return what each build is, or why it cannot be used; the newest first."""
    builds: dict[Path, BuildInfo | str] = {}
    for build in sorted(store.all_builds(), key=lambda path: path.name, reverse=True):
        try:
            builds[build] = read_info(build)
        except (BuildError, UnreadableError) as error:
            builds[build] = str(error)
    return builds
