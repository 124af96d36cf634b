"""The files that the index names, and whether they may be handed out."""

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from blake3 import blake3

from retrieval_pipeline.config.settings import Settings, Source
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.paths import to_path
from retrieval_pipeline.storage.content_id import CHUNK_BYTES, DIGEST_BYTES
from retrieval_pipeline.storage.remote import Place, Remote, RemoteError

# Copies up to this size are kept in memory, larger ones on the disk, until they are sent.
KEPT_IN_MEMORY = 32 << 20
# A pipe that took the place of a file must not make the server wait for its writer.
READ = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


class GoneError(Exception):
    """No file of a picture can be handed out; the message says why."""


def file_of(settings: Settings, location: Location) -> Place:
    """Return the file of a location, with all links resolved, if it lies inside its source.

    What lies behind a link inside a source that follows links belongs to that source.

    Raises:
        GoneError: It does not, or is no longer there.
    """
    source = source_of(settings, location)
    path = to_path(location.path)
    if isinstance(source.path, Remote):
        return _remote_file(source.path, path)
    return _local_file(source.path, path, anywhere=source.follow_symlinks)


def _local_file(root: Path, path: str, *, anywhere: bool) -> Path:
    """Return a file with all links resolved; below its root, unless it may lie `anywhere`."""
    try:
        file = (root / path).resolve(strict=True)
        inside = file.is_relative_to(root.resolve(strict=True))
    except (OSError, RuntimeError, ValueError):
        raise GoneError("the file is not there any more") from None
    if not inside and not anywhere:
        raise GoneError("the file lies outside of its source")
    if not file.is_file():
        raise GoneError("it is not a regular file")
    return file


def verified_copy(settings: Settings, location: Location, content_id: str) -> IO[bytes]:
    """Return a private copy of the file's bytes, at its start, if they are those of `content_id`.

    The file is opened once, below its source and without following links, and only what was hashed
    is handed out: whatever is renamed, linked or overwritten meanwhile changes nothing.

    Raises:
        GoneError: The file is not there, lies outside its source or holds other bytes by now.
        OSError: There is no room for the copy.
    """
    hasher = blake3()
    with contextlib.ExitStack() as stack:
        copy = stack.enter_context(tempfile.SpooledTemporaryFile(KEPT_IN_MEMORY))
        try:
            for chunk in _chunks(settings, location):
                hasher.update(chunk)
                copy.write(chunk)
        except RemoteError:
            raise GoneError("the file is not there any more") from None
        if hasher.hexdigest(length=DIGEST_BYTES) != content_id:
            raise GoneError("the file holds another picture by now")
        copy.seek(0)
        stack.pop_all()
        return copy


def _chunks(settings: Settings, location: Location) -> Iterator[bytes]:
    """Yield the bytes of a location's file; raises GoneError."""
    source = source_of(settings, location)
    path = to_path(location.path)
    if isinstance(source.path, Remote):
        yield from _remote_file(source.path, path).chunks()
        return
    try:
        # Behind the links of a source that follows them, any place is meant.
        descriptor = (
            os.open(_local_file(source.path, path, anywhere=True), READ)
            if source.follow_symlinks
            else _open_beneath(source.path, path)
        )
        with open(descriptor, "rb", buffering=0) as file:  # noqa: PTH123 (a descriptor)
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise GoneError("it is not a regular file")
            while chunk := file.read(CHUNK_BYTES):
                yield chunk
    except (OSError, ValueError) as error:
        if isinstance(error, OSError) and error.errno in (errno.ELOOP, errno.ENOTDIR):
            raise GoneError("a link leads there, maybe outside of the source") from None
        raise GoneError("the file is not there any more") from None


def _open_beneath(root: Path, path: str) -> int:
    """Open a file below a directory and return its descriptor; no link below it is followed.

    Raises:
        OSError: There is no such file, or a part of its path is a link.
        GoneError: The path leads out of the directory.
    """
    *folders, name = path.split("/")
    if {"", ".", ".."} & {*folders, name}:
        raise GoneError("the file lies outside of its source")
    descriptor = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
            below = os.open(folder, flags, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        return os.open(name, READ | os.O_NOFOLLOW, dir_fd=descriptor)
    finally:
        os.close(descriptor)


def source_of(settings: Settings, location: Location) -> Source:
    """Return the source of a location; raises GoneError if it left the settings."""
    source = next((each for each in settings.sources if each.name == location.source), None)
    if source is None:
        raise GoneError(f'the source "{location.source}" is not in the settings any more')
    return source


def _remote_file(root: Remote, path: str) -> Remote:
    """Return a file below a root that knows no links."""
    if ".." in path.split("/"):
        raise GoneError("the file lies outside of its source")
    file = root / path
    if not file.exists():
        raise GoneError("the file is not there any more")
    return file
