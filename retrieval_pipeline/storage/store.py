"""The paths of all tables and files under `home`, and the locks of those who write them.

No other module builds a path under `home`.
"""

import contextlib
import fcntl
import functools
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.storage.atomic import TEMPORARY_PREFIX, explained, remove_all, replacing
from retrieval_pipeline.storage.parts import part_numbers, parts_in
from retrieval_pipeline.storage.remote import Place, Remote
from retrieval_pipeline.storage.sync import ANSWERS, TABLES, VOTES, Mirror, copy_of
from retrieval_pipeline.vectors import VectorSpace


@dataclass(frozen=True)
class Store:
    """The directory `home` and everything in it.

    Attributes:
        place: The directory, or the URL of a remote home.
    """

    place: Place

    @functools.cached_property
    def home(self) -> Path:
        """The directory that all paths start with: of a remote home, this machine's copy of it."""
        return copy_of(self.place) if isinstance(self.place, Remote) else self.place

    @functools.cached_property
    def _mirror(self) -> Mirror | None:
        return Mirror(self.place, self.home) if isinstance(self.place, Remote) else None

    @property
    def lock_file(self) -> Path:
        """File that the writing run locks, and into which it writes its process id."""
        return self.home / "lock"

    def manifest(self, source: str) -> Path:
        """Return the path of the table of the files of one source."""
        return self.home / "manifest" / f"{source}.parquet"

    def embeddings(self, space: VectorSpace, source: str | None = None) -> Path:
        """Return the directory of one source's embedding parts, or of those of all sources."""
        directory = self.home / "embeddings" / space.key
        return directory / source if source else directory

    def parts(self, space: VectorSpace, source: str | None = None) -> list[Path]:
        """Return the embedding parts of one source, or of all sources, in a stable order."""
        directories = [
            directory
            for directory in self.embedding_directories()
            if directory.parent.name == space.key and source in (None, directory.name)
        ]
        return [part for directory in directories for part in parts_in(directory)[0]]

    def next_part(self, space: VectorSpace, source: str) -> Path:
        """Return the path of the part to write next."""
        numbers = [part_numbers(part)[1] for part in self.parts(space, source)]
        return self.embeddings(space, source) / f"part-{max(numbers, default=0) + 1:06d}.parquet"

    def quarantine(self, space: VectorSpace, source: str) -> Path:
        """Return the path of the table of one source's images that could not be embedded."""
        return self.embeddings(space, source) / "quarantine.parquet"

    def manifests(self) -> list[Path]:
        """Return every manifest, also those of sources that left the settings."""
        return _listed(self.home / "manifest", "*.parquet")

    def embedding_spaces(self) -> list[Path]:
        """Return the directory of every vector space with embeddings, former models included."""
        return _listed(self.home / "embeddings", "*/")

    def embedding_directories(self) -> list[Path]:
        """Return the directory of every source in every vector space, former sources included."""
        return [path for space in self.embedding_spaces() for path in _listed(space, "*/")]

    def embedding_tables(self) -> tuple[list[Path], list[Path]]:
        """Return every embedding part, and every quarantine, of all vector spaces and sources."""
        directories = self.embedding_directories()
        return (
            [part for directory in directories for part in parts_in(directory)[0]],
            [path for directory in directories for path in directory.glob("quarantine.parquet")],
        )

    def all_builds(self) -> list[Path]:
        """Return every build of every vector space, oldest first within a space."""
        spaces = _listed(self.home / "index", "*/")
        return [build for space in spaces for build in _listed(space, "*/")]

    def builds(self, space: VectorSpace) -> list[Path]:
        """Return the builds of one vector space, oldest first."""
        return [build for build in self.all_builds() if build.parent.name == space.key]

    def new_build(self, space: VectorSpace, name: str) -> Path:
        """Return the path of a build to write: `name`, with a number after it if it is taken."""
        path = self.home / "index" / space.key / name
        number = 1
        while path.exists():
            number += 1
            path = path.with_name(f"{name}-{number}")
        return path

    @property
    def current_file(self) -> Path:
        """File that names the current build."""
        return self.home / "index" / "CURRENT"

    def current_build(self) -> Path | None:
        """Return the directory of the current build, or None before the first one.

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
        """File that exists while people hold the current build: no newer one replaces it then."""
        return self.home / "index" / "HELD"

    def hold(self, build: Path) -> None:
        """Make `build` the current one, atomically, and keep it so until `release`.

        Raises:
            StoreError: The file system refused.
        """
        with replacing(self.held_file) as temporary:
            temporary.touch()
        self.publish(build)

    def release(self) -> None:
        """Let the next new build become the current one again.

        Raises:
            StoreError: The file system refused.
        """
        with explained(self.held_file):
            self.held_file.unlink(missing_ok=True)

    def judgements(self, name: str) -> Path:
        """Return the path of the table of one recommender's votes."""
        return self._judgements / f"{name}.parquet"

    def all_judgements(self) -> list[Path]:
        """Return the tables of all recommenders, sorted by name."""
        return _listed(self._judgements, "*.parquet")

    @property
    def _judgements(self) -> Path:
        return self.home / "judgements"

    def saved_query(self, name: str) -> Path:
        """Return the path of the JSON file of what one saved query has found so far."""
        return self.home / "saved" / f"{name}.json"

    def saved_queries(self) -> list[Path]:
        """Return the files of all saved queries, also of those that left the settings."""
        return _listed(self.home / "saved", "*.json")

    def map(self, build: str) -> Path:
        """Return the directory of the map of a build."""
        return self.home / "map" / build

    def maps(self) -> list[Path]:
        """Return the directory of every map, in the order in which they were drawn."""
        directories = _listed(self.home / "map", "*/")
        return sorted(directories, key=lambda path: path.stat().st_mtime_ns)

    @property
    def damaged(self) -> Path:
        """Directory of the damaged files that a repair moved away."""
        return self.home / "damaged"

    def set_aside(self, path: Path) -> Path:
        """Move a damaged file or directory into `damaged`, and return its new path.

        Raises:
            StoreError: The file system refused.
        """
        target = self.damaged / path.relative_to(self.home)
        while target.exists():
            target = target.with_name(f"{target.name}.again")
        with explained(path, "moved"):
            target.parent.mkdir(parents=True, exist_ok=True)
            path.replace(target)
        return target

    @property
    def last_map(self) -> Path:
        """Directory of the last map that `retrieval map` drew without --output."""
        return self.home / "last-map"

    @property
    def last_gallery(self) -> Path:
        """Page of the last query with --open and without --gallery."""
        return self.home / "gallery.html"

    @property
    def web(self) -> Path:
        """Directory of the web server, which alone writes and sweeps there."""
        return self.home / "web"

    @property
    def thumbnails(self) -> Path:
        """Directory of the thumbnails that the web server made."""
        return self.web / "thumbnails"

    def thumbnail(self, content_id: str, size: str) -> Path:
        """Return the path of a thumbnail, a WebP file."""
        return self.thumbnails / size / content_id[:2] / f"{content_id}.webp"

    @property
    def uploads(self) -> Path:
        """Directory of the pictures that people searched by."""
        return self.web / "uploads"

    def upload(self, content_id: str) -> Path:
        """Return the path of a picture that somebody searched by, a WebP file."""
        return self.uploads / f"{content_id}.webp"

    def publish(self, build: Path) -> None:
        """Make `build` the current one, atomically.

        Raises:
            StoreError: The file system refused.
        """
        with replacing(self.current_file) as temporary:
            temporary.write_text(f"{build.parent.name}/{build.name}\n", encoding="utf-8")

    @contextlib.contextmanager
    def locked(self, *, wait: bool = False, sweep: bool = True) -> Iterator[None]:
        """Hold the lock of all tables but the votes; readers need no lock.

        The kernel frees the lock of a process that dies.

        Args:
            wait: Wait for another holder instead of failing.
            sweep: First remove what killed runs left under temporary names.

        Raises:
            StoreError: Another run holds the lock, and `wait` is false (the message names its
                process id); or the file system refused.
        """
        with explained(self.home):
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
            with explained(self.lock_file):
                os.ftruncate(handle.fileno(), 0)
                os.write(handle.fileno(), str(os.getpid()).encode())
            with self._shared((*TABLES, *ANSWERS), wait=wait):
                if sweep:
                    self.sweep()
                yield

    def _shared(
        self, folders: Sequence[str], *, wait: bool
    ) -> contextlib.AbstractContextManager[None]:
        """Hold the lease of a remote home; a local one needs none."""
        if self._mirror is None:
            return contextlib.nullcontext()
        return self._mirror.writing(folders, wait=wait)

    def leftovers(self) -> list[Path]:
        """Return what killed runs left under temporary names.

        Only the holder of the lock may ask: for others it could be what a run is writing.
        """
        # Votes and thumbnails are written without this lock, maybe just now.
        places = set(self.home.glob("*/")) - {self._judgements, self.web}
        found = list(self.home.glob(f"{TEMPORARY_PREFIX}*"))
        found += [path for place in places for path in place.glob(f"**/{TEMPORARY_PREFIX}*")]
        return sorted(path for path in found if not set(found) & set(path.parents))

    def sweep(self) -> None:
        """Remove the leftovers."""
        remove_all(self.leftovers())

    @contextlib.contextmanager
    def voting(self) -> Iterator[None]:
        """Hold the lock of the votes, for as long as writing one takes.

        It is another lock than `locked`, so that people can vote while an index is being built.

        Raises:
            StoreError: The file system refused.
        """
        with explained(self._judgements):
            self._judgements.mkdir(parents=True, exist_ok=True)
            handle = (self._judgements / "lock").open("a", encoding="utf-8")
        with handle:
            fcntl.flock(handle, fcntl.LOCK_EX)
            with self._shared(VOTES, wait=True):
                remove_all(self._judgements.glob(f"{TEMPORARY_PREFIX}*"))
                yield


def _listed(directory: Path, pattern: str) -> list[Path]:
    found = directory.glob(pattern)
    return sorted(path for path in found if not path.name.startswith(TEMPORARY_PREFIX))
