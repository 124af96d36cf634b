"""The files of a source, local or remote: listed in a stable order, without reading them."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from retrieval_pipeline.config.settings import Source
from retrieval_pipeline.errors import SourceError
from retrieval_pipeline.ingest.manifest import FileRow, Status, version_of, why, within_64_bits
from retrieval_pipeline.paths import compile_globs, glob_matches, to_text
from retrieval_pipeline.storage.remote import Remote, RemoteError

# Folders that operating systems and NAS devices keep for themselves: no pictures of the user's.
SYSTEM_FOLDERS = frozenset(
    {"$recycle.bin", "system volume information", "@eadir", "#recycle", "lost+found", "__macosx"}
)


def walk(source: Source, skip: Path | None = None) -> Iterator[FileRow]:
    """Yield the files of a source in a stable order, without reading them.

    Left out are hidden and system folders, paths that the settings exclude, and sockets, FIFOs and
    devices. A directory that cannot be listed is yielded as an unreadable row. The directory
    `skip` (the home of the tables) is never entered.

    Raises:
        SourceError: The source's own directory is missing or cannot be listed.
    """
    if isinstance(source.path, Remote):
        yield from _walk_remote(source, source.path)
        return
    root = os.fspath(source.path)
    exclude = compile_globs(source.exclude)
    entered = {_identity(root), _identity(os.fspath(skip)) if skip else None}
    pending = [""]
    while pending:
        relative = pending.pop()
        try:
            with os.scandir(os.path.join(root, relative)) as listing:
                entries = sorted(listing, key=lambda entry: entry.name)
        except OSError as error:
            if not relative:
                raise SourceError(_no_root(source, error)) from None
            yield FileRow(to_text(relative), 0, 0, status=Status.UNREADABLE, error=why(error))
            continue
        folders: list[str] = []
        for entry in entries:
            if _is_private(entry.name):
                continue
            path = f"{relative}{entry.name}"
            if glob_matches(exclude, path):
                continue
            try:
                if not source.follow_symlinks and entry.is_symlink():
                    continue
                if entry.is_dir():
                    # The same directory can be reached twice through links; loops end here.
                    identity = _identity(entry.path)
                    # A directory without an identity cannot be listed either: that will say why.
                    if identity is None or identity not in entered:
                        entered.add(identity)
                        folders.append(f"{path}/")
                    continue
                if os.path.splitext(entry.name)[1].lower() not in source.extensions:
                    continue
                info = entry.stat()
            except OSError as error:
                yield FileRow(to_text(path), 0, 0, status=Status.UNREADABLE, error=why(error))
                continue
            if stat.S_ISREG(info.st_mode):
                yield FileRow(to_text(path), info.st_size, within_64_bits(info.st_mtime_ns))
        pending.extend(reversed(folders))


def _walk_remote(source: Source, root: Remote) -> Iterator[FileRow]:
    exclude = compile_globs(source.exclude)
    try:
        listing = root.files()
    except RemoteError as error:
        raise SourceError(_no_root(source, error)) from None
    for info in listing:
        folders = info.path.split("/")
        if any(map(_is_private, folders)) or f".{info.extension}".lower() not in source.extensions:
            continue
        upwards = ("/".join(folders[:depth]) for depth in range(1, len(folders) + 1))
        if exclude is None or not any(glob_matches(exclude, path) for path in upwards):
            yield FileRow(to_text(info.path), *version_of(info))


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
