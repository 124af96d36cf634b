"""Files and directories that appear whole or not at all."""

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterable, Iterator
from pathlib import Path

from retrieval_pipeline.errors import StoreError

TEMPORARY_PREFIX = ".tmp-"


def remove_all(leftovers: Iterable[Path]) -> None:
    """Remove what killed runs left under temporary names; only a lock's holder may."""
    for leftover in leftovers:
        if leftover.is_dir():
            shutil.rmtree(leftover)
        else:
            leftover.unlink()


@contextlib.contextmanager
def explained(path: Path, done: str = "written") -> Iterator[None]:
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
    with explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = _temporary(path)
    try:
        with explained(path):
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
        with explained(directory):
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
        with explained(path):
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
    with explained(path, "removed"):
        path.replace(temporary)
        remove_all([temporary])
