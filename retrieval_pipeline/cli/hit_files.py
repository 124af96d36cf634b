"""The files of hits in a directory of their own, as copies or links, named by their rank."""

import filecmp
import os
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from retrieval_pipeline.cli.output import plural
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.paths import real_path, shell_quoted
from retrieval_pipeline.storage.atomic import explained, replacing
from retrieval_pipeline.storage.remote import Place, Remote

How = Literal["copy", "link", "hard link"]
DONE: dict[How, str] = {"copy": "copied", "link": "linked", "hard link": "hard-linked"}

# Bytes of a name. File systems hold 255; a copy has a longer name until it is complete.
LONGEST_NAME = 200


def check_directory(directory: Path, settings: Settings) -> None:
    """Refuse a directory whose new files would be indexed, or be in the way of the store.

    Raises:
        RetrievalError: It lies in a source or in the home, or it is a file.
    """
    where = real_path(directory)
    if where.exists() and not where.is_dir():
        raise RetrievalError(f"{directory} is a file: name a directory")
    taken = {f'the source "{source.name}"': source.path for source in settings.sources}
    for what, place in {**taken, "the home of the index": settings.home}.items():
        if isinstance(place, Path) and where.is_relative_to(real_path(place)):
            raise RetrievalError(
                f"{directory} lies in {what} ({place}), where files of the answer do not belong: "
                "name another directory"
            )


@dataclass(frozen=True)
class PutFiles:
    """What was put into a directory.

    Attributes:
        lines: A line for each new file: its path, and its path in the directory.
        present: How many files a former call had put there.
    """

    lines: tuple[str, ...]
    present: int

    def told(self, how: How, directory: Path) -> str:
        """Return the line that says so."""
        before = f"; {self.present:,} there before" if self.present else ""
        return f"{DONE[how]} {plural(len(self.lines), 'file')} to {directory}{before}"


def put_files(
    paths: Sequence[Place], directory: Path, how: How, *, first: int = 1, dry_run: bool = False
) -> PutFiles:
    """Put files into a directory, which is made if it is missing; nothing is overwritten.

    What a former call has put there is not put there once more, so that one that ended early can be
    repeated.

    Args:
        paths: The files, best first.
        directory: Where to.
        how: A copy, a symbolic link, or a hard link.
        first: The number in the name of the first file.
        dry_run: Only say what would be done.

    Raises:
        RetrievalError: A file is gone or on another machine; the others are there.
        StoreError: The directory cannot be written, is full, or cannot hold such a name.
    """
    digits = max(2, len(str(first + len(paths) - 1)))
    lines, problems, present = [], [], 0
    planned: set[Path] = set()
    for number, path in enumerate(paths, first):
        if isinstance(path, Remote) and how != "copy":
            problems.append(f"{path} is on another machine: use --copy-to")
            continue
        if isinstance(path, Path) and not path.is_file():
            problems.append(f"{path} is gone: `retrieval index` brings the index up to date")
            continue
        if isinstance(path, Path) and not os.access(path, os.R_OK):
            problems.append(f"{path} may not be read: see its permissions")
            continue
        for name in _names(f"{number:0{digits}}_{path.name}"):
            target = directory / name
            if target in planned:
                continue
            if os.path.lexists(target):
                if _is_there(path, target, how):
                    present += 1
                    break
                continue
            planned.add(target)
            if not dry_run and not _put(path, target, how):
                # Another program took the name since.
                continue
            lines.append(f"{shell_quoted(str(path))} -> {shell_quoted(str(target))}")
            break
    if problems:
        raise RetrievalError(*problems)
    return PutFiles(tuple(lines), present)


def _is_there(path: Place, target: Path, how: How) -> bool:
    """Tell whether a name that is taken has what is to be put there."""
    if isinstance(path, Remote):
        return False
    if how == "link":
        return target.is_symlink() and target.readlink() == path
    if how == "hard link":
        return os.path.samestat(target.lstat(), path.stat())
    if target.is_symlink() or not target.is_file():
        return False
    with explained(target):
        return filecmp.cmp(path, target, shallow=False)


def _names(name: str) -> Iterator[str]:
    """Yield a name short enough for file systems, then "name (2)", "name (3)" and so on."""
    # Of indexed files, whose extensions are short.
    stem, suffix = Path(name).stem, Path(name).suffix
    if len(os.fsencode(name)) > LONGEST_NAME:
        room = LONGEST_NAME - len(os.fsencode(suffix))
        stem = os.fsencode(stem)[:room].decode(errors="ignore")
    yield stem + suffix
    number = 2
    while True:
        yield f"{stem} ({number}){suffix}"
        number += 1


def _put(path: Place, target: Path, how: How) -> bool:
    """Make the copy or link; return False if there is a file of this name.

    Raises:
        StoreError: The file system refused.
    """
    with explained(target.parent):
        target.parent.mkdir(parents=True, exist_ok=True)
    with explained(target):
        try:
            if how == "copy" or isinstance(path, Remote):
                # It holds the name until the complete copy replaces it.
                target.touch(exist_ok=False)
            elif how == "link":
                target.symlink_to(path)
            else:
                target.hardlink_to(real_path(path))
        except FileExistsError:
            return False
    if how == "copy":
        try:
            with replacing(target) as temporary:
                if isinstance(path, Remote):
                    path.download(temporary)
                else:
                    shutil.copy2(path, temporary)
        except BaseException:
            target.unlink()
            raise
    return True
