"""Files that are one photograph: RAW and JPEG, an edit and its original, a Live Photo's video.

Names tell, of files in one folder; docs/formats.md says how. Of each group the best picture is
shown, and the others are its companions: what people want to see is the edited copy, then what the
camera made of the RAW file, then the RAW file.
"""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import partial

from retrieval_pipeline.config.extensions import RAW, VIDEOS
from retrieval_pipeline.facts.sidecars import may_be_sidecar, sidecars_of


class Kind(StrEnum):
    """What a companion is to the picture that is shown.

    raw: The RAW file of the same photograph.
    original: The file that the picture is an edited copy of.
    edit: Another edited copy, older than the picture.
    video: The video of a Live Photo.
    sidecar: A file about the picture, written by a photo program or Google Takeout.
    """

    RAW = "raw"
    ORIGINAL = "original"
    EDIT = "edit"
    VIDEO = "video"
    SIDECAR = "sidecar"


# Companions that are pictures, and would be items of their own.
PICTURES = frozenset({Kind.RAW, Kind.ORIGINAL, Kind.EDIT})


@dataclass(frozen=True, slots=True, order=True)
class Companion:
    """A file that belongs to a picture.

    Attributes:
        kind: What it is to the picture.
        path: Relative to the source, as in the manifest.
    """

    kind: Kind
    path: str


# How programs name an edited copy of "photo": the whole stem, in lower case. Not among them is
# "photo (1)", which is another picture of the same name.
_EDITS = tuple(
    re.compile(pattern)
    for pattern in (
        # Google Photos, as Takeout writes it in some languages; a number stays with the name.
        r"(?P<name>.+)-(edited|bearbeitet|modifié|editado|modificato|bewerkt|edytowane|編集済み)"
        r"(?P<number>\(\d+\))?",
        # Lightroom's copies for Photoshop, and its "Enhance".
        r"(?P<name>.+?)(-edit(-\d+)?|-enhanced(-[a-z]+)*)",
        # Android's galleries; only behind a date, since short names of Windows look alike.
        r"(?P<name>.*\d{8}.*)~\d+",
    )
)
# Apple: IMG_E1234 is the edited copy of IMG_1234, IMG_O1234.AAE says how it was edited.
_APPLE = re.compile(r"img_[eo](?P<number>\d{4}.*)")

# What all of those stems have: most others are left out by this alone.
_MAY_BE_EDIT = re.compile(r"img_[eo]|.+[-~]")

# Of several pictures of one name, the first kind is what the camera made.
_FROM_CAMERA = (".jpg", ".jpeg", ".jpe", ".heic", ".heif", ".hif", ".avif", ".jxl")

# Pictures of one name whose dates are further apart are two photographs: the numbers of a camera
# begin anew after 9,999.
_MOST_APART = timedelta(hours=1)


def companions_of(
    pictures: Sequence[str], others: Sequence[str], taken: Callable[[str], datetime | None]
) -> dict[str, list[Companion]]:
    """Return the companions of each picture that has any; a companion has none itself.

    Args:
        pictures: Paths of the pictures of one source.
        others: Paths of its other files that may belong to a picture.
        taken: Returns the date of a picture by its camera, None if it is not known.
    """
    beside = beside_pictures(pictures, others)
    found: dict[str, list[Companion]] = {}
    for prefix, names in _by_folder(pictures).items():
        if _all_stand_alone(names):
            continue
        folder = _Folder(names)
        for best, members in folder.groups(partial(_of_folder, taken, prefix)):
            companions = {Companion(kind, prefix + name) for name, kind in members.items()}
            for name in (best, *members):
                companions.update(beside.pop(prefix + name, ()))
            found[prefix + best] = sorted(companions)
    # What is left belongs to pictures that are no group.
    return found | {path: sorted({*companions}) for path, companions in beside.items()}


def beside_pictures(pictures: Iterable[str], others: Sequence[str]) -> dict[str, list[Companion]]:
    """Return the videos and sidecars of each picture that has any."""
    if not others:
        return {}
    beside: defaultdict[str, list[Companion]] = defaultdict(list)
    within = {path.rpartition("/")[0] for path in others}
    pictures = [path for path in pictures if path.rpartition("/")[0] in within]
    folders = {prefix: _Folder(names) for prefix, names in _by_folder(pictures).items()}
    with_facts = [path for path in others if may_be_sidecar(path)]
    for picture, paths in sidecars_of(pictures, with_facts).items():
        beside[picture] += [Companion(Kind.SIDECAR, path) for path in paths]
    for path in {*others}.difference(with_facts):
        folder, slash, name = path.rpartition("/")
        prefix = folder + slash
        if prefix in folders and (owner := folders[prefix].owner_of(name)) is not None:
            kind = Kind.VIDEO if _split(name)[1] in VIDEOS else Kind.SIDECAR
            beside[prefix + owner].append(Companion(kind, path))
    return dict(beside)


def _by_folder(pictures: Iterable[str]) -> dict[str, list[str]]:
    """Return the names of pictures by the part of their path before the name, both sorted."""
    names_in: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(pictures):
        folder, slash, name = path.rpartition("/")
        names_in[folder + slash].append(name)
    return names_in


def _all_stand_alone(names: Sequence[str]) -> bool:
    """Return whether nothing in the names of a folder hints at a group: so it is in most folders.

    All names are compared at once, which takes a third of the time of a `_Folder`.
    """
    keys = _key("\n".join(names)).split("\n")
    stems = [key.rpartition(".")[0] or key for key in keys]
    if len({*stems}) < len(names) or len(keys) > len(names):  # a name may hold a line end
        return False
    return not any(map(_MAY_BE_EDIT.match, stems))


def _of_folder(taken: Callable[[str], datetime | None], prefix: str, name: str) -> datetime | None:
    return taken(prefix + name)


class _Folder:
    """The pictures of one folder, by their names."""

    def __init__(self, names: Sequence[str]) -> None:
        self._by_stem: defaultdict[str, list[str]] = defaultdict(list)
        for name in names:
            self._by_stem[_split(name)[0]].append(name)
        self._by_name = {_key(name): name for name in names}

    def owner_of(self, name: str) -> str | None:
        """Return the picture that another file belongs to: photo.jpg.pp3, photo.mov."""
        stem = _split(name)[0]
        if stem in self._by_name:
            return self._by_name[stem]
        stems = [stem, *_originals(stem)]
        pictures = next((self._by_stem[each] for each in stems if each in self._by_stem), [])
        return min(pictures, key=_preference, default=None)

    def groups(
        self, taken: Callable[[str], datetime | None]
    ) -> Iterator[tuple[str, dict[str, Kind]]]:
        """Yield the best of each group of several pictures, and what the others are to it."""
        edits: defaultdict[str, list[str]] = defaultdict(list)
        for stem, names in self._by_stem.items():
            if (root := self._root(stem)) != stem:
                edits[root] += names
        edited = {name for names in edits.values() for name in names}
        for stem, names in self._by_stem.items():
            if (len(names) > 1 or stem in edits) and names[0] not in edited:
                yield from _groups(names, edits[stem], taken)

    def _root(self, stem: str) -> str:
        """Return the stem of the original of an edited copy, or of an edit of that."""
        found: str | None = stem
        while found is not None:
            stem = found
            found = next(filter(self._by_stem.__contains__, _originals(stem)), None)
        return stem


def _groups(
    names: Sequence[str], edits: Sequence[str], taken: Callable[[str], datetime | None]
) -> Iterator[tuple[str, dict[str, Kind]]]:
    """Divide pictures of one name and edited copies of them; yield the groups of several."""

    def is_apart(one: str, other: str) -> bool:
        first, second = taken(one), taken(other)
        return first is not None and second is not None and abs(first - second) > _MOST_APART

    pending = sorted(names, key=_preference)
    # The newest of them has the highest number.
    pending_edits = sorted(edits, key=lambda name: (len(name), name))
    while pending or pending_edits:
        members: dict[str, Kind] = {}
        best = pending_edits.pop() if pending_edits else pending.pop(0)
        has_original = best not in edits
        # An original of the same format comes before the others.
        pending.sort(key=lambda name: _split(name)[1] != _split(best)[1])
        for name in pending:
            is_raw = _split(name)[1] in RAW
            if (is_raw or not has_original) and not is_apart(best, name):
                members[name] = Kind.RAW if is_raw else Kind.ORIGINAL
                has_original |= not is_raw
        members |= {name: Kind.EDIT for name in pending_edits if not is_apart(best, name)}
        pending = sorted((name for name in pending if name not in members), key=_preference)
        pending_edits = [name for name in pending_edits if name not in members]
        if members:
            yield best, members


def _originals(stem: str) -> Iterator[str]:
    """Yield the stems that the original of an edited copy with this stem may have."""
    if not _MAY_BE_EDIT.match(stem):
        return
    for pattern in _EDITS:
        if match := pattern.fullmatch(stem):
            parts = match.groupdict("")
            yield parts["name"] + parts.get("number", "")
    if match := _APPLE.fullmatch(stem):
        yield f"img_{match['number']}"


def _preference(name: str) -> tuple[bool, int, str]:
    """Return by what pictures of one name are sorted: from a camera, others, RAW."""
    extension = _split(name)[1]
    is_known = extension in _FROM_CAMERA
    rank = _FROM_CAMERA.index(extension) if is_known else len(_FROM_CAMERA)
    return extension in RAW, rank, name


def _split(name: str) -> tuple[str, str]:
    """Return a name's stem and its extension with the dot, as they are compared."""
    stem, dot, extension = _key(name).rpartition(".")
    return (stem, dot + extension) if stem else (dot + extension, "")


def _key(name: str) -> str:
    return (name if name.isascii() else unicodedata.normalize("NFC", name)).lower()
