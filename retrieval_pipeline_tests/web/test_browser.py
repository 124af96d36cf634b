"""The pages in a real browser: Chromium, driven by Playwright, against a real server."""

import itertools
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Browser, Page, Route, expect, sync_playwright

from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline_tests.cli.test_serve_command import server
from retrieval_pipeline_tests.support.web import NASTY, WebLibrary
from synthetic.tables import random_vectors, write_manifest, write_part

pytestmark = pytest.mark.slow

CHROMIUM = Path("/usr/bin/chromium")
# Milliseconds: encoding on a busy machine takes its time.
PATIENCE = 60_000

Open = Callable[..., Page]

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM.exists():
        pytest.skip("Chromium is not installed: apt-get install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM,
            # Containers have no name spaces for a sandbox, and little shared memory.
            args=["--no-sandbox", "--disable-dev-shm-usage"],
        )
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def shared(
    indexed_library: WebLibrary, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[WebLibrary, str]]:
    """A library and the address of its server; tests may vote, each in a name of its own."""
    library = indexed_library.copied(tmp_path_factory.mktemp("browser") / "library")
    with server(library) as (_, address):
        yield library, address


@pytest.fixture
def open_page(browser: Browser) -> Iterator[Open]:
    """Open pages; in the end no script may have failed and no policy been broken."""
    contexts = []
    complaints: list[str] = []
    hosts: set[str] = set()

    def opener(address: str, **options: object) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})  # type: ignore[arg-type]
        context.set_default_timeout(PATIENCE)
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: complaints.append(str(error)))
        page.on("dialog", lambda dialog: complaints.append(f"dialog: {dialog.message}"))
        page.on(
            "console",
            lambda message: (
                complaints.append(message.text)
                if message.type == "error" and "Failed to load resource" not in message.text
                else None
            ),
        )
        page.on(
            "request", lambda request: hosts.add(re.sub(r"^(\w+:)/*([^/:]*).*", r"\2", request.url))
        )
        page.goto(address)
        return page

    yield opener
    for context in contexts:
        context.close()
    assert complaints == []
    assert hosts <= {"127.0.0.1", ""}


@pytest.fixture
def search(shared: tuple[WebLibrary, str], open_page: Open) -> Page:
    """The search page, before anything was asked."""
    page = open_page(shared[1])
    page.wait_for_selector("[data-ready]")
    return page


def first(page: Page) -> str:
    return page.locator(".card .name").first.inner_text()


def expect_first(page: Page, name: str) -> None:
    expect(page.locator(".card .name").first).to_have_text(name)


def test_answers_come_while_typing_and_the_address_holds_them(search: Page) -> None:
    search.get_by_role("searchbox").press_sequentially("a photo of a cat", delay=20)
    expect_first(search, "cat.png")
    expect(search).to_have_url(re.compile(r"\?text=a\+photo\+of\+a\+cat$"))
    expect(search).to_have_title(re.compile("^a photo of a cat"))
    assert search.locator(".card").first.get_by_role("img", name=re.compile("relevance")).count()
    search.reload()
    expect_first(search, "cat.png")
    expect(search.get_by_role("searchbox")).to_have_value("a photo of a cat")


def test_a_late_answer_to_an_old_question_is_dropped(search: Page) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        if "rocket" in route.request.url:
            held.append(route)
        else:
            route.continue_()

    search.route("**/fragments/search?*", hold)
    box = search.get_by_role("searchbox")
    box.fill("a rocket")
    search.wait_for_timeout(500)
    box.fill("a photo of a cat")
    expect_first(search, "cat.png")
    for route in held:
        route.continue_()
    search.wait_for_timeout(500)
    assert first(search) == "cat.png"


def test_back_forward_and_reload_lead_to_what_was_there(search: Page) -> None:
    box = search.get_by_role("searchbox")
    for text, name in (("a photo of a cat", "cat.png"), ("a rocket", "rocket.jpg")):
        box.fill(text)
        box.press("Enter")
        expect_first(search, name)
    search.go_back()
    expect_first(search, "cat.png")
    expect(box).to_have_value("a photo of a cat")
    search.go_back()
    expect(search.locator("h1")).to_contain_text("20 pictures")
    search.go_forward()
    search.go_forward()
    expect_first(search, "rocket.jpg")
    search.reload()
    expect_first(search, "rocket.jpg")


def test_filters_fold_out_narrow_the_answer_and_are_taken_away_by_their_chip(search: Page) -> None:
    search.get_by_text("Filters", exact=True).first.click()
    search.get_by_label("drawings").check()
    expect(search.locator(".card")).to_have_count(12)
    search.get_by_label("Wider than").fill("700")
    search.get_by_label("Wider than").press("Enter")
    expect(search.locator(".card")).to_have_count(2)
    expect(search).to_have_url(re.compile("source=drawings.*min_width=700"))
    search.get_by_role("link", name="Remove in drawings").click()
    expect(search.locator(".card")).to_have_count(3)
    expect(search.get_by_label("drawings")).not_to_be_checked()
    search.get_by_label("Wider than").fill("9000")
    search.get_by_label("Wider than").press("Enter")
    expect(search.get_by_role("heading", name="Nothing here looks like that")).to_be_visible()


def test_words_are_added_and_taken_away_as_chips(search: Page) -> None:
    search.get_by_role("searchbox").fill("an animal")
    more = search.get_by_label("Add to the search")
    for typed in ("+ 2*a cat", "- 3*people"):
        more.fill(typed)
        more.press("Enter")
        expect(search.locator(".chip", has_text=typed[2:])).to_be_visible()
    expect_first(search, "cat.png")
    expect(search).to_have_url(re.compile(r"plus=2\*a\+cat|plus=2%2Aa\+cat"))
    search.locator(".chip.plus").click()
    expect(search.locator(".chip.plus")).to_have_count(0)
    expect(search.locator(".chip.minus")).to_have_count(1)


PASTE = """async ([bytes, type]) => {
  const file = new File([new Uint8Array(bytes)], "pasted.png", { type });
  const transfer = new DataTransfer();
  transfer.items.add(file);
  window.dispatchEvent(new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true }));
}"""
DROP = PASTE.replace(
    'new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true })',
    'new DragEvent("drop", { dataTransfer: transfer, bubbles: true })',
)


def test_a_pasted_a_dropped_and_a_chosen_picture_are_searched_by(
    search: Page, shared: tuple[WebLibrary, str], tmp_path: Path
) -> None:
    mirrored = tmp_path / "mirrored.png"
    with Image.open(shared[0].photo("cat.png")) as cat:
        cat.transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(mirrored)
    data = [*mirrored.read_bytes()]
    search.evaluate(PASTE, [data, "image/png"])
    expect_first(search, "cat.png")
    expect(search.locator(".chip.upload img")).to_be_visible()
    search.get_by_role("searchbox").fill("a rocket")
    expect(search).to_have_url(re.compile("text=a.rocket.*upload=|upload=.*text=a.rocket"))
    search.goto(shared[1])
    search.wait_for_selector("[data-ready]")
    search.evaluate(DROP, [data, "image/png"])
    expect_first(search, "cat.png")
    search.goto(shared[1])
    search.wait_for_selector("[data-ready]")
    search.locator("#file").set_input_files(shared[0].photo("rocket.jpg"))
    expect(search.locator(".chip.like")).to_be_visible()
    search.evaluate(PASTE, [[1, 2, 3], "image/png"])
    expect(search.get_by_role("status")).to_contain_text("not an image")


def test_more_like_this_finds_the_twin(search: Page) -> None:
    search.get_by_role("searchbox").fill("a flower")
    search.locator(".card", has_text="flower.jpg").hover()
    search.get_by_role("link", name="More like flower.jpg").click()
    expect_first(search, NASTY)
    expect(search.locator(".chip.like img")).to_be_visible()


def test_one_picture_is_shown_large_with_arrows_escape_and_an_address(search: Page) -> None:
    search.get_by_role("searchbox").fill("a photo of a cat")
    expect_first(search, "cat.png")
    second = search.locator(".card .name").nth(1).inner_text()
    search.locator(".card a.picture").first.click()
    viewer = search.get_by_role("dialog")
    expect(viewer.get_by_role("heading", level=1)).to_have_text("cat.png")
    expect(viewer).to_contain_text("451 × 300, PNG")
    expect(viewer).to_contain_text("cat again.png")
    expect(viewer).to_contain_text("offline")
    expect(search).to_have_url(re.compile("view="))
    search.keyboard.press("ArrowRight")
    expect(viewer.get_by_role("heading", level=1)).to_have_text(second)
    search.keyboard.press("ArrowLeft")
    expect(viewer.get_by_role("heading", level=1)).to_have_text("cat.png")
    search.reload()
    expect(viewer.get_by_role("heading", level=1)).to_have_text("cat.png")
    search.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(search).not_to_have_url(re.compile("view="))
    assert first(search) == "cat.png"


def test_the_path_is_copied(shared: tuple[WebLibrary, str], open_page: Open) -> None:
    library, address = shared
    page = open_page(
        f"{address}picture/{library.content('cat.png')}",
        permissions=["clipboard-read", "clipboard-write"],
    )
    page.get_by_role("button", name="Copy the path").click()
    expect(page.get_by_role("status")).to_contain_text("copied")
    assert page.evaluate("navigator.clipboard.readText()") == str(library.photo("cat.png"))


def test_a_vote_in_the_grid_shows_and_is_taken_back(search: Page) -> None:
    search.locator(".card").first.hover()
    like = search.get_by_role("button", name=re.compile("^Like ")).first
    like.click()
    expect(like).to_have_attribute("aria-pressed", "true")
    search.reload()
    expect(like).to_have_attribute("aria-pressed", "true")
    search.locator(".card").first.hover()
    search.get_by_role("button", name=re.compile("^Dislike ")).first.click()
    expect(like).to_have_attribute("aria-pressed", "false")
    for pressed in ("true", "false"):
        undo = search.get_by_role("button", name="Undo")
        if pressed == "false":
            search.locator(".card").nth(1).hover()
            search.get_by_role("button", name=re.compile("^Like ")).nth(1).click()
        undo.click()
        expect(search.get_by_role("status")).to_contain_text("taken back")
    expect(like).to_have_attribute("aria-pressed", "true")


def test_the_vote_page_takes_keys_learns_and_undoes(
    shared: tuple[WebLibrary, str], open_page: Open
) -> None:
    page = open_page(f"{shared[1]}vote?name=keys")
    page.wait_for_selector("[data-ready]")
    seen = []
    for number in range(7):
        image = page.locator(".stage .large")
        seen.append(image.get_attribute("data-id"))
        page.keyboard.press("y" if number % 2 else "n")
        expect(page.locator(".tally dd").nth(1 - number % 2)).to_have_text(str(number // 2 + 1))
    assert len(set(seen)) == 7
    expect(page.locator(".ranking .tiles li").first).to_be_visible()
    expect(page.locator(".tally")).to_contain_text("of 1")
    page.keyboard.press("u")
    expect(page.locator(".tally dd").nth(1)).to_have_text("3")
    assert page.locator(".stage .large").get_attribute("data-id") == seen[-1]


def test_a_region_drawn_on_the_map_is_shown_as_a_grid_and_kept_in_the_address(
    shared: tuple[WebLibrary, str], open_page: Open
) -> None:
    page = open_page(f"{shared[1]}map")
    page.wait_for_selector("[data-ready]")
    expect(page.locator("#overlay img").first).to_be_attached()
    page.get_by_text("choose a region", exact=True).click()
    plane = page.locator("#map .nsewdrag").first.bounding_box()
    assert plane is not None
    x, y, width, height = (plane[name] for name in ("x", "y", "width", "height"))
    corners = [(0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99), (0.01, 0.05)]
    page.mouse.move(x + corners[0][0] * width, y + corners[0][1] * height)
    page.mouse.down()
    for across, down in corners[1:]:
        page.mouse.move(x + across * width, y + down * height, steps=6)
    page.mouse.up()
    expect(page.locator("#region .card").first).to_be_visible()
    expect(page).to_have_url(re.compile("region="))
    count = page.locator("#region .card").count()
    assert 10 < count <= 20
    page.reload()
    expect(page.locator("#region .card")).to_have_count(count)
    page.get_by_role("link", name="Search within the region").click()
    expect(page.locator(".chip.region")).to_be_visible()
    expect(page.locator(".card")).to_have_count(count)


def test_the_map_is_coloured_by_the_nearness_to_a_query(
    shared: tuple[WebLibrary, str], open_page: Open
) -> None:
    page = open_page(f"{shared[1]}map")
    page.wait_for_selector("[data-ready]")
    page.get_by_label("Words to colour the map by").fill("a cat")
    page.get_by_label("Words to colour the map by").press("Enter")
    expect(page.get_by_label("nearness to")).to_be_checked()
    expect(page.locator("#map .colorbar")).to_be_attached()


def test_a_name_that_looks_like_a_script_is_text(search: Page) -> None:
    search.get_by_role("searchbox").fill("<img src=x onerror=alert(2)>")
    expect(search.locator("h1")).to_have_text("<img src=x onerror=alert(2)>")
    expect(search.get_by_text(NASTY).first).to_be_attached()


def test_a_picture_that_is_gone_is_marked(library: WebLibrary, open_page: Open) -> None:
    library.photo("rocket.jpg").unlink()
    with server(library) as (_, address):
        page = open_page(f"{address}?path=rocket*")
        card = page.locator(".card", has_text="rocket.jpg")
        expect(card.locator(".missing")).to_contain_text("not there any more")
        card.locator("a.picture").click()
        expect(page.get_by_role("dialog")).to_contain_text("not there any more")
        page.goto(f"{address}vote?name=gone")
        expect(page.locator(".stage .large img")).to_be_visible()


def test_an_index_that_is_made_while_a_page_waits_is_shown(
    library: WebLibrary, open_page: Open
) -> None:
    store = Store(library.root / "home")
    pointer = store.current_file.read_text()
    store.current_file.unlink()
    with server(library) as (_, address):
        page = open_page(address)
        expect(page.get_by_role("heading", name="Nothing to search yet")).to_be_visible()
        store.current_file.write_text(pointer)
        expect(page.locator("h1")).to_contain_text("20 pictures")
        # It must not miss the server that ends now.
        page.close()


def test_a_page_that_is_open_goes_on_through_a_new_index_and_a_killed_server(
    library: WebLibrary, open_page: Open
) -> None:
    with server(library) as (process, address):
        page = open_page(address)
        page.wait_for_selector("[data-ready]")
        box = page.get_by_role("searchbox")
        Image.new("RGB", (500, 300), "orange").save(library.photo("orange.png"))
        library.index()
        page.wait_for_timeout(2_500)
        box.fill("anything")
        expect(page.locator(".card", has_text="orange.png")).to_be_attached()
        expect(page.locator(".card")).to_have_count(21)

        process.kill()
        process.wait()
        box.fill("a photo of a cat")
        expect(page.get_by_role("status")).to_contain_text("does not answer")
    port = address.rstrip("/").rpartition(":")[2]
    with server(library, "--port", port):
        page.get_by_role("button", name="Try again").click()
        expect_first(page, "cat.png")
        # The new server has a new token.
        page.locator(".card").first.hover()
        like = page.get_by_role("button", name="Like cat.png", exact=True)
        like.click()
        expect(like).to_have_attribute("aria-pressed", "true")


@pytest.fixture(scope="module")
def ten_thousand(tmp_path_factory: pytest.TempPathFactory) -> WebLibrary:
    """An index of ten thousand pictures that have no files."""
    root = tmp_path_factory.mktemp("many")
    (root / "photos").mkdir()
    (root / "retrieval.toml").write_text(
        'home = "home"\nmodel = "offline"\n[[sources]]\nname = "photos"\npath = "photos"\n'
    )
    store, space = Store(root / "home"), VectorSpace("offline", "r", 16, "p")
    names = [f"n{number:05d}" for number in range(10_000)]
    write_manifest(store, "photos", {f"{name}.jpg": name for name in names})
    write_part(store, space, "photos", names, random_vectors(10_000, 16))
    build_index(store, space, ["photos"])
    return WebLibrary(root)


LAST_CARD = "document.querySelector('.cards').lastElementChild"


def test_ten_thousand_pictures_are_scrolled_without_growing(
    ten_thousand: WebLibrary, open_page: Open, tmp_path: Path
) -> None:
    picture = tmp_path / "picture.webp"
    Image.fromarray(np.full((200, 300, 3), 90, np.uint8)).save(picture)
    with server(ten_thousand) as (_, address):
        page = open_page("about:blank")
        page.route("**/thumbnail*", lambda route: route.fulfill(path=picture))
        page.goto(address)
        page.wait_for_selector("[data-ready]")
        session = page.context.new_cdp_session(page)

        def usage() -> tuple[int, float]:
            session.send("HeapProfiler.collectGarbage")
            session.send("Performance.enable")
            metrics = session.send("Performance.getMetrics")["metrics"]
            values = {each["name"]: each["value"] for each in metrics}
            return int(values["Nodes"]), values["JSHeapUsedSize"] / 1e6

        seen, highest, early = 0, 0, None
        for step in itertools.count():
            page.evaluate("scrollTo(0, document.documentElement.scrollHeight)")
            page.wait_for_function(
                f"seen => {LAST_CARD}.ariaPosInSet > seen || {LAST_CARD}.ariaSetSize === '10000'",
                arg=seen,
            )
            seen = int(
                page.evaluate("document.querySelector('.cards').lastElementChild.ariaPosInSet")
            )
            highest = max(highest, page.locator(".card").count())
            if step == 10:
                early = usage()
            if seen == 10_000:
                break
        late = usage()
        assert early is not None
        assert highest < 400
        assert late[0] < 1.5 * early[0] + 2_000
        assert late[1] < early[1] + 8
        page.evaluate("scrollTo(0, 0)")
        expect(page.locator(".card").first).to_have_attribute("aria-posinset", "1")
        page.evaluate("scrollTo(0, document.documentElement.scrollHeight / 2)")
        expect(page.locator(".card").first).to_be_attached()


SERIOUS = ("serious", "critical")


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_axe_finds_nothing_serious_on_any_page(
    shared: tuple[WebLibrary, str], open_page: Open, theme: str
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    library, address = shared
    findings = []
    page = open_page("about:blank", color_scheme=theme, reduced_motion="reduce")
    for path in (
        "?text=a+cat&plus=snow&minus=people",
        "?text=a+cat&min_width=9000",
        f"picture/{library.content('cat.png')}",
        "vote?name=axe",
        "map",
        "duplicates",
        "quarantine",
        "status",
        "api",
        "nowhere",
    ):
        page.goto(address + path)
        page.wait_for_timeout(600)
        for violation in Axe().run(page).response["violations"]:
            if violation["impact"] in SERIOUS:
                nodes = [node["html"][:200] for node in violation["nodes"][:3]]
                findings.append((path, violation["id"], nodes))
    page.goto(address)
    page.locator(".card a.picture").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.wait_for_timeout(600)
    for violation in Axe().run(page).response["violations"]:
        if violation["impact"] in SERIOUS:
            findings.append(("viewer", violation["id"], violation["nodes"][0]["html"][:200]))
    assert findings == []


def test_everything_is_reached_by_keyboard_with_the_focus_in_sight(search: Page) -> None:
    # In the box, which has the focus at first, a slash is a slash.
    search.evaluate("document.activeElement.blur()")
    search.keyboard.press("/")
    expect(search.get_by_role("searchbox")).to_be_focused()
    search.evaluate("document.querySelector('.card a').focus()")
    search.keyboard.press("ArrowRight")
    assert search.evaluate("document.activeElement.closest('.card').ariaPosInSet") == "2"
    search.keyboard.press("Tab")
    label = search.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("More like")
    assert search.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    search.keyboard.press("Shift+Tab")
    search.keyboard.press("Enter")
    expect(search.get_by_role("dialog")).to_be_visible()
    search.keyboard.press("Escape")
    expect(search.get_by_role("dialog")).to_be_hidden()


@pytest.mark.parametrize("width", [320, 390, 2560])
def test_no_page_is_wider_than_its_window(
    shared: tuple[WebLibrary, str], open_page: Open, width: int
) -> None:
    page = open_page("about:blank", viewport={"width": width, "height": 800})
    for path in ("?text=a+cat", "vote", "map", "duplicates", "quarantine", "status", "api"):
        page.goto(shared[1] + path)
        page.wait_for_timeout(200)
        assert page.evaluate("document.documentElement.scrollWidth") <= width, path


def test_without_scripts_one_can_still_search_and_look(
    shared: tuple[WebLibrary, str], open_page: Open
) -> None:
    page = open_page(shared[1], java_script_enabled=False)
    box = page.get_by_role("searchbox")
    box.fill("a photo of a cat")
    box.press("Enter")
    expect_first(page, "cat.png")
    page.get_by_label("Add to the search").fill("- snow")
    page.get_by_label("Add to the search").press("Enter")
    expect(page.locator(".chip.minus")).to_be_visible()
    page.locator(".card a.picture").first.click()
    expect(page.get_by_role("heading", level=1)).to_have_text("cat.png")


def test_the_browser_is_opened_if_asked_to(
    library: WebLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tmp_path / "opened"
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    script.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(script))
    with server(library, "--open") as (_, address):
        deadline = time.monotonic() + 20
        while not (opened.exists() and opened.read_text().strip()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert opened.read_text().strip() == address
