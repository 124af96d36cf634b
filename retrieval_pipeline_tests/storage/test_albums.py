"""Albums and searches that people save: what they decided is kept, whatever happens."""

from datetime import UTC, datetime
from pathlib import Path

import pytest

from retrieval_pipeline.errors import AlbumError, StoreError
from retrieval_pipeline.maintenance.gc import collect
from retrieval_pipeline.maintenance.verify import verify
from retrieval_pipeline.storage.albums import (
    add_to_album,
    album_names,
    delete_album,
    read_album,
    remove_from_album,
    rename_album,
)
from retrieval_pipeline.storage.saved_searches import (
    SavedSearch,
    delete_saved_search,
    read_saved_searches,
    save_search,
)
from retrieval_pipeline.storage.store import Store
from synthetic.tables import content

CAT, DOG, CAR = content("cat"), content("dog"), content("car")
NAMES = ["Été 2019", "../etc/passwd", "-x", ".", "子猫 🐈", "a" * 64, "CON"]


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "home")


def ids(store: Store, name: str) -> list[str]:
    return [picture.content_id for picture in read_album(store, name)]


def test_a_renamed_album_keeps_its_pictures_and_takes_no_name_of_another(store: Store) -> None:
    add_to_album(store, "pets", {DOG: None, CAT: "photos/cat.png"})
    add_to_album(store, "cars", {CAR: None})
    before = read_album(store, "pets")
    rename_album(store, "pets", "animals / all")
    assert album_names(store) == ["animals / all", "cars"]
    assert read_album(store, "animals / all") == before
    with pytest.raises(AlbumError, match='there is an album "cars" already'):
        rename_album(store, "animals / all", "cars")
    with pytest.raises(AlbumError, match="no album"):
        rename_album(store, "pets", "dogs")


def test_an_album_is_a_set_in_the_order_of_adding(store: Store) -> None:
    add_to_album(store, "pets", {CAT: "here/cat.jpg"})
    album = add_to_album(store, "pets", {DOG: None, CAT: "moved.jpg"})
    assert [(each.content_id, each.path) for each in album] == [(CAT, "here/cat.jpg"), (DOG, None)]
    assert album == read_album(store, "pets")
    assert [each.content_id for each in remove_from_album(store, "pets", [CAT, CAR])] == [DOG]
    remove_from_album(store, "pets", [DOG])
    assert (ids(store, "pets"), album_names(store)) == ([], ["pets"])
    delete_album(store, "pets")
    with pytest.raises(AlbumError, match=r'no album "pets" \(albums: none yet\)'):
        read_album(store, "pets")


@pytest.mark.parametrize("name", NAMES)
def test_any_line_of_text_names_an_album_and_a_search(store: Store, name: str) -> None:
    add_to_album(store, name, {CAT: None})
    search = SavedSearch(
        name=name, parameters={"text": "a cat"}, saved_at=datetime.now(UTC), seen=frozenset([CAT])
    )
    save_search(store, search)
    assert (album_names(store), ids(store, name)) == ([name], [CAT])
    assert read_saved_searches(store) == [search]
    assert {file.parent.name for file in store.home.rglob("*.*")} <= {"albums", "searches", "home"}
    assert [finding.problem for finding in verify(store)] == [None, None]
    collect(store, [])
    assert ids(store, name) == [CAT]
    delete_saved_search(store, name)
    assert read_saved_searches(store) == []


@pytest.mark.parametrize(
    "name", ["", " a", "a\n", "a\x1b[2J", "a" * 65, "E\u0301te\u0301", "\ud800"]
)
def test_a_name_that_cannot_be_told_apart_or_kept_is_refused(store: Store, name: str) -> None:
    with pytest.raises(AlbumError, match="cannot name an album"):
        add_to_album(store, name, {CAT: None})
    with pytest.raises(AlbumError, match="cannot name a search"):
        save_search(store, SavedSearch(name=name, parameters={}, saved_at=datetime.now(UTC)))
    assert not store.home.exists()


def test_what_is_damaged_is_refused_kept_and_named(store: Store) -> None:
    add_to_album(store, "pets", {CAT: None})
    save_search(store, SavedSearch(name="dogs", parameters={}, saved_at=datetime.now(UTC)))
    damaged = [store.album("pets"), store.saved_search("dogs")]
    for file in damaged:
        file.write_bytes(b"PAR1")
    with pytest.raises(StoreError, match=r"pets\.parquet: damaged.*it is kept"):
        add_to_album(store, "pets", {DOG: None})
    with pytest.raises(StoreError, match=r"dogs\.json: damaged: it is kept"):
        read_saved_searches(store)
    assert [finding.file for finding in verify(store) if finding.problem] == damaged
    assert damaged[0].read_bytes() == b"PAR1"
    # Even what cannot be read can be given up.
    delete_album(store, "pets")
    delete_saved_search(store, "dogs")
    assert not any(file.exists() for file in damaged)
