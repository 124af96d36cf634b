"""What makes a directory a home: its marker file, and the signs by which homes of 0.1.0 are known.

A home is made in a new or empty directory only, and gets a marker then. The store writes into no
other directory, so that it can never mix with the files of other programs unasked.
"""

import os
from datetime import UTC, datetime
from pathlib import Path

from pydantic import BaseModel, ValidationError

from retrieval_pipeline import __version__
from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.storage.atomic import replacing
from retrieval_pipeline.storage.names import (
    BUILD_NAME,
    PART_NAME,
    QUARANTINE_NAME,
    SOURCE_NAME,
    SPACE_KEY,
    TABLE_NAME,
    TEMPORARY_NAME,
)
from retrieval_pipeline.storage.reading import listed, reading

MARKER = "retrieval-home.json"
FORMAT = 1

# What file systems and file managers put into directories that people take for empty.
_NOT_COUNTED = (
    "lost+found", ".snapshot", ".DS_Store", ".Spotlight-V100", ".Trashes", ".fseventsd", "@eaDir",
    "System Volume Information", "$RECYCLE.BIN", "desktop.ini", "Thumbs.db",
)  # fmt: skip


class Marker(BaseModel):
    """The contents of the marker.

    Attributes:
        retrieval_home: Version of the layout of the home; a later one cannot be used.
        made_by: Version of this program that made the home.
        made_at: When it did.
    """

    retrieval_home: int
    made_by: str
    made_at: datetime


def marker_text() -> str:
    """Return the contents of the marker of a home that is made now."""
    marker = Marker(retrieval_home=FORMAT, made_by=__version__, made_at=datetime.now(UTC))
    return marker.model_dump_json(indent=2)


def check_home(home: Path) -> None:
    """Check that a directory is a home, or may become one.

    Homes of version 0.1.0 have no marker. They are known by a table or build: no other program
    gives files such names or writes such metadata.

    Raises:
        StoreError: It holds files of others and none of ours; or a newer version made it.
        UnreadableError: It cannot be read.
    """
    if (
        _marker(home) is None
        and not _has_our_files(home)
        and _holds_other_files(home)
        # Another process may have made the home meanwhile.
        and _marker(home) is None
    ):
        raise StoreError(
            f"{home} is not a home of this program and not empty: nothing was changed there. Let "
            "`home` in the settings name a new or empty directory"
        )


def mark_home(home: Path) -> None:
    """Write the marker of a home that has none; `check_home` has accepted the directory.

    Raises:
        StoreError: The file system refused.
    """
    if _marker(home) is None:
        with replacing(home / MARKER) as temporary:
            temporary.write_text(marker_text(), encoding="utf-8")


def _marker(home: Path) -> Marker | None:
    """Return the marker; None if there is none or its content is not one."""
    file = home / MARKER
    try:
        with reading(file):
            marker = Marker.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        return None
    if marker.retrieval_home > FORMAT:
        raise StoreError(
            f"{home} was made by version {marker.made_by} of this program, which is newer than "
            f"this one ({__version__}): update it"
        )
    return marker


def _has_our_files(home: Path) -> bool:
    """Return whether there is a build or a table that this program has written."""
    for space in listed(home / "index", SPACE_KEY, directories=True):
        if listed(space, BUILD_NAME, directories=True):
            return True
    for space in listed(home / "embeddings", SPACE_KEY, directories=True):
        for source in listed(space, SOURCE_NAME, directories=True):
            if listed(source, PART_NAME) or listed(source, QUARANTINE_NAME):
                return True
    tables = [*listed(home / "manifest", TABLE_NAME), *listed(home / "judgements", TABLE_NAME)]
    return any(map(is_our_table, tables))


def is_our_table(path: Path) -> bool:
    """Return whether the metadata of a Parquet file are those of a table of this program.

    Raises:
        UnreadableError: It cannot be read.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with reading(path):
            return b"schema_version" in (pq.read_schema(path).metadata or {})
    except (pa.ArrowException, OSError):
        return False


def _holds_other_files(home: Path) -> bool:
    """Return whether there is a file that no run could have left that ended before it made any."""

    def fail(error: OSError) -> None:
        raise error

    with reading(home):
        try:
            for directory, folders, files in os.walk(home, onerror=fail):
                links = [name for name in folders if Path(directory, name).is_symlink()]
                folders[:] = [name for name in folders if name not in ("mirror", *_NOT_COUNTED)]
                for name in (*files, *links):
                    if name not in ("lock", *_NOT_COUNTED) and not TEMPORARY_NAME.fullmatch(name):
                        return True
        except (FileNotFoundError, NotADirectoryError):
            return False
    return False
