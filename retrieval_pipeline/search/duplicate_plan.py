"""What could be done about duplicates: which file of each group stays, and which ones can go.

A plan is only made here, from what the index and the file system say; nothing is read, changed or
removed. `search/duplicate_script.py` writes it as a shell script for a person to review.
"""

from __future__ import annotations

import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from retrieval_pipeline.config.extensions import DAMAGED, format_named
from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.facts.groups import Kind
from retrieval_pipeline.paths import compile_globs, glob_matches, to_text
from retrieval_pipeline.search.near_duplicates import DuplicateGroup
from retrieval_pipeline.storage.albums import read_album
from retrieval_pipeline.storage.reading import is_there
from retrieval_pipeline.storage.remote import Place, Remote
from retrieval_pipeline.storage.store import Store

Action = Literal["trash", "hardlink", "move"]

RULES = "largest, oldest, newest, format=png/jpeg, source=A/B, path=GLOB"
# What is kept if nobody says what: the most pixels, else the most bytes, else the first that was
# there.
DEFAULT_RULES = ("largest", "oldest")
# The album of pictures that somebody wants to have more than once. The web page fills it.
LEFT_ALBUM = "Duplicates to leave"


@dataclass(frozen=True)
class PlannedFile:
    """One file of a group, as it was indexed.

    Attributes:
        path: Where it is.
        source: Name of its source.
        relative: Its path in the source.
        content_id: Identity of its bytes.
        size: In bytes.
        mtime_ns: When it was last changed, in nanoseconds since 1970.
        width: Pixels of the upright picture.
        height: Pixels of the upright picture.
        format: Such as JPEG.
        number: Of its item in the build.
        has_companions: Other files belong to it, such as a RAW file.
    """

    path: Path
    source: str
    relative: str
    content_id: str
    size: int
    mtime_ns: int
    width: int
    height: int
    format: str
    number: int
    has_companions: bool


@dataclass(frozen=True)
class PlannedGroup:
    """What could be done about one group.

    Attributes:
        keep: The file that stays.
        remove: Those that can go: each has the bytes of `keep`, or looks the same.
        left: Other files of the group, and why nothing is proposed for them.
    """

    keep: PlannedFile
    remove: tuple[PlannedFile, ...]
    left: tuple[tuple[Place, str], ...]


@dataclass(frozen=True)
class DuplicatePlan:
    """What could be done about all duplicates.

    Attributes:
        groups: Those with a file that can go, or that is left for a reason.
        rules: What was kept, the most important rule first.
        action: What is to be done with the files that can go.
        left_groups: How many groups are not among `groups`, since somebody wants them left.
        bytes: How much they hold together. Space that other names of a file (hard links) go on
            holding does not count.
    """

    groups: tuple[PlannedGroup, ...]
    rules: tuple[str, ...]
    action: Action
    left_groups: int
    bytes: int

    @property
    def files(self) -> int:
        """How many files can go."""
        return sum(len(group.remove) for group in self.groups)


# Smaller is better.
Preference = Callable[[PlannedFile], tuple[int, ...]]


def parse_rules(texts: Iterable[str]) -> tuple[str, ...]:
    """Return single rules of texts that may hold several with commas; a glob may hold commas.

    Raises:
        QueryError: A rule is none of RULES.
    """
    rules: list[str] = []
    for text in texts:
        rules += [text] if text.startswith("path=") else text.split(",")
    rules = [rule.strip() for rule in rules]
    for rule in rules:
        _preference(rule)
    return tuple(rules)


def _preference(rule: str) -> Preference:
    """Return what a rule prefers.

    Raises:
        QueryError: There is no such rule.
    """
    kind, _, value = rule.partition("=")
    names = value.split("/")
    if rule == "largest":
        return lambda file: (-file.width * file.height, -file.size)
    if rule == "oldest":
        return lambda file: (file.mtime_ns,)
    if rule == "newest":
        return lambda file: (-file.mtime_ns,)
    if kind == "format" and value:
        formats = [format_named(name) for name in names]
        return lambda file: (_place(formats, file.format.removesuffix(DAMAGED).upper()),)
    if kind == "source" and value:
        return lambda file: (_place(names, file.source),)
    if kind == "path" and value:
        globs = compile_globs([value])
        return lambda file: (not glob_matches(globs, file.relative),)
    raise QueryError(f'"{rule}" is no rule of what to keep: {RULES}')


def _place(names: Sequence[str], name: str) -> int:
    return names.index(name) if name in names else len(names)


def pictures_to_leave(store: Store) -> set[str]:
    """Return the content ids of the pictures in LEFT_ALBUM; none if there is no such album.

    Raises:
        StoreError: The album is damaged.
    """
    if not is_there(store.album(LEFT_ALBUM)):
        return set()
    return {picture.content_id for picture in read_album(store, LEFT_ALBUM)}


def plan_duplicates(
    groups: Iterable[DuplicateGroup],
    same: Callable[[int, int], bool],
    rules: Sequence[str] = DEFAULT_RULES,
    *,
    references: Collection[str] = (),
    action: Action = "trash",
    leave: Collection[str] = (),
) -> DuplicatePlan:
    """Say which file of each group stays and which ones can go.

    A whole picture stays before a damaged one, a file of a reference source before others, one with
    companions (a RAW file, the video of a Live Photo) before one without; then the rules decide,
    the first one first, and in the end the order of sources and paths.

    Only files are proposed that are as they were indexed (size and time of the last change), that
    have the bytes of the file that stays or look the same as it, and that are not that same file
    under another name.

    Args:
        groups: The duplicates.
        same: Tells of two items of the build whether they look the same, as `Looks.same` does. A
            group is compared with its first picture, which need not be the one that stays.
        rules: From `parse_rules`.
        references: Names of sources whose files are never proposed.
        action: What is to be done with the files. Only files with equal bytes on one file system
            can become hard links of one.
        leave: Content ids, from `pictures_to_leave`: nothing is proposed for a group that has one.

    Raises:
        QueryError: A rule is none of RULES.
    """
    preferences = [_preference(rule) for rule in rules]

    def rank(file: PlannedFile) -> tuple[int, ...]:
        first = (
            file.format.endswith(DAMAGED),
            file.source not in references,
            not file.has_companions,
        )
        return (*first, *(value for prefers in preferences for value in prefers(file)))

    planned = []
    left_groups = 0
    links: Counter[tuple[int, int]] = Counter()
    sizes: dict[tuple[int, int], tuple[int, int]] = {}
    for group in groups:
        if any(picture.content_id in leave for picture in group.pictures):
            left_groups += 1
            continue
        files, left = _files_of(group)
        if not files:
            continue
        keep = min(files, key=rank)
        remove = []
        for file in files:
            if file is keep:
                continue
            why = _why_not(file, keep, same, references, action)
            if why:
                left.append((file.path, why))
                continue
            remove.append(file)
            status = file.path.stat()
            inode = status.st_dev, status.st_ino
            links[inode] += 1
            sizes[inode] = status.st_nlink, status.st_size
        if remove or left:
            planned.append(PlannedGroup(keep, tuple(remove), tuple(left)))
    gained = (size for inode, (names, size) in sizes.items() if links[inode] >= names)
    return DuplicatePlan(tuple(planned), tuple(rules), action, left_groups, sum(gained))


def _files_of(group: DuplicateGroup) -> tuple[list[PlannedFile], list[tuple[Place, str]]]:
    """Return the files that may stay or go, in their order, and the others with the reason."""
    files: list[PlannedFile] = []
    left: list[tuple[Place, str]] = []
    seen: set[str] = set()
    for picture in group.pictures:
        with_others = any(each.kind != Kind.SIDECAR for each in picture.companions)
        for file, path in zip(picture.files, picture.paths, strict=True):
            if isinstance(path, Remote):
                left.append((path, "it is on another machine"))
                continue
            why = _not_as_indexed(path, file.size, file.mtime_ns)
            if why:
                left.append((path, why))
                continue
            real = os.path.realpath(path)
            if real in seen:
                left.append((path, "it is a file of this group under another name"))
                continue
            seen.add(real)
            files.append(
                PlannedFile(
                    path=path,
                    source=file.location.source,
                    relative=file.location.path,
                    content_id=picture.content_id,
                    size=file.size,
                    mtime_ns=file.mtime_ns,
                    width=picture.width,
                    height=picture.height,
                    format=picture.format,
                    number=picture.number,
                    has_companions=with_others,
                )
            )
    return files, left


def _not_as_indexed(path: Path, size: int, mtime_ns: int) -> str | None:
    """Say why a file is not the one that was indexed; None if it is."""
    try:
        status = path.lstat()
    except OSError as error:
        return f"it cannot be found: {error.strerror}"
    if not stat.S_ISREG(status.st_mode):
        return "it is a link, no file of its own"
    if (status.st_size, status.st_mtime_ns) != (size, mtime_ns):
        return "it has changed since it was indexed: run `retrieval index`"
    return None


def _why_not(
    file: PlannedFile,
    keep: PlannedFile,
    same: Callable[[int, int], bool],
    references: Collection[str],
    action: Action,
) -> str | None:
    """Say why nothing is proposed for a file; None if it can go."""
    if file.source in references:
        return f'its source "{file.source}" is a reference'
    if file.has_companions:
        return "other files belong to it, such as a RAW file"
    if file.path.samefile(keep.path):
        return "it is the file that stays, under another name"
    if file.content_id != keep.content_id:
        if action == "hardlink":
            return "its bytes are not those of the file that stays"
        if not same(keep.number, file.number):
            return "it does not look the same as the file that stays"
    if action == "hardlink" and file.path.lstat().st_dev != keep.path.lstat().st_dev:
        return "it is on another file system than the file that stays"
    return None


def plan_json(plan: DuplicatePlan) -> dict[str, Any]:
    """Return the JSON object of a plan; sizes in bytes."""
    return {
        "version": 1,
        "action": plan.action,
        "rules": list(plan.rules),
        "files": plan.files,
        "bytes": plan.bytes,
        "left_groups": plan.left_groups,
        "groups": [
            {
                "keep": _file_json(group.keep),
                "remove": [
                    {
                        **_file_json(file),
                        "same_bytes": file.content_id == group.keep.content_id,
                    }
                    for file in group.remove
                ],
                "left": [{"path": to_text(str(path)), "why": why} for path, why in group.left],
            }
            for group in plan.groups
        ],
    }


def _file_json(file: PlannedFile) -> dict[str, Any]:
    return {
        "path": to_text(str(file.path)),
        "source": file.source,
        "content_id": file.content_id,
        "size": file.size,
        "mtime_ns": file.mtime_ns,
        "width": file.width,
        "height": file.height,
        "format": file.format,
    }
