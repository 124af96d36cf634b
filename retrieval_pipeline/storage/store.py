"""Where every table and file lives, and how a file becomes visible: complete or not at all.

Nothing else builds a path under `home`.
"""

import contextlib
import errno
import fcntl
import functools
import os
import re
import shutil
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.storage.remote import Place, Remote
from retrieval_pipeline.storage.sync import ANSWERS, TABLES, VOTES, Mirror, copy_of
from retrieval_pipeline.vectors import VectorSpace

SCHEMA_VERSION = b"1"
TEMPORARY_PREFIX = ".tmp-"
REMEDY = "`retrieval verify --repair` rebuilds what can be rebuilt"
PART_NAME = re.compile(r"part-\d+(-\d+)?\.parquet")

MANIFEST = pa.schema(
    [
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
        pa.field("content_id", pa.string()),
        pa.field("status", pa.string(), nullable=False),
        pa.field("error", pa.string()),
    ]
)
QUARANTINE = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("reason", pa.string(), nullable=False),
        pa.field("detail", pa.string(), nullable=False),
        pa.field("attempts", pa.int32(), nullable=False),
        pa.field("last_tried", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("tried_with", pa.string(), nullable=False),
    ]
)
JUDGEMENTS = pa.schema(
    [
        pa.field("content_id", pa.string(), nullable=False),
        pa.field("liked", pa.bool_(), nullable=False),
        pa.field("judged_at", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)


def embedding_schema(dim: int) -> pa.Schema:
    """Columns of an embedding part, for vectors of `dim` components."""
    return pa.schema(
        [
            pa.field("content_id", pa.string(), nullable=False),
            pa.field("embedding", pa.list_(pa.float32(), dim), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("format", pa.string(), nullable=False),
        ]
    )


def space_metadata(space: VectorSpace) -> dict[bytes, bytes]:
    """Schema metadata that says which vector space a table's vectors belong to."""
    return {
        b"model": space.model.encode(),
        b"revision": space.revision.encode(),
        b"dim": str(space.dim).encode(),
        b"preprocessing": space.preprocessing.encode(),
    }


@dataclass(frozen=True)
class Store:
    """The directory `home` and everything in it.

    Attributes:
        place: Where it is; of a remote home, this machine has a copy.
    """

    place: Place

    @functools.cached_property
    def home(self) -> Path:
        """The directory that all paths here begin with."""
        return copy_of(self.place) if isinstance(self.place, Remote) else self.place

    @functools.cached_property
    def _mirror(self) -> Mirror | None:
        return Mirror(self.place, self.home) if isinstance(self.place, Remote) else None

    @property
    def lock_file(self) -> Path:
        """Held by the run that writes; carries its process id."""
        return self.home / "lock"

    def manifest(self, source: str) -> Path:
        """Table of the files seen in one source."""
        return self.home / "manifest" / f"{source}.parquet"

    def embeddings(self, space: VectorSpace, source: str | None = None) -> Path:
        """Directory of one source's embedding parts, or of all sources."""
        directory = self.home / "embeddings" / space.key
        return directory / source if source else directory

    def parts(self, space: VectorSpace, source: str | None = None) -> list[Path]:
        """Embedding parts of one source, or of all of them, in a stable order."""
        directories = [
            directory
            for directory in self.embedding_directories()
            if directory.parent.name == space.key and source in (None, directory.name)
        ]
        return [part for directory in directories for part in parts_in(directory)[0]]

    def next_part(self, space: VectorSpace, source: str) -> Path:
        """Path of the part to write next."""
        numbers = [part_numbers(part)[1] for part in self.parts(space, source)]
        return self.embeddings(space, source) / f"part-{max(numbers, default=0) + 1:06d}.parquet"

    def quarantine(self, space: VectorSpace, source: str) -> Path:
        """Table of the images of one source that could not be embedded."""
        return self.embeddings(space, source) / "quarantine.parquet"

    def manifests(self) -> list[Path]:
        """Every manifest, also of sources that left the settings."""
        return _listed(self.home / "manifest", "*.parquet")

    def embedding_spaces(self) -> list[Path]:
        """The directory of every vector space that has embeddings, also of former models."""
        return _listed(self.home / "embeddings", "*/")

    def embedding_directories(self) -> list[Path]:
        """The directory of every source of every vector space, also of former sources."""
        return [path for space in self.embedding_spaces() for path in _listed(space, "*/")]

    def embedding_tables(self) -> tuple[list[Path], list[Path]]:
        """Every embedding part and every quarantine table, of all vector spaces and sources."""
        directories = self.embedding_directories()
        return (
            [part for directory in directories for part in parts_in(directory)[0]],
            [path for directory in directories for path in directory.glob("quarantine.parquet")],
        )

    def all_builds(self) -> list[Path]:
        """Every build of every vector space, oldest first within a space."""
        spaces = _listed(self.home / "index", "*/")
        return [build for space in spaces for build in _listed(space, "*/")]

    def builds(self, space: VectorSpace) -> list[Path]:
        """The builds of one vector space, oldest first."""
        return [build for build in self.all_builds() if build.parent.name == space.key]

    def new_build(self, space: VectorSpace, name: str) -> Path:
        """Path of a build to write: `name`, or `name` with a number if that is taken."""
        path = self.home / "index" / space.key / name
        number = 1
        while path.exists():
            number += 1
            path = path.with_name(f"{name}-{number}")
        return path

    @property
    def current_file(self) -> Path:
        """Pointer to the current build."""
        return self.home / "index" / "CURRENT"

    def current_build(self) -> Path | None:
        """Directory of the current build, or None before the first one.

        Raises:
            StoreError: The pointer is damaged, or the remote home out of reach.
        """
        if self._mirror is not None:
            self._mirror.refresh({ANSWERS: self.lock_file, VOTES: self._judgements / "lock"})
        try:
            text = self.current_file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(f"{self.current_file}: cannot be read: {error}") from None
        parts = text.split("/")
        if len(parts) != 2 or any(part in ("", ".", "..") for part in parts):
            raise StoreError(
                f"{self.current_file}: does not name a build: {text!r}. Run `retrieval index`"
            )
        return self.home / "index" / parts[0] / parts[1]

    @property
    def held_file(self) -> Path:
        """There while people hold the current build, so that no newer one replaces it."""
        return self.home / "index" / "HELD"

    def hold(self, build: Path) -> None:
        """Make `build` the current one until `release`, atomically."""
        with replacing(self.held_file) as temporary:
            temporary.touch()
        self.publish(build)

    def release(self) -> None:
        """Let the next new build become the current one again."""
        with _explained(self.held_file):
            self.held_file.unlink(missing_ok=True)

    def judgements(self, name: str) -> Path:
        """Table of the votes of one recommender, a row a vote."""
        return self._judgements / f"{name}.parquet"

    def all_judgements(self) -> list[Path]:
        """The tables of all recommenders, by name."""
        return _listed(self._judgements, "*.parquet")

    @property
    def _judgements(self) -> Path:
        return self.home / "judgements"

    def saved_query(self, name: str) -> Path:
        """What one saved query of the settings has found so far."""
        return self.home / "saved" / f"{name}.json"

    def saved_queries(self) -> list[Path]:
        """What every saved query has found, also those that left the settings."""
        return _listed(self.home / "saved", "*.json")

    def map(self, build: str) -> Path:
        """Directory of the map of a build."""
        return self.home / "map" / build

    def maps(self) -> list[Path]:
        """Every map, in the order in which they were drawn."""
        directories = _listed(self.home / "map", "*/")
        return sorted(directories, key=lambda path: path.stat().st_mtime_ns)

    @property
    def damaged(self) -> Path:
        """Directory of what a repair set aside."""
        return self.home / "damaged"

    def set_aside(self, path: Path) -> Path:
        """Move a damaged file or directory out of the way, and return where it is now.

        Raises:
            StoreError: The file system refused.
        """
        target = self.damaged / path.relative_to(self.home)
        while target.exists():
            target = target.with_name(f"{target.name}.again")
        with _explained(path, "moved"):
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        return target

    @property
    def last_map(self) -> Path:
        """Directory of the last map that was drawn to order and not told where to go."""
        return self.home / "last-map"

    @property
    def last_gallery(self) -> Path:
        """Page of the last query that was opened without a file name."""
        return self.home / "gallery.html"

    @property
    def web(self) -> Path:
        """What the web page keeps; it alone writes and sweeps there."""
        return self.home / "web"

    @property
    def thumbnails(self) -> Path:
        """Directory of the thumbnails that the web page has made."""
        return self.web / "thumbnails"

    def thumbnail(self, content_id: str, size: str) -> Path:
        """A thumbnail: a WebP file."""
        return self.thumbnails / size / content_id[:2] / f"{content_id}.webp"

    @property
    def uploads(self) -> Path:
        """Directory of the pictures that people searched by."""
        return self.web / "uploads"

    def upload(self, content_id: str) -> Path:
        """A picture that somebody searched by: a WebP file."""
        return self.uploads / f"{content_id}.webp"

    def publish(self, build: Path) -> None:
        """Make `build` the current one, atomically."""
        with replacing(self.current_file) as temporary:
            temporary.write_text(f"{build.parent.name}/{build.name}\n", encoding="utf-8")

    @contextlib.contextmanager
    def locked(self, *, wait: bool = False, sweep: bool = True) -> Iterator[None]:
        """Hold the only right to write here; readers need none.

        The kernel drops the lock of a process that dies, so that a stale one cannot exist. What
        such a process left under temporary names goes, unless not `sweep`.

        Raises:
            StoreError: Another run holds it, and not `wait`; the message names its process id.
        """
        with _explained(self.home):
            self.home.mkdir(parents=True, exist_ok=True)
            handle = self.lock_file.open("a+", encoding="utf-8")
        with handle:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
            except BlockingIOError:
                handle.seek(0)
                pid = handle.read().strip() or "unknown"
                raise StoreError(
                    f"{self.home} is being written by another run (process {pid}): "
                    "wait for it or stop it, then run again"
                ) from None
            with _explained(self.lock_file):
                os.ftruncate(handle.fileno(), 0)
                os.write(handle.fileno(), str(os.getpid()).encode())
            with self._shared((*TABLES, *ANSWERS), wait=wait):
                if sweep:
                    self.sweep()
                yield

    def _shared(
        self, folders: Sequence[str], *, wait: bool
    ) -> contextlib.AbstractContextManager[None]:
        """Hold the right to write also among machines, if the home is remote."""
        if self._mirror is None:
            return contextlib.nullcontext()
        return self._mirror.writing(folders, wait=wait)

    def leftovers(self) -> list[Path]:
        """What killed runs left under temporary names; for the lock's holder, who has none."""
        # Votes and thumbnails have writers of their own, who may be at work now.
        places = set(self.home.glob("*/")) - {self._judgements, self.web}
        found = list(self.home.glob(f"{TEMPORARY_PREFIX}*"))
        found += [path for place in places for path in place.glob(f"**/{TEMPORARY_PREFIX}*")]
        return sorted(path for path in found if not set(found) & set(path.parents))

    def sweep(self) -> None:
        """Remove the leftovers."""
        _sweep(self.leftovers())

    @contextlib.contextmanager
    def voting(self) -> Iterator[None]:
        """Hold the only right to write judgements, for the moment that a vote takes.

        It is apart from `locked`, so that people can vote while an index is being built.

        Raises:
            StoreError: The file system refused.
        """
        with _explained(self._judgements):
            self._judgements.mkdir(parents=True, exist_ok=True)
            handle = (self._judgements / "lock").open("a", encoding="utf-8")
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with self._shared(VOTES, wait=True):
                _sweep(self._judgements.glob(f"{TEMPORARY_PREFIX}*"))
                yield


def part_numbers(part: Path) -> tuple[int, int]:
    """Return the first and last number in a part's name.

    "part-000004" is one of the run that wrote it. "part-000001-000004" holds what is needed of the
    parts with these numbers: by its name it takes their place in one moment.
    """
    numbers = part.stem.split("-")[1:]
    return int(numbers[0]), int(numbers[-1])


def merged_part(parts: Sequence[Path]) -> Path:
    """Return the path of the part that takes the place of these neighbours, which are in order."""
    if len(parts) == 1:
        return parts[0]
    first, last = part_numbers(parts[0])[0], part_numbers(parts[-1])[1]
    return parts[0].with_name(f"part-{first:06d}-{last:06d}.parquet")


def parts_in(directory: Path) -> tuple[list[Path], list[Path]]:
    """Return the parts in a directory, by number, and those that others have taken the place of."""
    files = [path for path in directory.glob("part-*.parquet") if PART_NAME.fullmatch(path.name)]
    current: list[Path] = []
    replaced: list[Path] = []
    last = 0
    for part in sorted(files, key=lambda part: (part_numbers(part)[0], -part_numbers(part)[1])):
        (current if part_numbers(part)[1] > last else replaced).append(part)
        last = max(last, part_numbers(part)[1])
    return current, replaced


def _listed(directory: Path, pattern: str) -> list[Path]:
    found = directory.glob(pattern)
    return sorted(path for path in found if not path.name.startswith(TEMPORARY_PREFIX))


def _sweep(leftovers: Iterable[Path]) -> None:
    """Remove what killed runs left under temporary names; only a lock's holder may."""
    for leftover in leftovers:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


@contextlib.contextmanager
def _explained(path: Path, done: str = "written") -> Iterator[None]:
    """Turn an error of the file system into one line."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT) or (error.errno is None and _is_full(path)):
            raise StoreError(
                f"no space left for {path}: free some and run again; "
                "finished work is kept, nothing was half-written"
            ) from error
        raise StoreError(f"{path}: cannot be {done}: {error.strerror or error}") from error


def _is_full(path: Path) -> bool:
    """Tell whether next to nothing is free: NumPy and Annoy do not say why they wrote less."""
    there = next(parent for parent in path.absolute().parents if parent.exists())
    return shutil.disk_usage(there).free < 1 << 16


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _temporary(path: Path) -> Path:
    return path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{path.name}"


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; what is written there takes its place at the end.

    Raises:
        StoreError: The file system refused; `path` is as it was.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        with _explained(path):
            yield temporary
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            temporary.replace(path)
            _sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """Give a temporary path in a directory; what is written there goes at the end.

    Raises:
        StoreError: The file system refused.
    """
    temporary = _temporary(directory / "scratch")
    try:
        with _explained(directory):
            directory.mkdir(parents=True, exist_ok=True)
            yield temporary
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_directory(path: Path) -> Iterator[Path]:
    """Give a temporary directory beside `path`; it gets that name when all its files are written.

    Raises:
        StoreError: The file system refused; there is no `path`.
    """
    temporary = _temporary(path)
    try:
        with _explained(path):
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.iterdir():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
            _sync_directory(temporary)
            temporary.replace(path)
            _sync_directory(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def discard(path: Path) -> None:
    """Remove a file or directory: at once for whoever looks, then from the disk.

    Raises:
        StoreError: The file system refused.
    """
    temporary = _temporary(path)
    with _explained(path, "removed"):
        path.replace(temporary)
        _sweep([temporary])


def write_table(path: Path, table: pa.Table, space: VectorSpace | None = None) -> None:
    """Write a Parquet table atomically, with its schema version and vector space.

    Raises:
        StoreError: The file system refused; what was there before is still there.
    """
    metadata = {b"schema_version": SCHEMA_VERSION}
    if space is not None:
        metadata |= space_metadata(space)
    with replacing(path) as temporary:
        # Vectors do not compress; dictionaries only pay for repeated strings.
        pq.write_table(
            table.replace_schema_metadata(metadata),
            temporary,
            compression="zstd",
            write_page_checksum=True,
            use_dictionary=[
                name for name in ("status", "reason", "format") if name in table.schema.names
            ],
        )


def read_table(
    path: Path,
    schema: pa.Schema,
    columns: list[str] | None = None,
    *,
    remedy: str = REMEDY,
) -> pa.Table:
    """Read a Parquet table and check that it has the columns of `schema`.

    `remedy` tells people what to do about one that cannot be used.

    Raises:
        StoreError: The file is damaged, of another version or has other columns.
    """
    try:
        with pa.memory_map(str(path)) as source:
            file = pq.ParquetFile(source, page_checksum_verification=True)
            found = file.schema_arrow
            version = (found.metadata or {}).get(b"schema_version")
            if version != SCHEMA_VERSION or not found.equals(schema):
                raise StoreError(f"{path}: not a table of this program's version: {remedy}")
            return file.read(columns=columns)
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"{path}: damaged or unreadable ({_first_line(error)}): {remedy}"
        ) from None


def read_space(path: Path) -> VectorSpace:
    """Return the vector space that a table says it belongs to.

    Raises:
        StoreError: The table does not say, or is damaged.
    """
    try:
        metadata = pq.read_schema(path).metadata or {}
        return VectorSpace(
            model=metadata[b"model"].decode(),
            revision=metadata[b"revision"].decode(),
            dim=int(metadata[b"dim"]),
            preprocessing=metadata[b"preprocessing"].decode(),
        )
    except (pa.ArrowException, OSError) as error:
        raise StoreError(
            f"{path}: damaged or unreadable ({_first_line(error)}): {REMEDY}"
        ) from None
    except (KeyError, ValueError):
        raise StoreError(f"{path}: does not say which model made it: {REMEDY}") from None


def read_manifest(store: Store, source: str) -> pa.Table:
    """Return the manifest of a source; empty if it has none yet."""
    path = store.manifest(source)
    return read_table(path, MANIFEST) if path.exists() else MANIFEST.empty_table()


def read_quarantine(store: Store, space: VectorSpace, source: str) -> pa.Table:
    """Return the quarantine of a source; empty if it has none yet."""
    path = store.quarantine(space, source)
    return read_table(path, QUARANTINE) if path.exists() else QUARANTINE.empty_table()


def _first_line(error: BaseException) -> str:
    return str(error).partition("\n")[0][:200]
