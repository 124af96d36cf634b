"""The API, through the whole application: real index, real model, real workers."""

import base64
import errno
import os
import re
import time
from collections.abc import Callable, Iterator
from html import unescape
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageOps
from starlette.testclient import TestClient

from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.recommend.votes import add_judgements, read_judgements
from retrieval_pipeline.search.duplicate_plan import LEFT_ALBUM
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.web import library as library_module
from retrieval_pipeline.web import thumbnails, uploads
from retrieval_pipeline.web.api_routes import OPERATIONS
from retrieval_pipeline.web.library import Library
from retrieval_pipeline_tests.support.web import NASTY, WebLibrary, client_of

pytestmark = pytest.mark.slow

UNKNOWN = "0" * 32


@pytest.fixture(scope="module")
def client(indexed_library: WebLibrary) -> Iterator[TestClient]:
    """A client that changes nothing but votes."""
    with client_of(indexed_library) as client:
        yield client


def names(answer: Any) -> list[str]:
    return [hit["path"] for hit in answer.json()["hits"]]


def eventually(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)


def test_words_find_their_pictures_and_say_how_sure_that_is(client: TestClient) -> None:
    answer = client.get("/api/search", params={"text": "a photo of a cat", "k": 3})
    assert answer.status_code == 200
    best = answer.json()["hits"][0]
    assert best["path"] == "cat.png"
    assert {place["path"] for place in best["locations"]} == {"cat.png", "deep/cat again.png"}
    assert best["relevance"] > answer.json()["hits"][1]["relevance"]
    assert best["cluster"]


def test_a_text_of_which_the_model_knows_no_word_gets_a_hint(client: TestClient) -> None:
    assert client.get("/api/search", params={"text": "a cat"}).json()["hints"] == []
    (hint,) = client.get("/api/search", params={"text": "koira"}).json()["hints"]
    assert "understands English only" in hint
    assert "understands English only" in client.get("/", params={"text": "koira"}).text


def test_plus_and_minus_shift_what_is_found(client: TestClient) -> None:
    both = names(client.get("/api/search", params={"text": "a rocket", "plus": "3*a cat", "k": 2}))
    assert "cat.png" in both
    without = names(client.get("/api/search", params={"text": "a cat", "minus": "3*a cat", "k": 3}))
    assert without[0] != "cat.png"


def test_pages_of_an_answer_follow_each_other(client: TestClient) -> None:
    whole = names(client.get("/api/search", params={"text": "a field", "k": 10}))
    parts = [
        names(client.get("/api/search", params={"text": "a field", "k": 5, "offset": offset}))
        for offset in (0, 5)
    ]
    assert parts[0] + parts[1] == whole


def test_the_shapes_of_a_search_are_those_of_its_pictures_in_their_order(
    client: TestClient,
) -> None:
    for query in ({}, {"text": "a field"}, {"source": "drawings"}):
        hits = client.get("/api/search", params=query | {"k": "100"}).json()["hits"]
        expected = [min(max(hit["width"] / hit["height"], 0.56), 2.8) for hit in hits]
        for offset in (0, 7):
            told = client.get("/api/shapes", params=query | {"offset": str(offset)}).json()
            shapes = np.frombuffer(base64.b64decode(told["shapes"]), "<u2")
            assert shapes.tolist() == [round(100 * shape) for shape in expected[offset:]]
            assert not told["more"]
            assert told["likely"] is None or "text" in query
    assert client.get("/api/current").json()["images"] == 20


def test_a_query_is_encoded_once(client: TestClient) -> None:
    first = client.get("/api/search", params={"text": "an astronaut in orbit"}).json()
    again = client.get("/api/search", params={"text": "an astronaut in orbit", "offset": 3}).json()
    assert first["timings_ms"]["encode"] > 0
    assert again["timings_ms"]["encode"] == 0


def test_without_words_everything_is_listed_newest_first(
    client: TestClient, indexed_library: WebLibrary
) -> None:
    answer = client.get("/api/search", params={"k": 100})
    assert len(answer.json()["hits"]) == len(open_current(Store(indexed_library.root / "home")))
    taken = [hit["facts"]["taken_at"] for hit in answer.json()["hits"]]
    known = [day for day in taken if day is not None]
    assert taken == sorted(known, reverse=True) + [None] * (len(taken) - len(known))
    assert answer.json()["more"] is False


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"source": "drawings"}, 12),
        ({"path": "deep/*"}, 1),
        ({"min_width": 700}, 3),
        ({"source": "drawings", "min_width": 700}, 2),
        ({"format": "jpg", "source": "photos"}, 4),
        ({"before": "2001-01-01"}, 0),
        ({"after": "2001-01-01", "path": "field0*"}, 10),
    ],
)
def test_filters_leave_what_passes_all_of_them(
    client: TestClient, filters: dict[str, Any], expected: int
) -> None:
    listed = client.get("/api/search", params=filters)
    found = client.get("/api/search", params=filters | {"text": "anything"})
    assert len(listed.json()["hits"]) == len(found.json()["hits"]) == expected


def test_a_region_of_the_map_confines_an_answer_to_the_pictures_in_it(client: TestClient) -> None:
    everywhere = "-9,-9;9,-9;9,9;-9,9"
    assert len(names(client.get("/api/search", params={"region": everywhere}))) == 20
    left, right = "-9,-9;0,-9;0,9;-9,9", "0,-9;9,-9;9,9;0,9"
    halves = [names(client.get("/api/search", params={"region": half})) for half in (left, right)]
    assert min(map(len, halves)) > 0
    assert len(halves[0]) + len(halves[1]) == 20
    found = client.get("/api/search", params={"region": left, "text": "a cat"})
    assert sorted(names(found)) == sorted(halves[0])


def test_similar_pictures_are_found_and_the_picture_itself_is_not(
    client: TestClient, indexed_library: WebLibrary
) -> None:
    flower = indexed_library.content("flower.jpg")
    answer = client.get("/api/similar", params={"content_id": flower, "k": 2})
    assert names(answer)[0] == NASTY
    assert flower not in [hit["content_id"] for hit in answer.json()["hits"]]


@pytest.mark.parametrize(
    ("path", "field"),
    [
        ("/api/search?k=0", "k"),
        ("/api/search?k=many", "k"),
        ("/api/search?offset=-1", "offset"),
        ("/api/search?colour=red", "colour"),
        ("/api/search?like=me", "like.0"),
        ("/api/search?after=someday", "after"),
        ("/api/search?on=2019-13", "on"),
        ("/api/search?year=0", "year.0"),
        ("/api/search?within=far", "within"),
        ("/api/search?sort=best", "sort"),
        ("/api/search?rating=6", "rating"),
        ("/api/search?min_relevance=2", "min_relevance"),
        ("/api/search?min_relevance=nan", "min_relevance"),
        ("/api/search?region=1,2;3,4", "region"),
        ("/api/search?region=1,2;3,4;nan,5", "region"),
        ("/api/search?crop=1,2,3", "crop"),
        ("/api/search?source=nowhere", "source"),
        (f"/api/search?text={'x' * 1_001}", "text"),
        ("/api/search?" + "&".join(["plus=a"] * 21), "plus"),
        ("/api/pictures/..%2f..%2fetc%2fpasswd", None),
        ("/api/pictures/x", "content_id"),
        (f"/api/pictures/{UNKNOWN}/thumbnail?size=giant", "size"),
        ("/api/judgements", "name"),
        ("/api/judgements?name=../x", "name"),
    ],
)
def test_a_wrong_parameter_is_named(client: TestClient, path: str, field: str | None) -> None:
    answer = client.get(path)
    if field is None:
        assert answer.status_code == 404
    else:
        assert answer.status_code == 400
        assert answer.json()["errors"][0]["field"] == field
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["status"] == answer.status_code


@pytest.mark.parametrize(
    "path",
    [
        f"/api/pictures/{UNKNOWN}",
        f"/api/pictures/{UNKNOWN}/thumbnail",
        f"/api/pictures/{UNKNOWN}/file",
        f"/api/search?like={UNKNOWN}",
        f"/api/search?upload={UNKNOWN}",
        f"/api/similar?content_id={UNKNOWN}",
        f"/api/uploads/{UNKNOWN}",
        "/api/nowhere",
    ],
)
def test_what_is_not_there_is_404_with_a_reason(client: TestClient, path: str) -> None:
    answer = client.get(path)
    assert answer.status_code == 404
    assert answer.json()["detail"]


def test_a_query_that_means_nothing_is_refused(client: TestClient) -> None:
    answer = client.get("/api/search", params={"minus": "people"})
    assert answer.status_code == 400
    assert "empty" in answer.json()["detail"]
    assert client.get("/api/search", params={"plus": "0*snow"}).status_code == 400
    answer = client.get("/api/search", params={"text": "dog", "crop": "0,0,1,1"})
    assert (answer.status_code, "one picture" in answer.json()["detail"]) == (400, True)


def test_details_name_every_file_and_whether_it_is_there(
    library: WebLibrary,
) -> None:
    cat = library.content("cat.png")
    library.photo("cat.png").unlink()
    with client_of(library) as client:
        details = client.get(f"/api/pictures/{cat}").json()
    assert [(file["path"], file["problem"] is None) for file in details["files"]] == [
        ("cat.png", False),
        ("deep/cat again.png", True),
    ]
    assert (details["width"], details["height"], details["format"]) == (451, 300, "PNG")


# Thumbnails


def test_a_thumbnail_is_made_once_and_may_be_kept_for_ever(library: WebLibrary) -> None:
    cat = library.content("cat.png")
    path = f"/api/pictures/{cat}/thumbnail"
    with client_of(library) as client:
        answer = client.get(path)
        with Image.open(BytesIO(answer.content)) as image:
            assert (image.format, max(image.size)) == ("WEBP", 451)
        assert "immutable" in answer.headers["cache-control"]
        kept = Store(library.root / "home").thumbnail(cat, "small")
        made = kept.stat().st_mtime_ns
        assert client.get(path).content == answer.content
        assert kept.stat().st_mtime_ns == made
        tag = answer.headers["etag"]
        again = client.get(path, headers={"if-none-match": f'W/"other", {tag}'})
        assert (again.status_code, again.content) == (304, b"")


def test_a_thumbnail_that_cannot_be_kept_is_shown_all_the_same(library: WebLibrary) -> None:
    web = library.root / "home" / "web"
    web.mkdir(exist_ok=True)
    (web / "thumbnails").write_bytes(b"no directory can be made here")
    with client_of(library) as client:
        answer = client.get(f"/api/pictures/{library.content('cat.png')}/thumbnail")
        assert answer.status_code == 200
        with Image.open(BytesIO(answer.content)) as thumbnail:
            assert thumbnail.format == "WEBP"


def test_a_picture_is_shown_with_all_its_pixels(library: WebLibrary) -> None:
    with Image.open(library.photo("cat.png")) as cat:
        cat.save(library.photo("cat.tif"))
    library.index()
    with client_of(library) as client:
        own = client.get(f"/api/pictures/{library.content('cat.png')}/image")
        assert own.headers["content-type"] == "image/png"
        assert own.content == library.photo("cat.png").read_bytes()
        assert "sandbox" in own.headers["content-security-policy"]
        made = client.get(f"/api/pictures/{library.content('cat.tif')}/image")
        with Image.open(BytesIO(made.content)) as image:
            assert (image.format, image.size) == ("WEBP", (451, 300))
        library.photo("cat.png").write_bytes(b"other bytes")
        library.photo("deep/cat again.png").unlink()
        assert client.get(own.url).status_code == 404


def test_a_thumbnail_is_upright(library: WebLibrary) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.new("RGB", (400, 200), "white")
    picture.paste("red", (0, 0, 400, 100))
    picture.save(library.photo("turned.jpg"), exif=exif)
    library.index()
    with client_of(library) as client:
        turned = library.content("turned.jpg")
        answer = client.get(f"/api/pictures/{turned}/thumbnail?size=large")
        with Image.open(BytesIO(answer.content)) as image:
            assert image.size == (200, 400)
            red, _, blue = image.convert("RGB").getpixel((190, 200))  # type: ignore[misc]
            assert red > 200 > 100 > blue


def test_a_picture_that_is_gone_or_another_by_now_is_said_to_be(library: WebLibrary) -> None:
    rocket, coffee = library.content("rocket.jpg"), library.content("coffee.png")
    library.photo("rocket.jpg").unlink()
    library.photo("coffee.png").write_bytes(library.photo("cat.png").read_bytes())
    with client_of(library) as client:
        gone = client.get(f"/api/pictures/{rocket}/thumbnail")
        changed = client.get(f"/api/pictures/{coffee}/thumbnail")
    assert gone.status_code == changed.status_code == 404
    assert "not there" in gone.json()["detail"]
    assert "another picture" in changed.json()["detail"]


def test_a_copy_stands_in_for_a_picture_that_is_gone(library: WebLibrary) -> None:
    cat = library.content("cat.png")
    library.photo("cat.png").unlink()
    with client_of(library) as client:
        assert client.get(f"/api/pictures/{cat}/thumbnail").status_code == 200
        assert client.get(f"/api/pictures/{cat}/file").status_code == 200


def test_a_link_that_leads_out_of_the_source_is_not_followed(library: WebLibrary) -> None:
    rocket = library.content("rocket.jpg")
    outside = library.root / "secret.jpg"
    library.photo("rocket.jpg").rename(outside)
    library.photo("rocket.jpg").symlink_to(outside)
    with client_of(library) as client:
        for part in ("thumbnail", "file"):
            answer = client.get(f"/api/pictures/{rocket}/{part}")
            assert answer.status_code == 404
            assert "outside" in answer.json()["detail"]


def test_thumbnails_of_pictures_that_left_the_index_go(library: WebLibrary) -> None:
    store = Store(library.root / "home")
    rocket, cat = library.content("rocket.jpg"), library.content("cat.png")
    with client_of(library) as client:
        for content in (rocket, cat):
            assert client.get(f"/api/pictures/{content}/thumbnail").status_code == 200
        library.photo("rocket.jpg").unlink()
        library.index()
        eventually(lambda: not store.thumbnail(rocket, "small").exists())
    assert store.thumbnail(cat, "small").exists()


def test_the_file_is_handed_out_as_it_is_under_its_own_name(library: WebLibrary) -> None:
    nasty = library.content(NASTY)
    with client_of(library) as client:
        answer = client.get(f"/api/pictures/{nasty}/file")
    assert answer.content == library.photo(NASTY).read_bytes()
    assert answer.headers["content-type"] == "application/octet-stream"
    disposition = answer.headers["content-disposition"]
    assert disposition == (
        "attachment; filename*=UTF-8''%3Cimg%20src%3Dx%20onerror%3Dalert%281%29%3E.jpg"
    )


# Uploads


def test_an_upload_is_searched_by_and_can_be_combined_with_words(library: WebLibrary) -> None:
    buffer = BytesIO()
    with Image.open(library.photo("cat.png")) as cat:
        cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT).convert("RGB").save(buffer, "JPEG")
    with client_of(library) as client:
        sent = client.post("/api/uploads", content=buffer.getvalue()).json()
        assert sent["indexed"] is False
        found = client.get("/api/search", params={"upload": sent["content_id"], "k": 1})
        assert names(found) == ["cat.png"]
        shown = client.get(f"/api/uploads/{sent['content_id']}")
        assert shown.headers["content-type"] == "image/webp"
        mixed = {"upload": sent["content_id"], "text": "3*a rocket", "plus": "5*a rocket", "k": 2}
        assert "rocket.jpg" in names(client.get("/api/search", params=mixed))
    with client_of(library) as restarted:
        again = restarted.get("/api/search", params={"upload": sent["content_id"], "k": 1})
        assert names(again) == ["cat.png"]


def test_an_upload_is_searched_by_a_part_of_it(library: WebLibrary) -> None:
    both, buffer = Image.new("RGB", (400, 200)), BytesIO()
    for x, name in ((0, "cat.png"), (200, "rocket.jpg")):
        with Image.open(library.photo(name)) as photo:
            both.paste(ImageOps.fit(photo.convert("RGB"), (200, 200)), (x, 0))
    both.save(buffer, "PNG")
    with client_of(library) as client:
        sent = client.post("/api/uploads", content=buffer.getvalue()).json()
        for crop, name in (("0,0,0.5,1", "cat.png"), ("0.5,0,0.5,1", "rocket.jpg")):
            asked = {"upload": sent["content_id"], "crop": crop, "k": 1}
            found = client.get("/api/search", params=asked)
            assert names(found) == [name]
            assert found.json()["hits"][0]["region"] is None


def test_an_upload_of_an_indexed_picture_is_known(library: WebLibrary) -> None:
    with client_of(library) as client:
        sent = client.post("/api/uploads", content=library.photo("cat.png").read_bytes()).json()
    assert sent == {"content_id": library.content("cat.png"), "indexed": True}


def test_what_is_no_picture_or_too_large_is_refused_and_leaves_nothing(
    library: WebLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MEGABYTES", 0.01)
    corrupt = library.photo("rocket.jpg").read_bytes()[:5_000]
    with client_of(library) as client:
        assert client.post("/api/uploads", content=b"").status_code == 422
        assert client.post("/api/uploads", content=b"<svg/>").status_code == 422
        answer = client.post("/api/uploads", content=corrupt)
        assert (answer.status_code, answer.json()["status"]) == (422, 422)
        large = client.post("/api/uploads", content=bytes(20_000))
        assert large.status_code == 413
        bomb = BytesIO()
        Image.new("1", (20_000, 20_000)).save(bomb, "PNG", optimize=False)
        monkeypatch.setattr(uploads, "MEGABYTES", 50)
    with client_of(library) as client:
        assert client.post("/api/uploads", content=bomb.getvalue()).status_code == 413
    assert list(Store(library.root / "home").uploads.iterdir()) == []


def test_only_the_last_uploads_are_kept(
    library: WebLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "KEPT", 2)
    ids = []
    with client_of(library) as client:
        for colour in ("red", "green", "blue"):
            buffer = BytesIO()
            Image.new("RGB", (50, 50), colour).save(buffer, "PNG")
            ids.append(client.post("/api/uploads", content=buffer.getvalue()).json()["content_id"])
        kept = [client.get(f"/api/uploads/{each}").status_code for each in ids]
    assert kept == [404, 200, 200]


# Votes


def test_votes_are_stored_counted_and_taken_back(library: WebLibrary) -> None:
    store = Store(library.root / "home")
    cat, rocket = library.content("cat.png"), library.content("rocket.jpg")
    with client_of(library) as client:
        for content, liked in ((cat, True), (rocket, True), (rocket, False)):
            vote = {"name": "pets", "content_id": content, "liked": liked}
            answer = client.post("/api/judgements", json=vote)
            assert answer.status_code == 200
        assert answer.json()["votes"] == {cat: True, rocket: False}
        assert len(read_judgements(store, "pets")) == 3
        undone = client.delete("/api/judgements", params={"name": "pets"}).json()
        assert (undone["content_id"], undone["liked"], undone["not_liked"]) == (rocket, 2, 0)
        assert client.get("/api/recommenders").json() == {"names": ["pets"]}
        # Votes of the command line count at once.
        add_judgements(store, "pets", [(cat, False)])
        votes = client.get("/api/judgements", params={"name": "pets"}).json()
        assert votes["votes"] == {cat: False, rocket: True}
        assert votes["liked"] == 1


def test_the_votes_on_one_picture_are_taken_back(library: WebLibrary) -> None:
    cat, rocket = library.content("cat.png"), library.content("rocket.jpg")
    with client_of(library) as client:
        for content_id, liked in ((cat, True), (rocket, True), (cat, False)):
            vote = {"name": "mine", "content_id": content_id, "liked": liked}
            assert client.post("/api/judgements", json=vote).status_code == 200
        client.delete("/api/judgements", params={"name": "mine", "content_id": cat})
        votes = client.get("/api/judgements", params={"name": "mine"}).json()["votes"]
        assert votes == {rocket: True}


def test_after_three_votes_of_each_kind_a_recommender_ranks(library: WebLibrary) -> None:
    with client_of(library) as client:
        first = client.get("/api/recommenders/pets/ranking").json()
        assert (first["hits"], first["missing_liked"]) == ([], 3)
        seen = set()
        for number in range(8):
            picture = client.get("/api/recommenders/pets/next").json()["picture"]
            assert picture["content_id"] not in seen
            seen.add(picture["content_id"])
            vote = {"name": "pets", "content_id": picture["content_id"], "liked": number % 2 == 0}
            tally = client.post("/api/judgements", json=vote).json()
        assert (tally["liked"], tally["not_liked"]) == (4, 4)
        assert 0 <= tally["right"] <= tally["predicted"] == 2
        ranked = client.get("/api/recommenders/pets/ranking", params={"k": 5}).json()["hits"]
        assert len(ranked) == 5
        assert not seen & {hit["content_id"] for hit in ranked}
        scores = [hit["score"] for hit in ranked]
        assert scores == sorted(scores, reverse=True)


def test_a_vote_on_a_full_disk_is_refused_and_does_not_count(
    library: WebLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    cat = library.content("cat.png")
    vote = {"name": "pets", "content_id": cat, "liked": True}
    with client_of(library) as client:
        assert client.post("/api/judgements", json=vote).status_code == 200

        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            answer = client.post("/api/judgements", json=vote | {"liked": False})
        assert answer.status_code == 507
        assert "no space left" in answer.json()["detail"]
        assert client.get("/api/judgements?name=pets").json()["votes"] == {cat: True}


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b'{"name": "pets"}',
        b'{"name": "pets", "content_id": "x", "liked": true}',
        b'{"name": "pets", "content_id": "' + UNKNOWN.encode() + b'", "liked": 1}',
        b'{"name": "../x", "content_id": "' + UNKNOWN.encode() + b'", "liked": true}',
    ],
)
def test_a_vote_that_is_not_one_is_refused(client: TestClient, body: bytes) -> None:
    answer = client.post(
        "/api/judgements", content=body, headers={"content-type": "application/json"}
    )
    assert answer.status_code == 400
    assert answer.json()["errors"]


def test_a_vote_on_an_unknown_picture_or_as_a_form_is_refused(client: TestClient) -> None:
    vote = {"name": "pets", "content_id": UNKNOWN, "liked": True}
    assert client.post("/api/judgements", json=vote).status_code == 404
    form = client.post("/api/judgements", content=b"x", headers={"content-type": "text/plain"})
    assert form.status_code == 415
    long = client.post("/api/judgements", json=vote | {"name": "x" * 20_000})
    assert long.status_code == 413


# The rest


def test_the_map_has_every_picture_and_the_score_of_a_query(client: TestClient) -> None:
    data = client.get("/api/map", params={"text": "a cat"}).json()
    assert len(base64.b64decode(data["ids"])) == 16 * 20
    scores = np.frombuffer(base64.b64decode(data["score"]), "<f4")
    ids = base64.b64decode(data["ids"]).hex()
    best = int(np.argmax(scores))
    found = client.get("/api/search", params={"text": "a cat", "k": 1}).json()["hits"][0]
    assert ids[32 * best : 32 * best + 32] == found["content_id"]
    assert scores[best] == pytest.approx(found["score"], abs=1e-5)
    assert sum(cluster["images"] for cluster in data["clusters"]) == 20
    assert client.get("/api/map").json()["score"] is None


def test_duplicates_are_compared_once_and_listed(client: TestClient) -> None:
    eventually(lambda: client.get("/api/duplicates").json()["ready"])
    groups = client.get("/api/duplicates").json()["groups"]
    paths = [{place["path"] for twin in group for place in twin["locations"]} for group in groups]
    assert {"cat.png", "deep/cat again.png"} in paths
    assert any({"flower.jpg", NASTY} <= group for group in paths)


def test_the_page_of_duplicates_marks_what_stays_and_gives_a_script_for_the_rest(
    client: TestClient, indexed_library: WebLibrary
) -> None:
    eventually(lambda: client.get("/api/duplicates").json()["ready"])

    def going(**asked: str) -> set[str]:
        page = client.get("/duplicates", params=asked).text
        return {unescape(path) for path in re.findall(r'goes" data-path="([^"]+)"', page)}

    def steps(**asked: str) -> list[str]:
        script = client.get("/duplicates/script", params=asked)
        assert script.headers["content-disposition"].startswith("attachment")
        return [line for line in script.text.splitlines() if re.match(r"step \d", line)]

    copy = str(indexed_library.photo("deep/cat again.png"))
    assert copy in going()
    assert str(indexed_library.photo("cat.png")) in going(folder="deep/*")
    assert copy not in going(reference="photos")
    cat = indexed_library.content("cat.png")
    assert len(steps()) == len(going())
    assert sum(copy in step for step in steps()) == 1
    # What somebody wants to leave is kept by the server, for the command line too.
    decided = {"name": LEFT_ALBUM, "content_ids": [cat, UNKNOWN]}
    for operation, counts in (("add", False), ("remove", True)):
        assert client.post(f"/api/albums/{operation}", json=decided).status_code == 200
        assert any(copy in step for step in steps()) == counts
        box = f'data-leave="{cat}"' + ("" if counts else " checked")
        assert f"{box}>" in client.get("/duplicates").text
    # Of those that were selected alone.
    flower = indexed_library.content("flower.jpg")
    assert going(among=cat) == {copy}
    assert copy not in going(among=flower)
    assert steps(among=flower)
    assert not any(copy in step for step in steps(among=flower))
    assert client.get("/duplicates", params={"first": "prettiest"}).status_code == 400


def test_what_failed_is_listed_with_its_reason(client: TestClient) -> None:
    failures = client.get("/api/quarantine").json()
    assert failures["reasons"] == {"truncated": 1}
    assert failures["failures"][0]["path"] == "broken.jpg"
    assert client.get("/api/quarantine?reason=crashed").json()["failures"] == []


def test_the_status_tells_sources_build_and_runs(client: TestClient) -> None:
    status = client.get("/api/status").json()
    assert [source["name"] for source in status["sources"]] == ["photos", "drawings"]
    assert status["serving"] == status["build"] == status["runs"][0]["build"]
    assert status["index"]["items"] == 20


def test_while_a_run_is_at_work_the_pages_say_so(library: WebLibrary) -> None:
    store = Store(library.root / "home")
    with client_of(library) as client:
        assert "at work now" not in client.get("/status").text
        with store.locked():
            page = client.get("/status").text
            assert "at work now" in page
            assert "nothing is indexed" not in page
            assert client.get("/api/status").json()["running"]
    store.current_file.unlink()
    with client_of(library) as client, store.locked():
        assert "A run is indexing them now" in client.get("/").text


def test_text_is_compressed_and_a_page_says_why_a_picture_is_not_there(
    client: TestClient,
) -> None:
    answer = client.get("/?text=cat")
    assert answer.headers["content-encoding"] == "gzip"
    assert int(answer.headers["content-length"]) < len(answer.content) / 4
    assert "maybe not any more" in client.get(f"/picture/{UNKNOWN}").text


def test_the_openapi_document_names_every_operation_of_the_api(client: TestClient) -> None:
    document = client.get("/api/openapi.json").json()
    operations = [
        operation for methods in document["paths"].values() for operation in methods.values()
    ]
    assert len(operations) == len(OPERATIONS)
    assert all(operation["summary"].endswith(".") for operation in operations)
    assert document["paths"]["/api/search"]["get"]["parameters"][0]["name"]


# Builds that come and go


def test_before_there_is_an_index_it_says_so_and_then_picks_it_up(
    library: WebLibrary,
) -> None:
    store = Store(library.root / "home")
    pointer = store.current_file.read_text()
    store.current_file.unlink()
    with client_of(library) as client:
        answer = client.get("/api/search")
        assert answer.status_code == 503
        assert "nothing is indexed yet" in answer.json()["detail"]
        page = client.get("/")
        assert page.status_code == 503
        assert "retrieval index" in page.text
        for path in ("/api/status", "/status", "/quarantine", "/api"):
            assert client.get(path).status_code == 200
        store.current_file.write_text(pointer)
        eventually(lambda: client.get("/api/search").status_code == 200)


def test_a_new_build_is_picked_up_with_its_sources_and_the_old_one_lives_on(
    library: WebLibrary,
) -> None:
    with client_of(library) as client:
        before = client.get("/api/status").json()["serving"]
        (library.root / "more").mkdir()
        Image.new("RGB", (90, 60), "orange").save(library.root / "more" / "orange.png")
        with library.settings_file.open("a") as file:
            file.write('[[sources]]\nname = "more"\npath = "more"\n')
        library.index()
        eventually(lambda: client.get("/api/status").json()["serving"] != before)
        found = client.get("/api/search", params={"source": "more"}).json()["hits"]
        assert [hit["path"] for hit in found] == ["orange.png"]
        content = found[0]["content_id"]
        assert client.get(f"/api/pictures/{content}/thumbnail").status_code == 200


def test_a_source_that_moved_is_found_where_the_settings_say(library: WebLibrary) -> None:
    rocket = library.content("rocket.jpg")
    with client_of(library) as client:
        (library.root / "photos").rename(library.root / "moved")
        assert client.get(f"/api/pictures/{rocket}/thumbnail").status_code == 404
        text = library.settings_file.read_text()
        library.settings_file.write_text("broken")
        time.sleep(1.2)
        library.settings_file.write_text(text.replace('path = "photos"', 'path = "moved"'))
        eventually(lambda: client.get(f"/api/pictures/{rocket}/file").status_code == 200)


def test_a_damaged_new_build_leaves_the_old_one_answering(library: WebLibrary) -> None:
    store = Store(library.root / "home")
    with client_of(library) as client:
        store.current_file.write_text("offline@0/nothing\n")
        time.sleep(1.5)
        assert client.get("/api/search", params={"text": "a cat", "k": 1}).status_code == 200


def test_a_model_that_cannot_be_loaded_leaves_everything_else_working(
    library: WebLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    from retrieval_pipeline.encoders import load as encoders
    from retrieval_pipeline.errors import EncoderError

    tries = []

    def broken(*_: object, **__: object) -> None:
        tries.append(1)
        raise EncoderError("the model is gone: get it back")

    monkeypatch.setattr(encoders, "load_text_encoder_of", broken)
    with client_of(library) as client:
        for _ in range(3):
            answer = client.get("/api/search", params={"text": "a cat"})
            assert (answer.status_code, answer.json()["title"]) == (
                503,
                "The model cannot be loaded",
            )
        assert len(tries) <= 2
        assert "get it back" in client.get("/", params={"text": "a cat"}).text
        assert client.get("/api/search").status_code == 200
        similar = client.get("/api/search", params={"like": library.content("cat.png")})
        assert similar.status_code == 200


def test_nothing_is_written_outside_of_home(library: WebLibrary) -> None:
    def listing() -> dict[Path, int]:
        return {
            path: path.stat().st_mtime_ns
            for path in library.root.rglob("*")
            if library.root / "home" not in (path, *path.parents) and path != library.root
        }

    before = listing()
    with client_of(library) as client:
        cat = library.content("cat.png")
        client.get(f"/api/pictures/{cat}/thumbnail")
        client.post("/api/uploads", content=library.photo("cat.png").read_bytes())
        client.post("/api/judgements", json={"name": "a", "content_id": cat, "liked": True})
        client.get("/api/search", params={"text": "a cat"})
    assert listing() == before


def test_two_who_want_the_same_thumbnail_share_one_making(
    library: WebLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    from concurrent.futures import ThreadPoolExecutor

    made = []
    encode = thumbnails.encoded

    def encoded(pixels: npt.NDArray[np.uint8], **options: Any) -> bytes:
        made.append(pixels)
        return encode(pixels, **options)

    monkeypatch.setattr(thumbnails, "encoded", encoded)
    cat = library.content("cat.png")
    with client_of(library) as client, ThreadPoolExecutor(8) as threads:
        jobs = [threads.submit(client.get, f"/api/pictures/{cat}/thumbnail") for _ in range(8)]
        assert {job.result().status_code for job in jobs} == {200}
    assert len(made) == 1


def test_a_new_index_is_noticed_after_one_that_could_not_be_read(
    library: WebLibrary, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(library_module, "FAILED_SECONDS", 0.05)
    monkeypatch.setattr(library_module, "LOOK_SECONDS", 0.05)
    look, failures = Library.look, iter(range(3))

    async def unreadable(self: Library) -> float:
        # Other servers of this process look for their own indexes.
        here = self.store.home == library.settings.home
        if here and self.is_open and next(failures, None) is not None:
            raise PermissionError(13, "Permission denied")
        return await look(self)

    monkeypatch.setattr(Library, "look", unreadable)
    with client_of(library) as client:
        before = client.get("/api/status").json()["serving"]
        library.photo("rocket.jpg").unlink()
        library.index()
        eventually(lambda: client.get("/api/status").json()["serving"] != before)
    assert caplog.text.count("Permission denied") == 1


def test_a_thumbnail_of_a_source_that_left_the_settings_is_not_served(
    library: WebLibrary,
) -> None:
    rocket = library.content("rocket.jpg")
    with client_of(library) as client:
        assert client.get(f"/api/pictures/{rocket}/thumbnail").status_code == 200
    text = library.settings_file.read_text("utf-8").replace('name = "photos"', 'name = "others"')
    library.settings_file.write_text(text, "utf-8")
    with client_of(library) as client:
        answer = client.get(f"/api/pictures/{rocket}/thumbnail")
    assert answer.status_code == 404
    assert "not in the settings" in answer.json()["detail"]
