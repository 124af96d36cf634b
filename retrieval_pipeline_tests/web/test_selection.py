"""What is done with several pictures at once, through the whole application."""

import io
import zipfile

import pytest

from retrieval_pipeline.index.items import Location
from retrieval_pipeline.index.records import IndexedFile
from retrieval_pipeline.web import selection
from retrieval_pipeline_tests.support.web import NASTY, WebLibrary, client_of

pytestmark = pytest.mark.slow


def test_a_zip_file_holds_the_right_bytes_and_tells_what_is_left_out(
    library: WebLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    cat, nasty, rocket = (library.content(name) for name in ("cat.png", NASTY, "rocket.jpg"))
    bytes_of_cat = library.photo("cat.png").read_bytes()
    # Of the cat there is a copy; the rocket's file holds other bytes by now.
    library.photo("cat.png").write_bytes(b"other bytes")
    library.photo("rocket.jpg").write_bytes(b"other bytes, too")
    with client_of(library) as client:
        answer = client.post("/api/zip", json={"content_ids": [cat, nasty, rocket, cat]})
        assert answer.headers["content-type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.testzip() is None
            assert archive.namelist() == [
                "photos/deep/cat again.png",
                f"photos/{NASTY}",
                selection.LEFT_OUT,
            ]
            assert archive.read("photos/deep/cat again.png") == bytes_of_cat
            told = archive.read(selection.LEFT_OUT).decode()
            assert told == "photos/rocket.jpg: the file holds another picture by now\n"
        monkeypatch.setattr(selection, "LARGEST_ZIP", 1_000)
        refused = client.post("/api/zip", json={"content_ids": [nasty]})
        assert refused.status_code == 413
        # The page sends a form, which needs the token, too.
        form = {"content_ids": nasty}
        assert client.post("/zip", data=form).status_code == 403
        assert client.post("/api/zip", json={"content_ids": ["../etc"]}).status_code == 400


def test_the_page_of_albums_renames_and_deletes_them_and_needs_its_token(
    library: WebLibrary,
) -> None:
    cat = library.content("cat.png")
    with client_of(library) as client:
        asked = {"name": "pets", "content_ids": [cat]}
        assert client.post("/api/albums/add", json=asked).status_code == 200
        page = client.get("/albums").text
        assert "1 picture<" in page
        assert f"/picture/{cat}" in page
        token = client.get("/api/token").json()["token"]
        form = {"name": "pets", "to": "Été <b>", "do": "rename"}
        assert client.post("/albums", data=form).status_code == 403
        renamed = client.post("/albums", data=form | {"token": token})
        assert "Été &lt;b&gt;" in renamed.text
        assert client.get("/api/albums").json()["names"] == ["Été <b>"]
        gone = client.post("/albums", data=form | {"token": token})
        assert gone.status_code == 400
        assert "there is no album" in gone.text
        form = {"name": "Été <b>", "do": "delete", "token": token}
        assert "There is no album yet" in client.post("/albums", data=form).text


@pytest.mark.parametrize("years", [-200, 200])
def test_a_zip_file_takes_odd_names_and_times_and_leads_out_of_no_directory(years: int) -> None:
    location = Location("photos", "..\\..\\evil.png")
    file = IndexedFile(location, size=4, mtime_ns=years * 365 * 24 * 3600 * 10**9)
    with zipfile.ZipFile(io.BytesIO(), "w") as archive:
        archive.writestr(selection.entry_of(file), b"cats")
        assert archive.namelist() == ["photos/.._.._evil.png"]


def test_votes_on_several_pictures_are_all_or_none_and_are_taken_back(
    library: WebLibrary,
) -> None:
    cat, rocket = library.content("cat.png"), library.content("rocket.jpg")
    with client_of(library) as client:

        def vote(liked: bool | None, *ids: str) -> dict[str, bool]:
            body = {"name": "many", "content_ids": ids, "liked": liked}
            answer = client.post("/api/judgements/several", json=body)
            assert answer.status_code == (404 if "0" * 32 in ids else 200)
            votes = client.get("/api/judgements", params={"name": "many"})
            found: dict[str, bool] = votes.json()["votes"]
            return found

        assert vote(True, cat, "0" * 32) == {}
        assert vote(True, cat, rocket) == {cat: True, rocket: True}
        assert vote(False, rocket) == {cat: True, rocket: False}
        assert vote(None, cat, rocket) == {}


def test_ids_are_listed_in_the_order_of_the_search(library: WebLibrary) -> None:
    with client_of(library) as client:
        for search in ({"sort": "name"}, {"text": "a cat"}):
            hits = client.get("/api/search", params={**search, "k": "7"}).json()["hits"]
            ids = client.get("/api/ids", params={**search, "offset": "2", "k": "5"}).json()
            assert ids["content_ids"] == [hit["content_id"] for hit in hits][2:]
