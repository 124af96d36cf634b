"""What may not come in, what may not get out, and what every answer says about itself."""

import asyncio
import functools
import os
import re
import shutil
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from pathlib import Path
from urllib.parse import quote

import pytest
from starlette.testclient import TestClient

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.images.errors import ImageError
from retrieval_pipeline.web import api, reveal
from retrieval_pipeline.web.app import create_app
from retrieval_pipeline.web.library import Library
from retrieval_pipeline.web.problems import MEDIA_TYPE, RequestError
from retrieval_pipeline.web.security import Access, is_loopback
from retrieval_pipeline.web.server import bounded_server
from retrieval_pipeline.web.uploads import AT_ONCE
from retrieval_pipeline_tests.support.web import NASTY, WebLibrary, client_of

TOKEN = "a token that nobody can guess"


@pytest.fixture(scope="module")
def client(indexed_library: WebLibrary) -> Iterator[TestClient]:
    with client_of(indexed_library) as client:
        yield client


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8765", 200),
        ("localhost", 200),
        ("[::1]:8765", 200),
        ("127.0.0.2:8765", 200),
        ("127.255.0.1", 200),
        ("126.0.0.1", 421),
        ("127.1.evil.example", 421),
        ("evil.example", 421),
        ("127.0.0.1.evil.example:8765", 421),
        ("localhost.evil.example", 421),
        ("[", 421),
        ("", 421),
    ],
)
def test_a_foreign_name_for_this_machine_is_refused(
    client: TestClient, host: str, status: int
) -> None:
    for path in ("/", "/api/search", "/static/1/style.css"):
        assert client.get(path, headers={"host": host}).status_code == status


@pytest.mark.parametrize(
    "headers",
    [
        {"x-retrieval-token": ""},
        {"x-retrieval-token": "wrong"},
        {"x-retrieval-token": "naïve".encode()},
        {"origin": "http://evil.example"},
        {"origin": "http://127.0.0.1:9999"},
        {"origin": "null"},
        {"origin": "http://["},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
    ],
)
def test_a_change_needs_the_token_and_this_origin(
    client: TestClient, headers: dict[str, str | bytes]
) -> None:
    vote = {"name": "x", "content_id": "0" * 32, "liked": True}
    allowed = client.post("/api/judgements", json=vote, headers={"origin": str(client.base_url)})
    assert allowed.status_code == 404
    for method, path in (
        ("POST", "/api/judgements"),
        ("DELETE", "/api/judgements?name=x"),
        ("POST", "/api/uploads"),
        ("POST", f"/api/pictures/{'0' * 32}/show-in-folder"),
    ):
        answer = client.request(method, path, headers=headers)
        assert answer.status_code == 403
        assert answer.headers["content-type"] == "application/problem+json"


def test_a_vote_without_a_script_needs_the_token_in_its_form(client: TestClient) -> None:
    page = client.get("/vote?name=form").text
    token = page.partition('name="token" value="')[2].partition('"')[0]
    # The same secret looks different in each answer, so that compression cannot betray it.
    assert token not in client.get("/vote?name=form").text
    headers = {"x-retrieval-token": "", "content-type": "application/x-www-form-urlencoded"}
    for given, status in ((token, 303), ("", 403), (token[:-4] + "AAAA", 403), ("naïve", 403)):
        answer = client.post(
            "/vote",
            data={"token": given, "name": "form", "vote": "u"},
            headers=headers,
            follow_redirects=False,
        )
        assert answer.status_code == status
    foreign = {"origin": "http://evil.example"}
    answer = client.post("/vote", data={"token": token, "name": "form"}, headers=foreign)
    assert answer.status_code == 403


def test_behind_a_proxy_all_addresses_lie_below_its_path_and_the_cookie_is_for_tls_alone(
    indexed_library: WebLibrary,
) -> None:
    load = functools.partial(load_settings, indexed_library.settings_file)
    for proxies, secure in ((["10.0.0.9"], True), ([], False), (["10.0.0.8"], False)):
        config = bounded_server(create_app(load, Access(TOKEN), root_path="/pics"), proxies).config
        config.load()
        with TestClient(
            config.loaded_app, base_url="http://photos.example", client=("10.0.0.9", 1)
        ) as client:
            entered = client.get(
                f"/pics/?token={quote(TOKEN)}",
                headers={"x-forwarded-proto": "https", "x-forwarded-for": "192.0.2.1"},
                follow_redirects=False,
            )
            assert entered.headers["location"] == "/pics/"
            assert "Path=/pics;" in entered.headers["set-cookie"]
            assert ("Secure" in entered.headers["set-cookie"]) == secure
            client.headers["authorization"] = f"Bearer {TOKEN}"
            # A proxy may hand on the path that it answers to, or take it away.
            for path in ("/pics/", "/pics", "/vote", "/pics/map", "/status", "/pics/nowhere"):
                page = client.get(path).text
                found = re.findall(r'(?:href|src|action)="(/[^"]*)"', page)
                assert len(found) > 5
                assert all(each.startswith("/pics/") for each in found)
            assert client.get("/pics/api/nowhere").headers["content-type"] == MEDIA_TYPE


def test_no_other_origin_may_read_an_answer(client: TestClient) -> None:
    answer = client.get("/api/token", headers={"origin": "http://evil.example"})
    assert "access-control-allow-origin" not in answer.headers
    preflight = client.options(
        "/api/judgements",
        headers={
            "origin": "http://evil.example",
            "access-control-request-method": "POST",
            "access-control-request-headers": "x-retrieval-token",
        },
    )
    assert preflight.status_code == 405
    assert "access-control-allow-origin" not in preflight.headers


@pytest.mark.parametrize(
    "path", ["/", "/nowhere", "/api/status", "/api/nowhere", "/static/1/style.css"]
)
def test_every_answer_has_tight_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["cross-origin-resource-policy"] == "same-origin"
    assert "server" not in headers


@pytest.mark.parametrize(
    "path",
    ["/", "/?text=a+flower", "/map", "/vote", "/duplicates", "/status", "/quarantine", "/api"],
)
def test_no_page_has_inline_script_or_style_or_loads_anything_from_elsewhere(
    client: TestClient, path: str
) -> None:
    answer = client.get(path)
    assert "unsafe" not in answer.headers["content-security-policy"]
    page = answer.text
    assert " style=" not in page
    assert "<style" not in page
    assert " onclick" not in page and " onload" not in page
    for script in page.split("<script")[1:]:
        assert 'src="/static/' in script.partition(">")[0]
        assert script.partition(">")[2].startswith("</script>")
    for address in page.replace("'", '"').split('src="')[1:]:
        assert address.startswith("/") and not address.startswith("//")


def test_names_and_queries_are_shown_as_text_everywhere(
    client: TestClient, indexed_library: WebLibrary
) -> None:
    content = indexed_library.content(NASTY)
    attack = '"><script>alert(1)</script>'
    pages = [
        client.get("/", params={"text": "a flower"}),
        client.get(f"/picture/{content}"),
        client.get("/duplicates"),
        client.get("/", params={"text": attack, "plus": attack, "path": attack}),
        client.get("/", params={"source": attack}),
        client.get("/", params={attack: attack}),
        client.get("/quarantine", params={"reason": attack, "source": attack}),
        client.get(f"/{attack}"),
    ]
    assert "&lt;img src=x onerror=alert(1)&gt;" in pages[0].text
    for page in pages:
        assert "<img src=x" not in page.text
        assert "<script>alert" not in page.text


def test_no_path_or_address_of_the_client_is_ever_opened(client: TestClient) -> None:
    for name in ("path", "like", "upload", "source", "region"):
        for value in (
            "/etc/passwd",
            "file:///etc/passwd",
            "http://127.0.0.1:1/",
            "../../retrieval.toml",
        ):
            answer = client.get("/api/search", params={name: value})
            assert answer.status_code in (200, 400)
            assert "root:" not in answer.text
    for path in (
        "/static/1/../../api.py",
        "/static/1/%2e%2e/api.py",
        "/static/1/..%2fapi.py",
        "/static/1//etc/passwd",
        "/picture/..%2f..%2fretrieval.toml",
    ):
        assert client.get(path).status_code in (400, 404)


@pytest.mark.parametrize("method", ["PUT", "PATCH", "TRACE", "CONNECT", "FOO"])
def test_other_methods_are_refused(client: TestClient, method: str) -> None:
    answer = client.request(method, "/api/search")
    assert answer.status_code == 405
    assert answer.headers["allow"]


def test_a_method_that_a_path_does_not_know_is_a_problem_too(client: TestClient) -> None:
    answer = client.post("/api/search")
    assert (answer.status_code, answer.json()["title"]) == (405, "Method Not Allowed")


def test_a_bug_is_a_problem_without_details_and_with_all_headers(
    indexed_library: WebLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(api, "recommender_names", broken)
    with client_of(indexed_library, raise_server_exceptions=False) as client:
        answer = client.get("/api/recommenders")
    assert answer.status_code == 500
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert "secret" not in answer.text


# Other machines


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.2.1"])
def test_loopback_addresses_are_known(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "::", "192.168.1.5", "example.org", "127.0.0.1.example"]
)
def test_other_addresses_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_with_a_token_nothing_is_shown_to_whoever_does_not_know_it(
    indexed_library: WebLibrary,
) -> None:
    content = indexed_library.content("cat.png")
    with client_of(indexed_library, Access(TOKEN)) as client:
        for path in ("/", "/api/search", f"/api/pictures/{content}/file", "/static/1/search.js"):
            for attempt in ({}, {"params": {"token": "wrong"}}):
                answer = client.get(path, **attempt)  # type: ignore[arg-type]
                assert answer.status_code == 401
                assert "cat.png" not in answer.text
        wrong = client.get("/api/search", headers={"authorization": "Bearer wrong"})
        assert wrong.status_code == 401
        client.cookies.set("retrieval", TOKEN)
        assert client.get("/api/search").status_code == 401


def test_the_token_is_given_once_and_leaves_the_address(indexed_library: WebLibrary) -> None:
    with client_of(indexed_library, Access(TOKEN)) as client:
        # Any name will do: who has the cookie knows the token.
        first = client.get(
            "/?text=a+cat&token=" + TOKEN.replace(" ", "+"),
            headers={"host": "nas.example:8765"},
            follow_redirects=False,
        )
        assert first.status_code == 303
        assert first.headers["location"] == "/?text=a+cat"
        cookie = first.headers["set-cookie"]
        assert "HttpOnly" in cookie and "SameSite=lax" in cookie
        assert TOKEN not in cookie
        value = cookie.partition("=")[2].partition(";")[0]
        client.cookies.set("retrieval", value)
        assert client.get("/api/status").status_code == 200
    with client_of(indexed_library, Access(TOKEN)) as restarted:
        restarted.cookies.set("retrieval", value)
        assert restarted.get("/api/status").status_code == 200
    with client_of(indexed_library, Access(TOKEN + "!")) as other:
        other.cookies.set("retrieval", value)
        assert other.get("/api/status").status_code == 401


def test_the_redirect_after_the_token_stays_on_this_host(indexed_library: WebLibrary) -> None:
    with client_of(indexed_library, Access(TOKEN)) as client:
        answer = client.get(
            "http://127.0.0.1:8765//evil.example/",
            params={"token": TOKEN},
            follow_redirects=False,
        )
        assert answer.headers["location"] == "/evil.example/"


def test_a_program_may_send_the_token_in_a_header(indexed_library: WebLibrary) -> None:
    with client_of(indexed_library, Access(TOKEN)) as client:
        bearer = {"authorization": f"Bearer {TOKEN}"}
        assert client.get("/api/status", headers=bearer).status_code == 200


# The file manager


def test_a_folder_is_opened_on_this_machine_only_and_only_that_of_an_indexed_file(
    indexed_library: WebLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []
    monkeypatch.setattr(reveal, "opener", lambda: "/usr/bin/true")
    monkeypatch.setattr(reveal.subprocess, "Popen", lambda command, **_: started.append(command))
    path = f"/api/pictures/{indexed_library.content('cat.png')}/show-in-folder"
    with client_of(indexed_library, client=("127.0.0.1", 50_000)) as client:
        assert client.post(path).status_code == 204
        assert started == [["/usr/bin/true", str(indexed_library.root / "photos")]]
        assert client.post(path.replace("a", "b")).status_code in (400, 404)
    with client_of(indexed_library, client=("192.168.1.7", 50_000)) as client:
        assert client.post(path).status_code == 409
    with client_of(indexed_library, Access(TOKEN), client=("127.0.0.1", 50_000)) as client:
        assert client.post(path, headers={"authorization": f"Bearer {TOKEN}"}).status_code == 409
    assert len(started) == 1


def test_without_a_screen_there_is_no_file_manager(
    indexed_library: WebLibrary, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reveal.sys, "platform", "linux")
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    with client_of(indexed_library, client=("127.0.0.1", 50_000)) as client:
        content = indexed_library.content("cat.png")
        assert client.post(f"/api/pictures/{content}/show-in-folder").status_code == 409
        assert "data-reveal" not in client.get(f"/picture/{content}").text


def test_a_hostile_cookie_costs_no_time(indexed_library: WebLibrary) -> None:
    cookie = 'a="' + "\\0" * 30_000
    with client_of(indexed_library, Access(TOKEN)) as client, ThreadPoolExecutor(1) as pool:
        answer = pool.submit(client.get, "/", headers={"cookie": cookie, "authorization": ""})
        assert answer.result(timeout=60).status_code == 401


def test_a_picture_is_set_aside_by_a_change_only(library: WebLibrary) -> None:
    with client_of(library) as client:
        asked = client.get("/api/recommenders/x/next").json()["picture"]["content_id"]
        for path in ("/vote", "/fragments/vote"):
            assert client.get(f"{path}?name=x&gone={asked}").status_code == 400
        assert client.get("/api/recommenders/x/next").json()["picture"]["content_id"] == asked
        body = {"name": "x", "content_id": asked}
        assert client.post("/api/set-aside", json=body).status_code == 204
        assert client.get("/api/recommenders/x/next").json()["picture"]["content_id"] != asked


# Files


def test_a_file_is_sent_only_if_it_still_holds_the_picture(library: WebLibrary) -> None:
    rocket, cat = library.photo("rocket.jpg"), library.photo("cat.png")
    content, bytes_of_rocket = library.content("rocket.jpg"), rocket.read_bytes()
    address = f"/api/pictures/{content}/file"
    with client_of(library) as client:
        assert client.get(address).content == bytes_of_rocket
        rocket.write_bytes(cat.read_bytes())
        assert client.get(address).status_code == 404
        rocket.unlink()
        os.mkfifo(rocket)
        assert client.get(address).status_code == 404


def test_a_link_that_took_the_place_of_a_file_or_folder_is_not_followed(
    library: WebLibrary, tmp_path: Path
) -> None:
    rocket = library.photo("rocket.jpg")
    content = library.content("rocket.jpg")
    outside = tmp_path / "outside"
    outside.mkdir()
    shutil.copy(rocket, outside / "rocket.jpg")
    rocket.unlink()
    rocket.symlink_to(outside / "rocket.jpg")
    with client_of(library) as client:
        answer = client.get(f"/api/pictures/{content}/file")
    assert answer.status_code == 404, "the same bytes, but from outside of the source"


def test_only_so_many_uploads_are_received_at_a_time(library: WebLibrary) -> None:
    async def run() -> None:
        async with Library(lambda: library.settings) as served:
            hold = asyncio.Event()

            async def endless() -> AsyncIterator[bytes]:
                yield b"x"
                await hold.wait()

            tasks = [asyncio.create_task(served.uploads.receive(endless())) for _ in range(AT_ONCE)]
            await asyncio.sleep(0)
            with pytest.raises(RequestError) as refused:
                await served.uploads.receive(endless())
            assert refused.value.status == HTTPStatus.SERVICE_UNAVAILABLE
            hold.set()
            for task in tasks:
                with pytest.raises(ImageError):
                    await task
            photo = library.photo("rocket.jpg").read_bytes()

            async def whole() -> AsyncIterator[bytes]:
                yield photo

            assert await served.uploads.receive(whole()) == library.content("rocket.jpg")

    asyncio.run(run())
