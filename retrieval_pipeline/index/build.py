"""Embeddings -> build: write an immutable index, check it, open it, retire old ones.

A build is one directory: `items.arrow` (what each item is, with its full vector), `vectors.annoy`
(the search trees), `build.json` (what all files must be, and how the build is best searched),
`vocabulary.npy` (the vectors of common words) and what else `structures.py` writes. Annoy crashes
the process on a file that is not what it expects, so nothing is loaded before it agrees with
build.json.
"""

import contextlib
import fcntl
import functools
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import IO

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from blake3 import blake3
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import from_json

from retrieval_pipeline.errors import BuildError, StoreError
from retrieval_pipeline.index.ann import (
    ANNOY,
    BASIS,
    CODES,
    METRIC,
    PLACES,
    TREES,
    Former,
    Structures,
    TreeFacts,
    map_nearest,
    not_as_said,
    take_over,
    write_structures,
)
from retrieval_pipeline.index.autotune import Calibration
from retrieval_pipeline.index.items import (
    Joined,
    as_matrix,
    items_schema,
    join,
    one_chunk,
    write_items,
)
from retrieval_pipeline.index.knn import COMPONENTS, Nearest, Numbers, Plan, rows_of, spread
from retrieval_pipeline.index.quantization import require_codes
from retrieval_pipeline.index.vocabulary import words
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.search.relevance import SAMPLE_PICTURES, Background, measure_background
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.store import Store, discard, new_directory, replacing
from retrieval_pipeline.vectors import Vectors, VectorSpace, check_vectors

FORMAT = 4
RECALL = 0.99  # The target where the settings name no other.
# How long a replaced build stays, so that whoever is about to open it still can.
GRACE = timedelta(hours=1)

ITEMS = "items.arrow"
VOCABULARY = "vocabulary.npy"
INFO = "build.json"
CHECKED = "checked.json"

EncodeTexts = Callable[[Sequence[str]], Vectors]


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


@dataclass(frozen=True)
class BuildReport:
    """The current build after an update.

    Attributes:
        build: Its directory.
        info: What it is.
        published: Whether it became the current one now.
        kept: Why it stayed the current one although there is something newer; "" if there is not.
    """

    build: Path
    info: BuildInfo
    published: bool
    kept: str = ""


class OtherVersionError(BuildError):
    """A build that another version of this program wrote; it may be whole."""


class RefusedBuildError(BuildError):
    """A new build did not pass its checks; the one before it goes on answering."""

    def __init__(self, checks: Sequence[Check]) -> None:
        self.checks = tuple(checks)
        failed = "; ".join(check.found for check in checks if not check.passed)
        super().__init__(
            f"the new index was not published, since {failed}. The index before it, if there is "
            "one, goes on answering"
        )


def build_index(
    store: Store,
    space: VectorSpace,
    sources: Sequence[str],
    *,
    recall: float = RECALL,
    codes: bool = False,
    encode_texts: EncodeTexts | None = None,
    accept: Callable[["Build"], Sequence[Check]] | None = None,
    progress: Progress | None = None,
) -> BuildReport:
    """Write and publish a build of `sources`, unless there is one of the same inputs.

    Args:
        store: Where tables and builds are.
        space: Whose embeddings to index.
        sources: Whose manifests to index.
        recall: The recall at 10 that the way of searching must reach when it is measured.
        codes: Whether to write codes for faiss and try how fast they are.
        encode_texts: Encodes the vocabulary where no build of this space has it yet. Without it
            the build knows no words: it is calibrated with queries like pictures alone.
        accept: Checks a build, opened as readers open it, before it is published.
        progress: Told about stages and items.

    Raises:
        BuildError: There is nothing to index, or faiss is not installed for `codes`.
        RefusedBuildError: A check failed; nothing was published.
        StoreError: A table is damaged or the build cannot be written.
        VectorError: A stored vector is not of unit length.
    """
    progress = progress or Quiet()
    if codes:
        require_codes()
    joined = join(store, space, sources)
    if not len(joined):
        raise BuildError(
            "there is nothing to index: no source has an image that could be embedded. "
            "`retrieval status` shows what was found"
        )
    inputs = joined.digest(
        FORMAT, TREES, COMPONENTS, recall, codes, _vocabulary_digest(), space.key
    )
    if (same := _same_build(store, space, inputs)) is not None:
        published = same != current_or_none(store)
        if published:
            store.publish(same)
        return BuildReport(same, read_info(same), published)
    texts = _vocabulary(store, space, encode_texts)
    write = functools.partial(
        _write_build, store, space, joined, inputs, recall, codes, texts, accept, progress
    )
    former = _open_former(store, space, recall, codes, texts)
    try:
        return write(former)
    except RefusedBuildError:
        if former is None:
            raise
        # It may be for what it took over.
        return write(None)


def _write_build(
    store: Store,
    space: VectorSpace,
    joined: Joined,
    inputs: str,
    recall: float,
    codes: bool,
    texts: Vectors | None,
    accept: Callable[["Build"], Sequence[Check]] | None,
    progress: Progress,
    former: "Build | None",
) -> BuildReport:
    """Write, check and publish a build, which takes over what it can from `former`."""
    started = time.monotonic()
    created_at = datetime.now(UTC)
    # Names sort by age, also those of one second.
    build = store.new_build(space, f"{created_at:%Y%m%dT%H%M%S.%f}Z-{inputs[:8]}")
    with new_directory(build) as directory:
        progress.start("writing the index", len(joined), "images")
        for count in write_items(joined, space, directory / ITEMS, directory / "scratch"):
            progress.advance(count)
        progress.finish()
        matrices = _matrices(_map_items(directory / ITEMS), space.dim)
        if texts is not None:
            np.save(directory / VOCABULARY, texts)
        structures = None
        if former is not None:
            content_ids = one_chunk(joined.table["content_id"])
            structures = take_over(directory, matrices, content_ids, texts, former.kept, progress)
        if structures is None:
            structures = write_structures(directory, matrices, texts, recall, codes, progress)
        flat_sources = pc.list_flatten(joined.table["locations"]).combine_chunks().field("source")
        info = BuildInfo(
            format=FORMAT,
            created_at=created_at,
            inputs=inputs,
            model=space.model,
            revision=space.revision,
            dim=space.dim,
            preprocessing=space.preprocessing,
            metric=METRIC,
            trees=structures.trees,
            tree_components=structures.components,
            items=len(joined),
            locations=len(flat_sources),
            sources={
                entry["values"]: entry["counts"]
                for entry in pc.value_counts(flat_sources).to_pylist()
            },
            calibration=structures.calibration,
            background=measure_background(_sample(matrices), texts),
            vocabulary=None if texts is None else _vocabulary_digest(),
            build_seconds=round(time.monotonic() - started, 3),
            files={
                file.name: FileFacts(size=file.stat().st_size, blake3=content_id_of_file(file))
                for file in sorted(directory.iterdir())
            },
        )
        stamp = {name: _identity(directory / name, facts) for name, facts in info.files.items()}
        _write_stamp(directory, stamp)
        _write_info(directory, info)
        if accept is not None:
            progress.start("checking the index", None, "")
            checks = tuple(accept(Build.open(directory)))
            progress.finish()
            if not all(check.passed for check in checks):
                raise RefusedBuildError(checks)
            info = info.model_copy(update={"checks": checks})
            _write_info(directory, info)
    store.publish(build)
    retire_builds(store)
    return BuildReport(build, info, published=True)


def _open_former(
    store: Store, space: VectorSpace, recall: float, codes: bool, texts: Vectors | None
) -> "Build | None":
    """Open the current build if the next one may take over how it is searched."""
    with contextlib.suppress(BuildError, StoreError):
        build = open_current(store)
        info = build.info
        vocabulary = None if texts is None else _vocabulary_digest()
        # Only a projection has codes.
        with_codes = CODES in info.files or (codes and BASIS not in info.files)
        found = info.space, info.calibration.target, with_codes, info.vocabulary
        if found == (space, recall, codes, vocabulary):
            return build
    return None


def _sample(matrices: list[Vectors]) -> Vectors:
    return rows_of(matrices, spread(sum(map(len, matrices)), SAMPLE_PICTURES))


def _vocabulary(
    store: Store, space: VectorSpace, encode_texts: EncodeTexts | None
) -> Vectors | None:
    """Return the vectors of `vocabulary.words()`, from an earlier build of the space if it can."""
    for build in reversed(store.builds(space)):
        try:
            info = read_info(build)
            if info.vocabulary == _vocabulary_digest():
                _check_files(build, info)
                known: Vectors = np.load(build / VOCABULARY)
                return known
        except BuildError:
            continue
    if encode_texts is None:
        return None
    return check_vectors(encode_texts(words()), space.dim, "vocabulary")


def _vocabulary_digest() -> str:
    return blake3("\n".join(words()).encode()).hexdigest(length=16)


def _same_build(store: Store, space: VectorSpace, inputs: str) -> Path | None:
    """Return a build that was made from the same inputs and is whole; the current one first."""
    current = current_or_none(store)
    newest_first = reversed(store.builds(space))
    for build in sorted(newest_first, key=lambda build: build != current):
        with contextlib.suppress(BuildError):
            info = read_info(build)
            if info.inputs == inputs:
                _check_files(build, info)
                return build
    return None


def _write_info(directory: Path, info: BuildInfo) -> None:
    (directory / INFO).write_text(info.model_dump_json(indent=2), encoding="utf-8")


def read_info(build: Path) -> BuildInfo:
    """Read build.json.

    Raises:
        BuildError: It is missing, damaged or of another version.
    """
    try:
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


def _check_files(build: Path, info: BuildInfo, *, rehash: bool = False) -> None:
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
    stamp = {name: _identity(build / name, facts) for name, facts in info.files.items()}
    if stamp != known:
        # Without it the next reader hashes again; a store on a read-only disk can do no better.
        with contextlib.suppress(StoreError):
            _write_stamp(build, stamp)


def _identity(file: Path, facts: FileFacts) -> list[int | str]:
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


def _write_stamp(build: Path, stamp: dict[str, list[int | str]]) -> None:
    with replacing(build / CHECKED) as temporary:
        temporary.write_text(json.dumps(stamp), encoding="utf-8")


def _map_items(file: Path) -> pa.Table:
    try:
        return pa.ipc.open_file(pa.memory_map(str(file))).read_all()
    except (pa.ArrowException, OSError) as error:
        raise BuildError(f"{file}: {error}: run `retrieval index`") from None


def _matrices(items: pa.Table, dim: int) -> list[Vectors]:
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
        """
        hold = _hold(path)
        info = read_info(path)
        _check_files(path, info, rehash=rehash)
        items = _map_items(path / ITEMS)
        if items.schema != items_schema(info.dim) or len(items) != info.items:
            raise not_as_said(path / ITEMS)
        matrices = _matrices(items, info.dim)
        nearest = map_nearest(path, matrices, info.trees, info.tree_components, info.files)
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
        return np.load(self.path / VOCABULARY) if VOCABULARY in self.info.files else None

    def scan(self, vectors: Vectors) -> Vectors:
        """Return the exact score of every item: (items,) for (dim,), (items, n) for (n, dim)."""
        return self.nearest.scan(vectors)

    def best(self, vector: Vectors, count: int) -> tuple[Numbers, Vectors]:
        """Return the `count` best items for `vector` and their scores, by the build's plan."""
        return self.nearest.best(vector, count, self.plan)


def _hold(build: Path) -> IO[bytes]:
    """Keep `retire_builds` off a build until the returned file is closed."""
    try:
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
    """Return the current build; a damaged pointer, which the next build replaces, is none."""
    try:
        return store.current_build()
    except StoreError:
        return None


def list_builds(store: Store) -> dict[Path, BuildInfo | str]:
    """Return what each build is, or why it cannot be used; the newest first."""
    builds: dict[Path, BuildInfo | str] = {}
    for build in sorted(store.all_builds(), key=lambda path: path.name, reverse=True):
        try:
            builds[build] = read_info(build)
        except BuildError as error:
            builds[build] = str(error)
    return builds


def retire_builds(store: Store, grace: timedelta = GRACE) -> list[Path]:
    """Remove the old builds that no process has open, and return them.

    Raises:
        StoreError: One cannot be removed.
    """
    return [build for build in old_builds(store, grace) if remove_build(build)]


def old_builds(store: Store, grace: timedelta = GRACE) -> list[Path]:
    """Return the builds that were replaced longer than `grace` ago.

    Never the current one, nor the newest other one of each space, to which people can go back.

    Raises:
        StoreError: CURRENT is damaged.
    """
    current = store.current_build()
    spaces: dict[Path, list[Path]] = {}
    for build in store.all_builds():
        spaces.setdefault(build.parent, []).append(build)
    old = []
    for builds in spaces.values():
        others = [build for build in builds if build != current]
        for build in others[:-1]:
            successor = builds[builds.index(build) + 1]
            replaced = datetime.fromtimestamp(successor.stat().st_mtime, UTC)
            if datetime.now(UTC) - replaced >= grace:
                old.append(build)
    return old


def remove_build(build: Path) -> bool:
    """Remove a build unless a process has it open; tell whether it went.

    Raises:
        StoreError: The file system refused.
    """
    with _let_go(build) as free:
        if free:
            discard(build)
    return free


def is_open(build: Path) -> bool:
    """Tell whether a process has the build open."""
    with _let_go(build) as free:
        return not free


@contextlib.contextmanager
def _let_go(build: Path) -> Iterator[bool]:
    """Tell whether nobody has the build open, and let nobody open it meanwhile."""
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context((build / INFO).open("rb"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        except OSError:
            # It is not whole, or the file system knows no locks (see `_hold`).
            yield True
        else:
            yield True
