"""Atomic writing: a file or directory appears complete or not at all.

It is written under a temporary name in the same directory, synced to the disk and renamed.
"""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from retrieval_pipeline.errors import StoreError

TEMPORARY_PREFIX = ".tmp-"

_NO_DIRECTORY_SYNC = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


def remove_all(leftovers: Iterable[Path]) -> None:
    """Remove temporary files and directories that killed runs left.

    Only the holder of the lock may call this: anybody else could remove what a running process is
    writing.
    """
    for leftover in leftovers:
        # Of a symbolic link, the link goes and what it names stays.
        if leftover.is_dir() and not leftover.is_symlink():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


@contextlib.contextmanager
def explained(path: Path, done: str = "written") -> Iterator[None]:
    """Turn an error of the file system into a StoreError of one line.

    Args:
        path: What is worked on; the message names it.
        done: What was to be done to it, for the message: "written", "removed", "moved".

    Raises:
        StoreError: The file system refused.
    """
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
    """Return whether the disk has less than 64 kB free.

    NumPy and Annoy raise errors without a number when they could not write everything.
    """
    there = next(parent for parent in path.absolute().parents if parent.exists())
    return shutil.disk_usage(there).free < 1 << 16


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network and FUSE file systems sync files only; renames reach the disk a bit later.
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)


def temporary_path(path: Path) -> Path:
    """Return a new temporary name beside `path`; its form is `names.TEMPORARY_NAME`."""
    return path.parent / f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:12]}-{path.name}"


def check_replaceable(path: Path) -> None:
    """Refuse to put a file in the place of a device, a pipe or a socket.

    Raises:
        StoreError: It is one, or a link to one.
    """
    with explained(path):
        if path.exists() and not (path.is_file() or path.is_dir()):
            raise StoreError(
                f"{path} is a device or a pipe, which no file may replace: name a file"
            )


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; the file written there replaces `path` at the end.

    If the block raises, the temporary file is removed and `path` stays as it was.

    Raises:
        StoreError: The file system refused, or `path` is no file; it is as it was.
    """
    check_replaceable(path)
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = temporary_path(path)
    try:
        with explained(path):
            yield temporary
            with temporary.open("rb") as handle:
                os.fsync(handle.fileno())
            temporary.replace(path)
            _sync_directory(path.parent)
    finally:
        # What stays is swept by the next run; it must not hide the error that brought us here.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def scratch(directory: Path) -> Iterator[Path]:
    """Yield a temporary path in a directory; the file written there is removed at the end.

    Raises:
        StoreError: The file system refused.
    """
    temporary = temporary_path(directory / "scratch")
    try:
        with explained(directory):
            directory.mkdir(parents=True, exist_ok=True)
            yield temporary
    finally:
        # What stays is swept by the next run; it must not hide the error that brought us here.
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def new_directory(path: Path, *, replaces: bool = False) -> Iterator[Path]:
    """Yield a temporary directory beside `path`, which is renamed to `path` at the end.

    If the block raises, the directory is removed, and there is no `path`, or still the one before.

    Args:
        path: The directory.
        replaces: Whether another directory of that name makes way. What processes have mapped into
            memory of it stays readable.

    Raises:
        StoreError: The file system refused.
    """
    temporary = temporary_path(path)
    try:
        with explained(path):
            temporary.mkdir(parents=True)
            yield temporary
            for file in temporary.iterdir():
                with file.open("rb") as handle:
                    os.fsync(handle.fileno())
            _sync_directory(temporary)
            if replaces and path.exists():
                discard(path)
            temporary.replace(path)
            _sync_directory(path.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def discard(path: Path) -> None:
    """Remove a file or directory so that readers see all of it or nothing.

    It is renamed to a temporary name first. A run that is killed while it removes the rest leaves
    that name, which the next run sweeps.

    Raises:
        StoreError: The file system refused.
    """
    temporary = temporary_path(path)
    with explained(path, "removed"):
        path.replace(temporary)
        remove_all([temporary])
