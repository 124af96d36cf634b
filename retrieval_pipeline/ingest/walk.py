"""The files of a source, local or remote: its pictures in a stable order, and what is beside."""

import os
import re
import stat
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from retrieval_pipeline.config.extensions import RAW, SIDECARS, VIDEOS
from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.errors import SourceError
from retrieval_pipeline.images.extras import can_read_raw
from retrieval_pipeline.images.signatures import SIGNATURE_BYTES, looks_like_a_picture
from retrieval_pipeline.ingest.manifest import FileRow, Status, version_of, why, within_64_bits
from retrieval_pipeline.paths import compile_globs, glob_matches, to_path, to_text
from retrieval_pipeline.storage.remote import Remote, RemoteError

# Folders that operating systems and NAS devices keep for themselves: no pictures of the user's.
SYSTEM_FOLDERS = frozenset(
    {"$recycle.bin", "system volume information", "@eadir", "#recycle", "lost+found", "__macosx"}
)
COMPANIONS = frozenset({*SIDECARS, *VIDEOS})
# Dates and numbers after the last dot are no extensions: a source would have thousands of them.
USUAL_EXTENSION = re.compile(r"\.(?=.*[a-z])[a-z0-9]{1,10}")


@dataclass
class Beside:
    """What a source holds beside its pictures; a walk fills it in.

    Attributes:
        companions: Files that may belong to a picture, by their extension (`extensions.SIDECARS`
            and `VIDEOS`). Of videos in a local source, size and time are not asked for: 0.
        not_looked_at: Number of all other files by extension, in lower case; "" for names that
            have none.
    """

    companions: list[FileRow] = field(default_factory=list)
    not_looked_at: Counter[str] = field(default_factory=Counter)


def walk(
    source: Source, skip: Path | None = None, beside: Beside | None = None, after: str = ""
) -> Iterator[FileRow]:
    """Yield the picture files of a source in a stable order, without reading them.

    Pictures are known by the extensions of the settings; with `source.sniff`, other names by the
    first bytes of their files. Left out are hidden and system folders, paths that the settings
    exclude, and sockets, FIFOs and devices. A directory that cannot be listed is yielded as an
    unreadable row. The directory `skip` (the home of the tables) is never entered.

    Args:
        source: Where to look, and for what.
        skip: The home of the tables.
        beside: Is told of all files that are not yielded and not left out.
        after: Path of a row, as it was yielded: begin after it, and list only the folders that come
            after it and those that it lies in. Object stores are always listed from the start.

    Raises:
        SourceError: The source's own directory is missing or cannot be listed.
    """
    beside = beside if beside is not None else Beside()
    if isinstance(source.path, Remote):
        yield from _walk_remote(source, source.path, beside)
        return
    yield from Tree(source, source.path, skip, beside, after).below([""])


def walk_paths(
    source: Source, paths: Collection[str], skip: Path | None = None, beside: Beside | None = None
) -> Iterator[FileRow]:
    """Yield what `walk` would yield of some files, and of all files below some folders.

    It lists the folders that these paths lie in, and nothing else. What is gone is not yielded.

    Args:
        source: A source on this machine.
        paths: Files and folders, relative to the source.
        skip: The home of the tables.
        beside: Is told of all other files at or below the paths, and of all companions that lie in
            the same folders as the paths.

    Raises:
        SourceError: The source's own directory is missing or cannot be listed.
    """
    assert not isinstance(source.path, Remote), "folders of object stores are prefixes of names"
    tree = Tree(source, source.path, skip, beside if beside is not None else Beside())
    tree.check_root()
    names_in: defaultdict[str, set[str]] = defaultdict(set)
    for path in outermost(paths):
        folder, slash, name = path.rpartition("/")
        names_in[folder + slash].add(name)
    for folder, names in sorted(names_in.items()):
        if tree.enters(folder):
            yield from tree.some(folder, names)


def outermost(paths: Collection[str]) -> set[str]:
    """Return the paths that do not lie below another one of them."""
    whole = set(paths)
    return {path for path in whole if whole.isdisjoint(folders_of(path))}


def folders_of(path: str) -> Iterator[str]:
    """Yield the folders that a path lies in, the nearest first."""
    while "/" in (path := path.rstrip("/")):
        path = path.rpartition("/")[0]
        yield path


class Tree:
    """The directory of a local source, seen by the rules of its settings."""

    def __init__(
        self, source: Source, root: Path, skip: Path | None, beside: Beside, after: str = ""
    ) -> None:
        self._source, self._root, self._beside = source, os.fspath(root), beside
        self._exclude = compile_globs(source.exclude)
        self._wanted = readable_extensions(source)
        self._after = _order(to_path(after)) if after else []
        self._skip = os.fspath(skip) if skip else None
        self._entered = {_identity(self._root), self._skipped}

    @property
    def _skipped(self) -> tuple[int, int] | None:
        # The home may be made after this object.
        return _identity(self._skip) if self._skip else None

    def check_root(self) -> None:
        """Raise SourceError if the source's own directory is missing or cannot be listed."""
        try:
            os.scandir(self._root).close()
        except OSError as error:
            raise SourceError(_no_root(self._source, error)) from None

    def enters(self, folder: str) -> bool:
        """Return whether a walk comes to a relative path, of a folder or of what was there."""
        skipped = self._skipped
        for path in (folder.rstrip("/"), *folders_of(folder)) if folder else ():
            full = os.path.join(self._root, path)
            if (
                _is_private(path.rpartition("/")[2])
                or glob_matches(self._exclude, path)
                or (not self._source.follow_symlinks and os.path.islink(full))
                or (skipped is not None and _identity(full) == skipped)
            ):
                return False
        return True

    def below(self, folders: list[str]) -> Iterator[FileRow]:
        """Yield the files of folders, and of all folders below them."""
        pending = list(reversed(folders))
        while pending:
            relative = pending.pop()
            try:
                with os.scandir(os.path.join(self._root, relative)) as listing:
                    entries = sorted(listing, key=lambda entry: entry.name)
            except OSError as error:
                if not relative:
                    raise SourceError(_no_root(self._source, error)) from None
                yield FileRow(to_text(relative), 0, 0, status=Status.UNREADABLE, error=why(error))
                continue
            found: list[str] = []
            yield from self._files(relative, entries, found)
            pending.extend(reversed(found))

    def some(self, relative: str, names: Collection[str]) -> Iterator[FileRow]:
        """Yield the files of a folder that have these names, and all files below such folders."""
        try:
            with os.scandir(os.path.join(self._root, relative)) as listing:
                entries = sorted(
                    (entry for entry in listing if entry.name in names or _is_companion(entry)),
                    key=lambda entry: entry.name,
                )
        except (FileNotFoundError, NotADirectoryError):
            return
        except OSError as error:
            yield FileRow(to_text(relative), 0, 0, status=Status.UNREADABLE, error=why(error))
            return
        found: list[str] = []
        yield from self._files(relative, entries, found)
        yield from self.below(found)

    def _files(
        self, relative: str, entries: Sequence[os.DirEntry[str]], folders: list[str]
    ) -> Iterator[FileRow]:
        """Yield the picture files among the entries of a folder; add folders to enter."""
        for entry in entries:
            if _is_private(entry.name):
                continue
            path = f"{relative}{entry.name}"
            if glob_matches(self._exclude, path):
                continue
            try:
                if not self._source.follow_symlinks and entry.is_symlink():
                    continue
                is_folder = entry.is_dir()
                if self._after and self._is_done(f"{path}/" if is_folder else path):
                    continue
                if is_folder:
                    # The same directory can be reached twice through links; loops end here.
                    identity = _identity(entry.path)
                    # A directory without an identity cannot be listed either: that will say why.
                    if identity is None or identity not in self._entered:
                        self._entered.add(identity)
                        folders.append(f"{path}/")
                    continue
                extension = os.path.splitext(entry.name)[1].lower()
                if extension not in self._wanted and not _is_sniffed(
                    self._source, entry, extension
                ):
                    if entry.is_file():
                        _note(self._beside, path, extension, entry)
                    continue
                info = entry.stat()
            except OSError as error:
                if not self._after or not self._is_done(path):
                    yield FileRow(to_text(path), 0, 0, status=Status.UNREADABLE, error=why(error))
                continue
            if stat.S_ISREG(info.st_mode):
                yield FileRow(to_text(path), info.st_size, within_64_bits(info.st_mtime_ns))

    def _is_done(self, path: str) -> bool:
        """Return whether the walk begins after all rows of a path."""
        mine = _order(path)
        return mine == self._after or mine < self._after[: len(mine)]


def _order(path: str) -> list[tuple[bool, str]]:
    """Return what puts paths in the order of a walk: the files of a folder before its folders."""
    *folders, name = path.split("/")
    return [*((True, folder) for folder in folders), *([(False, name)] if name else [])]


def _is_companion(entry: os.DirEntry[str]) -> bool:
    return os.path.splitext(entry.name)[1].lower() in COMPANIONS


def _walk_remote(source: Source, root: Remote, beside: Beside) -> Iterator[FileRow]:
    exclude = compile_globs(source.exclude)
    wanted = readable_extensions(source)
    try:
        listing = root.files()
    except RemoteError as error:
        raise SourceError(_no_root(source, error)) from None
    for info in listing:
        folders = info.path.split("/")
        upwards = ("/".join(folders[:depth]) for depth in range(1, len(folders) + 1))
        if any(map(_is_private, folders)) or (
            exclude is not None and any(glob_matches(exclude, path) for path in upwards)
        ):
            continue
        extension = os.path.splitext(folders[-1])[1].lower()
        row = FileRow(to_text(info.path), *version_of(info))
        if extension in wanted or _is_sniffed(source, root / info.path, extension):
            yield row
        elif extension in COMPANIONS:
            beside.companions.append(row)
        else:
            beside.not_looked_at[counted_as(info.path)] += 1


def readable_extensions(source: Source) -> frozenset[str]:
    """Return the extensions of a source's pictures, without those that no installed decoder reads.

    A RAW file would be told as one in any case; without rawpy, it is better counted by its
    extension than listed in quarantine. Its tiny thumbnail, which Pillow finds, is not the picture.
    """
    wanted = {*source.extensions, *source.more_extensions}
    return frozenset(wanted if can_read_raw() else wanted - {*RAW})


def counted_as(path: str) -> str:
    """Return the extension under which a file is counted; "" for what is no usual one."""
    extension = os.path.splitext(path)[1].lower()
    return extension if USUAL_EXTENSION.fullmatch(extension) else ""


def _is_sniffed(source: Source, file: os.DirEntry[str] | Remote, extension: str) -> bool:
    """Tell whether a file is a picture by its first bytes, if the settings ask for that.

    A file that cannot be read is taken for a picture: hashing it will say what is wrong.
    """
    if not source.sniff or extension in RAW:
        return False
    try:
        if isinstance(file, Remote):
            start = file.start(SIGNATURE_BYTES)
        elif file.is_file():  # a device may act on being opened
            descriptor = os.open(file.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
            try:
                start = os.read(descriptor, SIGNATURE_BYTES)
            finally:
                os.close(descriptor)
        else:
            return False
    except OSError:
        return True
    return looks_like_a_picture(start)


def _note(beside: Beside, path: str, extension: str, entry: os.DirEntry[str]) -> None:
    """Count a file that is no picture, or keep it as a companion of one."""
    if extension in VIDEOS:
        beside.companions.append(FileRow(to_text(path), 0, 0))
    elif extension in SIDECARS:
        info = entry.stat()
        row = FileRow(to_text(path), info.st_size, within_64_bits(info.st_mtime_ns))
        beside.companions.append(row)
    else:
        beside.not_looked_at[counted_as(path)] += 1


def _no_root(source: Source, error: OSError) -> str:
    if isinstance(error, RemoteError):
        return f'source "{source.name}": {error}. Nothing was deleted'
    if isinstance(error, FileNotFoundError):
        what = "does not exist. Is the disk mounted?"
    elif isinstance(error, NotADirectoryError):
        what = "is not a directory."
    else:
        what = f"cannot be listed: {why(error)}."
    return f'source "{source.name}": {source.path} {what} Nothing was deleted'


def _is_private(name: str) -> bool:
    return name.startswith(".") or name.lower() in SYSTEM_FOLDERS


def _identity(path: str) -> tuple[int, int] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_dev, info.st_ino
