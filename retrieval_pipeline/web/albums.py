"""Albums in the API: which there are, and pictures put into them and taken out."""

from typing import Annotated

from pydantic import BaseModel, StringConstraints
from starlette.requests import Request

from retrieval_pipeline.storage.albums import add_to_album, album_names, remove_from_album
from retrieval_pipeline.web.api import library_of
from retrieval_pipeline.web.operations import Nothing
from retrieval_pipeline.web.selection import Selected
from retrieval_pipeline.web.snapshot import Snapshot

AlbumName = Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]


class InAlbum(Selected):
    """Pictures and an album."""

    name: AlbumName


class Albums(BaseModel):
    """The names of all albums, sorted."""

    names: list[str]


class Album(BaseModel):
    """An album.

    Attributes:
        name: Of the album.
        pictures: How many are in it, those that are not in the index included.
    """

    name: str
    pictures: int


async def albums(request: Request, _: Nothing) -> Albums:
    """List the albums."""
    library = library_of(request)
    return Albums(names=await library.run(album_names, library.store))


async def add(request: Request, asked: InAlbum) -> Album:
    """Put pictures into an album, which is begun if there is none of that name."""
    library = library_of(request)
    return await library.run(_add, library.snapshot, asked)


def _add(snapshot: Snapshot, asked: InAlbum) -> Album:
    pictures: dict[str, str | None] = {}
    for item in snapshot.pictures.records(asked.content_ids):
        place = item.locations[0]
        pictures[item.content_id] = f"{place.source}/{place.path}"
    album = add_to_album(snapshot.store, asked.name, pictures)
    return Album(name=asked.name, pictures=len(album))


async def remove(request: Request, asked: InAlbum) -> Album:
    """Take pictures out of an album; their files stay where they are."""
    library = library_of(request)
    left = await library.run(remove_from_album, library.store, asked.name, asked.content_ids)
    return Album(name=asked.name, pictures=len(left))
