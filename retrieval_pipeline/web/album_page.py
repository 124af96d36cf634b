"""The page of albums: look at them, rename them, take them apart. It needs no script."""

from dataclasses import dataclass
from http import HTTPStatus
from typing import Literal

from starlette.requests import Request
from starlette.responses import RedirectResponse, Response

from retrieval_pipeline.storage.albums import (
    album_names,
    delete_album,
    read_album,
    rename_album,
)
from retrieval_pipeline.web.albums import AlbumName
from retrieval_pipeline.web.api import library_of
from retrieval_pipeline.web.frame import Form, parse_address, read_form, render_page, root_of
from retrieval_pipeline.web.operations import Nothing
from retrieval_pipeline.web.snapshot import Snapshot

# Pictures of an album that are shown on the page.
COVERS = 6


class AlbumChange(Form, frozen=True):
    """What a form of the page sends.

    Attributes:
        name: Of the album.
        to: Its new name.
        do: What is asked for.
    """

    name: AlbumName
    to: AlbumName | None = None
    do: Literal["rename", "delete"]


@dataclass(frozen=True)
class ShownAlbum:
    """An album on the page.

    Attributes:
        name: Of the album.
        pictures: How many are in it.
        missing: How many of them are not in the index.
        covers: Content ids of the last ones that were added and are in the index.
    """

    name: str
    pictures: int
    missing: int
    covers: list[str]


async def albums_page(request: Request) -> Response:
    """Show the albums."""
    parse_address(request, Nothing)
    library = library_of(request)
    albums = await library.run(_shown_albums, library.snapshot)
    return render_page(request, "albums", albums=albums)


def _shown_albums(snapshot: Snapshot) -> list[ShownAlbum]:
    albums = []
    for name in album_names(snapshot.store):
        ids = [picture.content_id for picture in reversed(read_album(snapshot.store, name))]
        known = [record.content_id for record in snapshot.pictures.records(ids)]
        albums.append(ShownAlbum(name, len(ids), len(ids) - len(known), known[:COVERS]))
    return albums


async def change_album(request: Request) -> Response:
    """Rename or delete an album, and show the albums."""
    change = await read_form(request, AlbumChange)
    library = library_of(request)
    if change.do == "delete":
        await library.run(delete_album, library.store, change.name)
    elif change.to is not None:
        await library.run(rename_album, library.store, change.name, change.to)
    return RedirectResponse(f"{root_of(request)}/albums", HTTPStatus.SEE_OTHER)
