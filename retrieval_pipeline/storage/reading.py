"""Reading stored files so that a refusal of the operating system is told apart from damage.

Damage is a file that is missing, or whose bytes were read and are not what they must be. A file
that cannot be read (no permission, an I/O error, too many open files, no memory) may be sound:
nobody may repair, replace or collect anything because of it.
"""

import contextlib
import errno
import mmap
import os
import re
from collections.abc import Iterator
from pathlib import Path

from retrieval_pipeline.errors import UnreadableError

# There is nothing, or not a file. Everything else says nothing about the file.
MISSING = frozenset({errno.ENOENT, errno.ENOTDIR, errno.EISDIR})

NO_MAPPING = (
    "its file system cannot map files into memory, which a home needs: choose a `home` on another "
    "one (docs/operations.md)"
)
_NO_MAPPING_ERRNOS = frozenset({errno.ENODEV, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an error of the operating system into an UnreadableError.

    Errors without a number come from a library that found the bytes wrong; they and errors that
    say that the file is missing pass unchanged.

    Raises:
        UnreadableError: The operating system refused, or there is no memory.
    """
    try:
        yield
    except MemoryError as error:
        raise unreadable(path, os.strerror(errno.ENOMEM)) from error
    except OSError as error:
        if error.errno is None or error.errno in MISSING:
            raise
        if error.errno in _NO_MAPPING_ERRNOS:
            raise UnreadableError(f"{path}: cannot be read: {NO_MAPPING}") from error
        raise unreadable(path, os.strerror(error.errno)) from error


def unreadable(path: Path, why: str) -> UnreadableError:
    """Return the error of a file that cannot be read, which need not be damaged."""
    return UnreadableError(
        f"{path}: cannot be read: {why}. That is no sign of damage: make it readable, then try "
        "again"
    )


def mapped(path: Path) -> mmap.mmap:
    """Map a file into memory, to be read only.

    PyArrow and Annoy map files, too, but hide the number of the error.

    Raises:
        UnreadableError: The operating system refused.
        FileNotFoundError: There is no such file.
        ValueError: The file is empty.
    """
    with reading(path), path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


def is_there(path: Path) -> bool:
    """Return whether there is a file or directory, or a symbolic link to nothing.

    Raises:
        UnreadableError: The operating system refused to tell.
    """
    with reading(path):
        try:
            path.lstat()
        except (FileNotFoundError, NotADirectoryError):
            return False
    return True


def listed(
    directory: Path, name: re.Pattern[str] | None = None, *, directories: bool = False
) -> list[Path]:
    """Return the files of a directory whose whole name matches, sorted; [] without a directory.

    Args:
        directory: The directory.
        name: Pattern of the names; None matches all.
        directories: Return the directories instead of the files.

    Raises:
        UnreadableError: The directory cannot be listed.
    """
    found = []
    with reading(directory):
        try:
            with os.scandir(directory) as entries:
                for entry in entries:
                    is_named = name is None or name.fullmatch(entry.name)
                    if is_named and (entry.is_dir() if directories else entry.is_file()):
                        found.append(directory / entry.name)
        except (FileNotFoundError, NotADirectoryError):
            return []
    return sorted(found)
