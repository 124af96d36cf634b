"""Albums: named sets of pictures, kept as content ids, so that they survive every new index.

An album is the table `albums/<name>.parquet`. A picture that leaves the index stays in its albums.
`search/albums.py` finds the pictures of an album in an index.
"""

import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime

import pyarrow as pa

from retrieval_pipeline.errors import AlbumError
from retrieval_pipeline.storage.atomic import discard
from retrieval_pipeline.storage.names import LONGEST_TITLE, is_title, title_of
from retrieval_pipeline.storage.reading import is_there
from retrieval_pipeline.storage.schemas import ALBUM
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_table, write_table


@dataclass(frozen=True)
class AlbumPicture:
    """One picture of an album.

    Attributes:
        content_id: Identity of the image's bytes.
        path: Where it was when it was added: source, "/" and the path in it, as text of
            `paths.to_text`; None if nobody said.
        added_at: When it was added, in UTC.
    """

    content_id: str
    path: str | None
    added_at: datetime


def album_names(store: Store) -> list[str]:
    """Return the names of all albums, sorted."""
    names = []
    for path in store.albums():
        try:
            names.append(title_of(path.stem))
        except ValueError:
            # A file of somebody else.
            continue
    return sorted(names)


def check_title(name: str, what: str = "an album") -> None:
    """Refuse a name that people cannot tell from others, or that file systems cannot hold.

    Args:
        name: The name.
        what: What it is to be the name of, for the message.

    Raises:
        AlbumError: Says what is allowed.
    """
    if not is_title(name):
        raise AlbumError(
            f"{name!r} cannot name {what}: 1 to {LONGEST_TITLE} bytes of printable text in Unicode "
            "normal form C, without spaces at its ends"
        )


def read_album(store: Store, name: str) -> list[AlbumPicture]:
    """Return the pictures of an album in the order in which they were added.

    Raises:
        AlbumError: There is no such album; the message lists those that exist.
        StoreError: The table is damaged; it is left as it is.
    """
    _require(store, name)
    return _read(store, name)


def add_to_album(store: Store, name: str, pictures: Mapping[str, str | None]) -> list[AlbumPicture]:
    """Add pictures, durably, and return all of the album, which is begun if there is none.

    Args:
        store: Where albums are kept.
        name: Of the album.
        pictures: Content id -> where the picture is now, as in `AlbumPicture.path`. What is in the
            album already stays as it is.

    Raises:
        AlbumError: The name is not allowed.
        StoreError: The table is damaged or cannot be written; it is left as it is.
    """
    check_title(name)
    now = datetime.now(UTC)
    with store.writing_user_data():
        album = _read(store, name)
        known = {picture.content_id for picture in album}
        album += [
            AlbumPicture(content, path, now)
            for content, path in pictures.items()
            if content not in known
        ]
        _write(store, name, album)
    return album


def remove_from_album(store: Store, name: str, content_ids: Iterable[str]) -> list[AlbumPicture]:
    """Take pictures out of an album, durably, and return the others. It may become empty.

    Raises:
        AlbumError: There is no such album.
        StoreError: The table is damaged or cannot be written; it is left as it is.
    """
    gone = set(content_ids)
    with store.writing_user_data():
        album = read_album(store, name)
        left = [picture for picture in album if picture.content_id not in gone]
        _write(store, name, left)
    return left


def delete_album(store: Store, name: str) -> None:
    """Remove an album; its pictures stay where they are.

    Raises:
        AlbumError: There is no such album.
        StoreError: The file system refused.
    """
    with store.writing_user_data():
        _require(store, name)
        discard(store.album(name))


def rename_album(store: Store, name: str, to: str) -> None:
    """Give an album another name, durably.

    Raises:
        AlbumError: There is no such album, the other name is not allowed, or an album has it.
        StoreError: The table is damaged or cannot be written; it is left as it is.
    """
    check_title(to)
    if to == name:
        return
    with store.writing_user_data():
        album = read_album(store, name)
        if is_there(store.album(to)):
            raise AlbumError(f'there is an album "{to}" already: choose another name')
        _write(store, to, album)
        discard(store.album(name))


def _require(store: Store, name: str) -> None:
    check_title(name)
    if not is_there(store.album(name)):
        known = ", ".join(album_names(store)) or "none yet"
        raise AlbumError(
            f'there is no album "{name}" (albums: {known}): '
            f"`retrieval album {shlex.quote(name)} add FILE...` begins it"
        )


def _read(store: Store, name: str) -> list[AlbumPicture]:
    path = store.album(name)
    if not is_there(path):
        return []
    table = read_table(
        path, ALBUM, remedy="it is kept; put a copy of it back, or move it away to begin anew"
    )
    return [AlbumPicture(**row) for row in table.to_pylist()]


def _write(store: Store, name: str, album: Sequence[AlbumPicture]) -> None:
    rows = [asdict(picture) for picture in album]
    write_table(store.album(name), pa.Table.from_pylist(rows, schema=ALBUM))
