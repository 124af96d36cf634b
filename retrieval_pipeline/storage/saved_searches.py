"""Searches that people save under a name of their own, beside the saved queries of the settings.

A search is the file `searches/<name>.json`. What its parameters mean is known to those who search:
`search.query.Query.of` reads them, and so does the search of the web page.
"""

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from pydantic import JsonValue, ValidationError

from retrieval_pipeline.errors import AlbumError, StoreError
from retrieval_pipeline.storage.albums import check_title
from retrieval_pipeline.storage.atomic import discard, replacing
from retrieval_pipeline.storage.reading import is_there, reading
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.stored_model import StoredModel


class SavedSearch(StoredModel):
    """A search under a name.

    Attributes:
        name: As its person wrote it.
        parameters: What is asked, by name; without those that have their default.
        saved_at: When it was saved, in UTC.
        seen: Content ids of the hits when somebody looked last; None before the first time. A hit
            that is not among them is new.
    """

    name: str
    parameters: Mapping[str, JsonValue]
    saved_at: datetime
    seen: frozenset[str] | None = None


def read_saved_searches(store: Store) -> list[SavedSearch]:
    """Return all saved searches, the oldest first.

    Raises:
        StoreError: A file is damaged; it is left as it is.
        UnreadableError: A file cannot be read.
    """
    found = [read_saved_search(path) for path in store.saved_searches()]
    return sorted(found, key=lambda search: (search.saved_at, search.name))


def read_saved_search(file: Path) -> SavedSearch:
    """Read the file of one saved search; raises as `read_saved_searches` does."""
    try:
        with reading(file):
            return SavedSearch.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        raise StoreError(
            f"{file}: damaged: it is kept; put a copy of it back, or remove it"
        ) from None


def save_search(store: Store, search: SavedSearch) -> None:
    """Save a search, durably; it replaces the one of the same name.

    Raises:
        AlbumError: The name is not allowed.
        StoreError: The file system refused; what was there before is still there.
    """
    check_title(search.name, "a search")
    with (
        store.writing_user_data(),
        replacing(store.saved_search(search.name)) as temporary,
    ):
        temporary.write_text(search.model_dump_json(indent=1), encoding="utf-8")


def delete_saved_search(store: Store, name: str) -> None:
    """Forget a saved search.

    Raises:
        AlbumError: There is none of this name.
        StoreError: The file system refused.
    """
    check_title(name, "a search")
    with store.writing_user_data():
        if not is_there(store.saved_search(name)):
            raise AlbumError(f'there is no saved search "{name}"')
        discard(store.saved_search(name))
