"""Comparing files with the sizes and hashes that they must have; noting which were hashed."""

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path

from pydantic_core import from_json

from retrieval_pipeline.errors import BuildError, StoreError
from retrieval_pipeline.storage.atomic import replacing
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.reading import reading
from retrieval_pipeline.storage.stored_model import StoredModel
from retrieval_pipeline.storage.sync import CHECKED


class FileFacts(StoredModel):
    """What a file must be: its size in bytes and its BLAKE3, as a content id."""

    size: int
    blake3: str

    @classmethod
    def of(cls, file: Path) -> "FileFacts":
        """Return what a file is now."""
        return cls(size=file.stat().st_size, blake3=content_id_of_file(file))


def check_files(
    directory: Path, files: Mapping[str, FileFacts], *, rehash: bool = False
) -> set[str]:
    """Compare the size and hash of files with what they must be.

    A file that was hashed earlier, and is still the same by size, modification time and inode, is
    not hashed again unless `rehash`.

    Returns:
        The names of the files that were hashed just now; `remember_hashed` notes them for the next
        time.

    Raises:
        BuildError: A file is missing, or is another.
        UnreadableError: A file cannot be read.
    """
    known = {} if rehash else _read_hashed(directory)
    hashed = set()
    for name, facts in files.items():
        file = directory / name
        try:
            with reading(file):
                whole = file.stat().st_size == facts.size
                if whole and known.get(name) != _identity(file, facts):
                    whole = content_id_of_file(file) == facts.blake3
                    hashed.add(name)
        except OSError as error:
            raise BuildError(f"{file}: {error.strerror}: run `retrieval index`") from None
        if not whole:
            _forget(directory, name)
            raise BuildError(f"{file}: not as it was written, so not loaded: run `retrieval index`")
    return hashed


def remember_hashed(directory: Path, files: Mapping[str, FileFacts]) -> None:
    """Note that these files, as they are now, have these hashes.

    What was noted of other files stays, as long as there are such files.

    Raises:
        StoreError: The file system refused.
    """
    noted = {
        name: identity
        for name, identity in _read_hashed(directory).items()
        if (directory / name).exists()
    }
    noted |= {name: _identity(directory / name, facts) for name, facts in files.items()}
    _write_hashed(directory, noted)


def _forget(directory: Path, name: str) -> None:
    """Forget that a file was whole: its bytes may change without its time, by decay."""
    noted = _read_hashed(directory)
    if noted.pop(name, None) is not None:
        # Where nothing can be written, every reader looks for itself.
        with contextlib.suppress(StoreError):
            _write_hashed(directory, noted)


def _write_hashed(directory: Path, noted: Mapping[str, object]) -> None:
    with replacing(directory / CHECKED) as temporary:
        temporary.write_text(json.dumps(noted), encoding="utf-8")


def _identity(file: Path, facts: FileFacts) -> list[int | str]:
    """Return a file's hash with what shows that the file is still the one that was hashed."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ino, facts.blake3]


def _read_hashed(directory: Path) -> dict[str, object]:
    """Return what `remember_hashed` noted, by file name; {} if that is missing or damaged."""
    try:
        hashed = from_json((directory / CHECKED).read_bytes())
    except (OSError, ValueError):
        return {}
    return hashed if isinstance(hashed, dict) else {}
