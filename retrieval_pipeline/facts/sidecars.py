"""Which files beside pictures hold facts of these: XMP sidecars, and the JSON of Google Takeout."""

import re
from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

# Takeout cuts the names of its files to so many characters, without ".json" and "(1)".
TAKEOUT_LENGTH = 46
# Since 2024 it puts this behind the name of the picture, as much of it as fits.
_SUFFIX = ".supplemental-metadata"
# Of two pictures of one name in an album, the second is "photo(1).jpg"; its file is
# "photo.jpg(1).json" or "photo.jpg.supplemental-metadata(1).json".
_NUMBERED = re.compile(r"(?P<name>.*?)(?P<number>\(\d+\))?", re.DOTALL)
# A copy that was edited in Google Photos has no file of its own.
_EDITED = "-edited"


def may_be_sidecar(path: str) -> bool:
    """Return whether a file of this name or path may hold facts of a picture beside it."""
    stem, dot, extension = path.rpartition("/")[2].rpartition(".")
    extension = extension.lower() if dot else ""
    # Other programs write many JSON files; that of a picture has the picture's extension before.
    return extension == "xmp" or (
        extension == "json" and ("." in stem or len(stem) >= TAKEOUT_LENGTH)
    )


def is_xmp(path: str) -> bool:
    """Return whether a sidecar is XMP; the others are JSON of Google Takeout."""
    return path.lower().endswith(".xmp")


@dataclass
class _Folder:
    """The names of the pictures in one folder.

    Attributes:
        by_name: Name in lower case -> names.
        by_stem: The same without the extension.
        takeout: Name that Takeout derives its file's from, and "(1)" or "" -> names.
    """

    by_name: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    by_stem: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))
    takeout: defaultdict[tuple[str, str], list[str]] = field(
        default_factory=lambda: defaultdict(list)
    )


def sidecars_of(pictures: Iterable[str], candidates: Sequence[str]) -> dict[str, list[str]]:
    """Return the sidecars of each picture that has any, those first that win over the others.

    These are: photo.jpg.xmp (digiKam, darktable), photo.xmp (Adobe), then the JSON of Takeout.

    Args:
        pictures: Paths of all pictures of a source.
        candidates: Paths of all files of the source for which `may_be_sidecar` is true.
    """
    if not candidates:
        return {}
    beside: defaultdict[str, list[str]] = defaultdict(list)
    for path in sorted(candidates):
        folder, _, name = path.rpartition("/")
        beside[folder].append(name)
    folders: dict[str, _Folder] = {}
    for path in pictures:
        folder, _, name = path.rpartition("/")
        if folder in beside:
            _add(folders.setdefault(folder, _Folder()), name)
    found: defaultdict[str, list[tuple[int, str]]] = defaultdict(list)
    for folder, names in folders.items():
        prefix = f"{folder}/" if folder else ""
        for sidecar in beside[folder]:
            for rank, picture in _pictures_of(sidecar, names):
                found[prefix + picture].append((rank, prefix + sidecar))
    return {picture: [path for _, path in sorted(found[picture])] for picture in found}


def _add(folder: _Folder, name: str) -> None:
    stem, dot, extension = name.rpartition(".")
    folder.by_name[name.lower()].append(name)
    folder.by_stem[stem.lower()].append(name)
    match = _NUMBERED.fullmatch(stem)
    assert match is not None
    plain = match["name"].removesuffix(_EDITED)
    number = match["number"] or ""
    folder.takeout[f"{plain}{dot}{extension}", number].append(name)
    if number:  # or it is a part of the picture's own name
        folder.takeout[f"{stem.removesuffix(_EDITED)}{dot}{extension}", ""].append(name)


def _pictures_of(sidecar: str, folder: _Folder) -> Iterator[tuple[int, str]]:
    """Yield the pictures that a file is the sidecar of, each with the file's rank among these."""
    stem, _, extension = sidecar.rpartition(".")
    if extension.lower() == "xmp":
        if names := folder.by_name.get(stem.lower()):
            yield from ((0, name) for name in names)
        else:
            yield from ((1, name) for name in folder.by_stem.get(stem.lower(), ()))
        return
    match = _NUMBERED.fullmatch(stem)
    assert match is not None
    written, number = match["name"], match["number"] or ""
    for name in _takeout_names(written, number, folder):
        yield from ((2, picture) for picture in folder.takeout[name, number])


def _takeout_names(written: str, number: str, folder: _Folder) -> list[str]:
    """Return the names of pictures from which Takeout may have derived a name."""
    keys = folder.takeout
    before, _, suffix = written.rpartition(".")
    candidates = [written]
    if _SUFFIX.startswith(f".{suffix}"):
        candidates.append(before)
    found = [name for name in candidates if (name, number) in keys]
    if found or len(written) != TAKEOUT_LENGTH:
        return found[:1]
    # The name of the picture itself was cut.
    names = sorted(name for name, own in keys if own == number)
    first = bisect_left(names, written)
    cut = [name for name in names[first : first + 2] if name.startswith(written)]
    # Of two such names nobody can tell which is meant.
    return cut if len(cut) == 1 else []
