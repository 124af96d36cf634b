"""The paths of all tables and files under `home`, and the locks of those who write them.

No other module builds a path under `home`.
"""

import contextlib
import functools
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.storage.atomic import explained, remove_all, replacing
from retrieval_pipeline.storage.home import MARKER, check_home, mark_home
from retrieval_pipeline.storage.locks import BusyError, exclusive
from retrieval_pipeline.storage.names import (
    ALBUM_NAME,
    BLOCK_NAME,
    BLOCKS,
    BUILD_NAME,
    COLLECTION_NAME,
    CONTENTS,
    INT8_CHECK,
    PART_NAME,
    QUARANTINE_NAME,
    SAVED_NAME,
    SEARCH_NAME,
    SEGMENT_NAME,
    SEGMENTS,
    SET_ASIDE,
    SOURCE_NAME,
    SPACE_KEY,
    TABLE_NAME,
    TEMPORARY_NAME,
    VIEWS_NAME,
    file_name_of,
)
from retrieval_pipeline.storage.parts import part_numbers, parts_in
from retrieval_pipeline.storage.reading import is_there, listed, mapped, reading
from retrieval_pipeline.storage.remote import Place, Remote
from retrieval_pipeline.storage.sync import ANSWERS, TABLES, USER_DATA, Mirror, copy_of
from retrieval_pipeline.vectors import VectorSpace


def segments_beside(build: Path) -> Path:
    """Return the directory of the segments that the builds beside a build have in common."""
    return build.parent / SEGMENTS


def blocks_beside(build: Path) -> Path:
    """Return the directory of the blocks that the builds beside a build have in common."""
    return build.parent / BLOCKS


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
        """File that the writing run locks; it holds its process id and how far it is."""
        return self.home / "lock"

    def manifest(self, source: str) -> Path:
        """Return the path of the table of the files of one source."""
        return self.home / "manifest" / f"{source}.parquet"

    def sidecars(self, source: str) -> Path:
        """Return the path of the table of the files that hold facts of one source's pictures."""
        return self.home / "sidecars" / f"{source}.parquet"

    def facts(self, source: str) -> Path:
        """Return the path of the table of the facts of one source's pictures."""
        return self.home / "facts" / f"{source}.parquet"

    def embeddings(self, space: VectorSpace, source: str | None = None) -> Path:
        """Return the directory of one source's embedding parts, or of those of all sources."""
        directory = self.home / "embeddings" / space.key
        return directory / source if source else directory

    def parts(self, space: VectorSpace, source: str | None = None) -> list[Path]:
        """Return the embedding parts of one source, or of all sources, in a stable order."""
        return self._parts(space, source, PART_NAME)

    def view_parts(self, space: VectorSpace, source: str | None = None) -> list[Path]:
        """Return the parts with vectors of further views; as `parts` does."""
        return self._parts(space, source, VIEWS_NAME)

    def _parts(self, space: VectorSpace, source: str | None, names: re.Pattern[str]) -> list[Path]:
        # One source is looked up without listing all: a run asks for each of them several times.
        directories = (
            listed(self.embeddings(space), SOURCE_NAME, directories=True)
            if source is None
            else [self.embeddings(space, source)]
        )
        return [part for directory in directories for part in parts_in(directory, names)[0]]

    def next_part(self, space: VectorSpace, source: str) -> Path:
        """Return the path of the part to write next."""
        return self._next(space, source, "part", self.parts(space, source))

    def next_view_part(self, space: VectorSpace, source: str) -> Path:
        """Return the path of the part with vectors of further views to write next."""
        return self._next(space, source, "views", self.view_parts(space, source))

    def _next(self, space: VectorSpace, source: str, table: str, parts: list[Path]) -> Path:
        last = max((part_numbers(part)[1] for part in parts), default=0)
        return self.embeddings(space, source) / f"{table}-{last + 1:06d}.parquet"

    def quarantine(self, space: VectorSpace, source: str) -> Path:
        """Return the path of the table of one source's images that could not be embedded."""
        return self.embeddings(space, source) / "quarantine.parquet"

    def int8_check(self, space: VectorSpace) -> Path:
        """Return the path of what the check of a vector space of eight bits found."""
        return self.embeddings(space) / INT8_CHECK

    def int8_checks(self) -> list[Path]:
        """Return the files of all checks of eight bits."""
        found = (space / INT8_CHECK for space in self.embedding_spaces())
        return [path for path in found if is_there(path)]

    def manifests(self) -> list[Path]:
        """Return every manifest, also those of sources that left the settings."""
        return listed(self.home / "manifest", TABLE_NAME)

    def fact_tables(self) -> tuple[list[Path], list[Path]]:
        """Return every table of facts, and every table of sidecars, former sources included."""
        return listed(self.home / "facts", TABLE_NAME), listed(self.home / "sidecars", TABLE_NAME)

    def embedding_spaces(self) -> list[Path]:
        """Return the directory of every vector space with embeddings, former models included."""
        return listed(self.home / "embeddings", SPACE_KEY, directories=True)

    def embedding_directories(self) -> list[Path]:
        """Return the directory of every source in every vector space, former sources included."""
        spaces = self.embedding_spaces()
        return [path for space in spaces for path in listed(space, SOURCE_NAME, directories=True)]

    def embedding_tables(self) -> tuple[list[Path], list[Path]]:
        """Return every embedding part, and every quarantine, of all vector spaces and sources."""
        directories = self.embedding_directories()
        return (
            [part for directory in directories for part in parts_in(directory)[0]],
            [path for directory in directories for path in listed(directory, QUARANTINE_NAME)],
        )

    def all_view_parts(self) -> list[Path]:
        """Return every part with vectors of further views, of all vector spaces and sources."""
        return [
            part
            for directory in self.embedding_directories()
            for part in parts_in(directory, VIEWS_NAME)[0]
        ]

    def all_builds(self) -> list[Path]:
        """Return every build of every vector space, oldest first within a space."""
        spaces = listed(self.home / "index", SPACE_KEY, directories=True)
        return [build for space in spaces for build in listed(space, BUILD_NAME, directories=True)]

    def builds(self, space: VectorSpace) -> list[Path]:
        """Return the builds of one vector space, oldest first."""
        return [build for build in self.all_builds() if build.parent.name == space.key]

    def segments(self, space: VectorSpace) -> Path:
        """Return the directory of the segments of one vector space."""
        return self.home / "index" / space.key / SEGMENTS

    def blocks(self, space: VectorSpace) -> Path:
        """Return the directory of the blocks of one vector space."""
        return self.home / "index" / space.key / BLOCKS

    def all_segments(self) -> list[Path]:
        """Return every segment of every vector space."""
        spaces = listed(self.home / "index", SPACE_KEY, directories=True)
        return [
            path
            for space in spaces
            for path in listed(space / SEGMENTS, SEGMENT_NAME, directories=True)
        ]

    def all_blocks(self) -> list[Path]:
        """Return every file beside the blocks of every vector space."""
        spaces = listed(self.home / "index", SPACE_KEY, directories=True)
        return [path for space in spaces for path in listed(space / BLOCKS, BLOCK_NAME)]

    def new_build(self, space: VectorSpace, name: str) -> Path:
        """Return the path of a build to write: `name`, with a number after it if it is taken."""
        path = self.home / "index" / space.key / name
        number = 1
        while is_there(path):
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
            StoreError: The pointer is damaged, the directory is no home, or the remote home is out
                of reach.
            UnreadableError: The pointer cannot be read.
        """
        if self._mirror is not None:
            self._mirror.refresh({ANSWERS: self.lock_file, USER_DATA: self._judgements / "lock"})
        check_home(self.home)
        try:
            with reading(self.current_file):
                text = self.current_file.read_text(encoding="utf-8").strip()
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise StoreError(
                f"{self.current_file}: damaged ({error}): run `retrieval index`"
            ) from None
        parts = text.split("/")
        if len(parts) != 2 or any(part in ("", ".", "..") for part in parts):
            raise StoreError(
                f"{self.current_file}: does not name a build: {text!r}. Run `retrieval index`"
            )
        return self.home / "index" / parts[0] / parts[1]

    def engine(self, collection: str) -> Path:
        """Directory of what was sent to a collection of an engine."""
        return self.home / "engine" / collection

    def engine_collections(self) -> list[Path]:
        """Directories of all collections that something was sent to."""
        return listed(self.home / "engine", COLLECTION_NAME, directories=True)

    @property
    def held_file(self) -> Path:
        """File that exists while people hold the current build: no newer one replaces it then."""
        return self.home / "index" / "HELD"

    def hold(self, build: Path) -> None:
        """Make `build` the current one, atomically, and keep it so until `release`.

        Raises:
            StoreError: The file system refused.
        """
        self.hold_engine()
        self.publish(build)

    def hold_engine(self) -> None:
        """Keep what answers until `release`: no newer index replaces it.

        Raises:
            StoreError: The file system refused.
        """
        with replacing(self.held_file) as temporary:
            temporary.touch()

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
        return listed(self._judgements, TABLE_NAME)

    @property
    def _judgements(self) -> Path:
        return self.home / "judgements"

    @property
    def labels(self) -> Path:
        """The table of the pictures' labels."""
        return self.home / "labels" / "labels.parquet"

    def album(self, name: str) -> Path:
        """Return the path of the table of one album, of which people chose the name."""
        return self._albums / f"{file_name_of(name)}.parquet"

    def albums(self) -> list[Path]:
        """Return the tables of all albums, sorted by file name."""
        return listed(self._albums, ALBUM_NAME)

    @property
    def _albums(self) -> Path:
        return self.home / "albums"

    def saved_search(self, name: str) -> Path:
        """Return the path of the JSON file of one search that somebody saved under this name."""
        return self._searches / f"{file_name_of(name)}.json"

    def saved_searches(self) -> list[Path]:
        """Return the files of all searches that people saved, sorted by file name."""
        return listed(self._searches, SEARCH_NAME)

    @property
    def _searches(self) -> Path:
        return self.home / "searches"

    def saved_query(self, name: str) -> Path:
        """Return the path of the JSON file of what one saved query has found so far."""
        return self.home / "saved" / f"{name}.json"

    def saved_queries(self) -> list[Path]:
        """Return the files of all saved queries, also of those that left the settings."""
        return listed(self.home / "saved", SAVED_NAME)

    def map(self, build: str) -> Path:
        """Return the directory of the map of a build."""
        return self.home / "map" / build

    def maps(self) -> list[Path]:
        """Return the directory of every map, in the order in which they were drawn."""
        with reading(self.home / "map"):
            directories = listed(self.home / "map", BUILD_NAME, directories=True)
            return sorted(directories, key=lambda path: path.stat().st_mtime_ns)

    @property
    def damaged(self) -> Path:
        """Directory of the damaged files that a repair moved away."""
        return self.home / "damaged"

    def damaged_files(self) -> list[Path]:
        """Return the files and directories that repairs have moved into `damaged`."""
        found = self.damaged.glob("*/**/*") if self.is_inside(self.damaged) else ()
        return sorted(
            path
            for path in found
            if re.fullmatch(SET_ASIDE, path.relative_to(self.damaged).as_posix())
        )

    def is_removable(self, path: Path) -> bool:
        """Return whether a path that the store made holds nothing that others have put there.

        A file of the store is removable. So is a directory of a vector space, a source, a build or
        a map if all the names in it are the store's. Nothing is that lies behind a symbolic link.

        Raises:
            UnreadableError: The directory cannot be listed.
        """
        if not self.is_inside(path):
            return False
        if not path.is_dir():
            return True
        relative = path.relative_to(self.home).as_posix()
        names = next((names for of, names in CONTENTS.items() if re.fullmatch(of, relative)), None)
        return names is not None and all(
            re.fullmatch(names, each.relative_to(path).as_posix())
            or any(TEMPORARY_NAME.fullmatch(step) for step in each.relative_to(path).parts)
            for each in self._below(path)
        )

    def is_inside(self, path: Path) -> bool:
        """Return whether no symbolic link leads from home to a path, the path included."""
        steps = [path, *path.parents]
        return not any(step.is_symlink() for step in steps[: steps.index(self.home)])

    def _below(self, directory: Path) -> Iterator[Path]:
        """Yield all files and directories below one, not following symbolic links."""

        def fail(error: OSError) -> None:
            raise error

        with reading(directory):
            for parent, folders, files in os.walk(directory, onerror=fail):
                yield from (Path(parent, name) for name in (*folders, *files))

    def set_aside(self, path: Path) -> Path:
        """Move a damaged file or directory into `damaged`, and return its new path.

        Raises:
            StoreError: The file system refused.
        """
        target = self.damaged / path.relative_to(self.home)
        if not self.is_inside(target.parent):
            raise StoreError(f"{target.parent}: leads out of home by a symbolic link: remove that")
        while is_there(target):
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
        """Hold the lock of all tables but the user data; readers need no lock.

        The kernel frees the lock of a process that dies.

        Args:
            wait: Wait for another holder instead of failing.
            sweep: First remove what killed runs left under temporary names.

        Raises:
            StoreError: Another run holds the lock, and `wait` is false (the message names its
                process id); or the file system refused.
        """
        self._make_home()
        with contextlib.ExitStack() as stack:
            try:
                handle = stack.enter_context(exclusive(self.lock_file, wait=wait))
            except BusyError as holder:
                raise StoreError(
                    f"{self.home} is being written by another run ({holder}): "
                    "wait for it or stop it, then run again"
                ) from None
            with explained(self.lock_file):
                os.ftruncate(handle.fileno(), 0)
                os.write(handle.fileno(), str(os.getpid()).encode())
            mark_home(self.home)
            # A home where builds cannot be opened is refused before hours of work go into it.
            mapped(self.home / MARKER).close()
            with self._shared((*TABLES, *ANSWERS), wait=wait):
                if sweep:
                    self.sweep()
                yield

    def _make_home(self) -> None:
        """Make the directory `home` if there is none.

        Raises:
            StoreError: It holds files of others, or the file system refused.
        """
        check_home(self.home)
        with explained(self.home):
            self.home.mkdir(parents=True, exist_ok=True)

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
        # User data and thumbnails are written without this lock, maybe just now.
        names = (
            *("manifest", "sidecars", "facts", "embeddings", "engine"),
            *("index", "map", "labels", "last-map", "saved", "mirror"),
        )
        places = [
            self.home,
            *(self.home / name for name in names),
            *self.embedding_spaces(),
            *self.embedding_directories(),
            *self._index_directories(),
            *self.all_builds(),
            *self.all_segments(),
            *self.engine_collections(),
        ]
        return sorted(path for place in places for path in self._temporaries(place))

    def _index_directories(self) -> list[Path]:
        spaces = listed(self.home / "index", SPACE_KEY, directories=True)
        return [path for space in spaces for path in (space, space / SEGMENTS, space / BLOCKS)]

    def _temporaries(self, directory: Path) -> list[Path]:
        """Return the temporary files and directories of the store in one directory of home."""
        if not self.is_inside(directory):
            return []
        found = [
            *listed(directory, TEMPORARY_NAME),
            *listed(directory, TEMPORARY_NAME, directories=True),
        ]
        return [path for path in found if not path.is_symlink()]

    def sweep(self) -> None:
        """Remove the leftovers.

        Raises:
            StoreError: The file system refused.
        """
        with explained(self.home, "tidied"):
            remove_all(self.leftovers())

    @contextlib.contextmanager
    def writing_user_data(self) -> Iterator[None]:
        """Hold the lock of votes, albums and saved searches, for as long as writing one takes.

        It is another lock than `locked`, so that people can vote while an index is being built.

        Raises:
            StoreError: The file system refused.
        """
        self._make_home()
        mark_home(self.home)
        with explained(self._judgements):
            self._judgements.mkdir(parents=True, exist_ok=True)
        with (
            exclusive(self._judgements / "lock", wait=True),
            self._shared(USER_DATA, wait=True),
        ):
            for directory in (self._judgements, self._albums, self._searches):
                with explained(directory, "tidied"):
                    remove_all(self._temporaries(directory))
            yield
