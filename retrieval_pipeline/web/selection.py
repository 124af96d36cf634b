"""What is done with several pictures at once: their paths, votes on all of them, one zip file."""

import zipfile
from collections.abc import Iterator, Sequence
from datetime import datetime
from http import HTTPStatus
from io import RawIOBase
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from retrieval_pipeline.index.records import IndexedFile
from retrieval_pipeline.paths import printable
from retrieval_pipeline.storage.content_id import CHUNK_BYTES
from retrieval_pipeline.web import voting
from retrieval_pipeline.web.api import first_copy, library_of
from retrieval_pipeline.web.files import GoneError
from retrieval_pipeline.web.parameters import MOST_SELECTED, ContentId
from retrieval_pipeline.web.problems import RequestError
from retrieval_pipeline.web.snapshot import Snapshot

# Bytes of such a request: a content id takes 35 with its quotes and comma.
SELECTION_BYTES = 64 * MOST_SELECTED
# Bytes of the files of one zip file: more is copied better than downloaded.
LARGEST_ZIP = 20 << 30
# The first and the last moment that a zip file can hold.
_FIRST, _LAST = datetime(1980, 1, 1), datetime(2107, 12, 31)
# Name in the zip file of the list of pictures that are not in it.
LEFT_OUT = "NOT IN HERE.txt"


class Selected(BaseModel):
    """Several pictures."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    content_ids: Annotated[list[ContentId], Field(min_length=1, max_length=MOST_SELECTED)]


class SelectedVotes(voting.Named, Selected):
    """The same vote on several pictures; null takes the votes on them back."""

    liked: StrictBool | None


class Paths(BaseModel):
    """Where the files of several pictures are.

    Attributes:
        paths: The whole path of the first file of each; pictures that left the index have none.
    """

    paths: list[str]


async def paths(request: Request, selected: Selected) -> Paths:
    """Tell where the files of several pictures are."""
    library = library_of(request)
    return Paths(paths=await library.run(_paths, library.snapshot, selected.content_ids))


def _paths(snapshot: Snapshot, content_ids: Sequence[str]) -> list[str]:
    return [
        snapshot.pictures.absolute(item.locations[0])
        for item in snapshot.pictures.records(content_ids)
    ]


async def judge_several(request: Request, votes: SelectedVotes) -> voting.Votes:
    """Vote alike on several pictures, or take the votes on them back."""
    library = library_of(request)
    return await library.run(
        voting.vote_on_several, library.snapshot, votes.name, votes.content_ids, votes.liked
    )


async def archive(request: Request, selected: Selected) -> Response:
    """Download the files of several pictures as one zip file, which is made while it is sent."""
    library = library_of(request)
    snapshot = library.snapshot
    await library.run(_check_size, snapshot, selected.content_ids)
    name = f"pictures {datetime.now():%Y-%m-%d %H.%M}.zip"
    return StreamingResponse(
        zipped(snapshot, selected.content_ids),
        media_type="application/zip",
        headers={"content-disposition": f'attachment; filename="{name}"'},
    )


def _check_size(snapshot: Snapshot, content_ids: Sequence[str]) -> None:
    """Refuse what is more than LARGEST_ZIP by the sizes that the index knows.

    Raises:
        RequestError: 413.
    """
    size = sum(item.files[0].size for item in snapshot.pictures.records(content_ids))
    if size > LARGEST_ZIP:
        raise RequestError(
            HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
            f"these pictures are {size / 1e9:.0f} GB, and a zip file may have "
            f"{LARGEST_ZIP / 1e9:.0f}: copy their paths, or take fewer at once",
        )


def zipped(snapshot: Snapshot, content_ids: Sequence[str]) -> Iterator[bytes]:
    """Yield a zip file of the first file of each picture that still holds its bytes.

    One file after the other is copied and hashed as for a single download, so that no more than one
    is kept at a time. A file of the zip file tells which pictures are not in it, and why.
    """
    output = _Output()
    left_out = []
    # Pictures are compressed already.
    with zipfile.ZipFile(output, "w", zipfile.ZIP_STORED) as archive:
        for item in snapshot.pictures.records(list(dict.fromkeys(content_ids))):
            try:
                copy, location = first_copy(snapshot, item.content_id)
            except (GoneError, OSError) as error:
                left_out.append(f"{_name(item.files[0])}: {error}")
                continue
            file = next(file for file in item.files if file.location == location)
            with copy, archive.open(entry_of(file), "w") as entry:
                while chunk := copy.read(CHUNK_BYTES):
                    entry.write(chunk)
                    yield output.take()
        if left_out:
            archive.writestr(LEFT_OUT, "\n".join([*left_out, ""]))
    yield output.take()


def _name(file: IndexedFile) -> str:
    """Return what a file is called in the zip file."""
    return printable(f"{file.location.source}/{file.location.path}")


def entry_of(file: IndexedFile) -> zipfile.ZipInfo:
    """Return name, time and size of a file in the zip file, such as any system can unpack."""
    changed = min(max(datetime.fromtimestamp(file.mtime_ns / 1e9), _FIRST), _LAST)
    # Windows takes a backslash for a separator: "..\\" would lead out of the directory.
    entry = zipfile.ZipInfo(_name(file).replace("\\", "_"), changed.timetuple()[:6])
    # The headers of files of more than 2 GiB are others, and they are written first.
    entry.file_size = file.size
    return entry


class _Output(RawIOBase):
    """Takes what a ZipFile writes, which cannot go back, until it is sent."""

    def __init__(self) -> None:
        self._written = bytearray()

    def writable(self) -> bool:
        """Tell that it takes bytes."""
        return True

    def write(self, data: bytes, /) -> int:  # type: ignore[override]
        """Take bytes."""
        self._written += data
        return len(data)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        taken = bytes(self._written)
        self._written.clear()
        return taken
