"""The pages in a real browser: Chromium, driven by Playwright, against a real server."""

import re
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Route, expect

from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline_tests.cli.test_serve_command import server
from retrieval_pipeline_tests.support.web import NASTY, WebLibrary
from retrieval_pipeline_tests.web.conftest import BOX, SHIFTS, Open
from synthetic.tables import random_vectors, write_manifest, write_part

pytestmark = pytest.mark.slow


def first(page: Page) -> str:
    return page.locator(".card .name").first.inner_text()


def expect_count(page: Page, count: int) -> None:
    """Only cards near the window are in the document; each knows how many there are."""
    expect(page.locator(f'.card[aria-setsize="{count}"]').first).to_be_attached()


def expect_first(page: Page, name: str) -> None:
    expect(page.locator(".card .name").first).to_have_text(name)


def test_answers_come_while_typing_and_the_address_holds_them(search: Page) -> None:
    search.get_by_role("combobox", name=BOX).press_sequentially("a photo of a cat", delay=20)
    expect_first(search, "cat.png")
    expect(search).to_have_url(re.compile(r"\?text=a\+photo\+of\+a\+cat$"))
    expect(search).to_have_title(re.compile("^a photo of a cat"))
    expect(search.locator("#said")).to_contain_text("a photo of a cat")
    expect(search.locator(".card .share").first).to_have_text(re.compile(r"relevance \d+%"))
    search.reload()
    expect_first(search, "cat.png")
    expect(search.get_by_role("combobox", name=BOX)).to_have_value("a photo of a cat")


def test_a_late_answer_to_an_old_question_is_dropped(search: Page) -> None:
    held: list[Route] = []

    def hold(route: Route) -> None:
        if "rocket" in route.request.url:
            held.append(route)
        else:
            route.continue_()

    search.route("**/fragments/search?*", hold)
    box = search.get_by_role("combobox", name=BOX)
    box.fill("a rocket")
    search.wait_for_timeout(500)
    box.fill("a photo of a cat")
    expect_first(search, "cat.png")
    for route in held:
        route.continue_()
    search.wait_for_timeout(500)
    assert first(search) == "cat.png"


def test_back_forward_and_reload_lead_to_what_was_there(search: Page) -> None:
    box = search.get_by_role("combobox", name=BOX)
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


def test_each_search_that_was_looked_at_is_a_step_of_the_history(search: Page) -> None:
    search.clock.install()
    box = search.get_by_role("combobox", name=BOX)
    for text, name in (("a photo of a cat", "cat.png"), ("a rocket", "rocket.jpg")):
        # While it is typed it is one search.
        for end in (3, len(text)):
            box.fill(text[:end])
            search.clock.run_for(300)
        expect_first(search, name)
        search.clock.run_for(2_000)
    search.go_back()
    expect_first(search, "cat.png")
    search.go_back()
    expect(search.locator("h1")).to_contain_text("20 pictures")


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_moves_while_a_page_loads(
    shared: tuple[WebLibrary, str], open_page: Open, width: int
) -> None:
    page = open_page("about:blank", viewport={"width": width, "height": 900})
    for path in ("", "?text=a+cat"):
        page.goto(shared[1] + path)
        page.wait_for_selector("[data-ready]")
        shifts = page.evaluate(SHIFTS)
        assert sum(value for value, _ in shifts) < 0.02, shifts
    page.emulate_media(media="print")
    cards = page.evaluate(
        "[...document.querySelectorAll('.card')].map((card) => card.getBoundingClientRect().right)"
    )
    assert max(cards) <= page.evaluate(
        "document.querySelector('.cards').getBoundingClientRect().right + 1"
    )


def test_the_likely_ones_are_told_from_the_nearest_and_nonsense_is_said_to_be_missing(
    search: Page,
) -> None:
    search.get_by_role("combobox", name=BOX).fill("a photo of a cat")
    expect(search.locator(".verdict")).to_have_text(re.compile(r"^\d+ likely; the rest"))
    likely = int(search.locator(".verdict").inner_text().split()[0])
    assert 1 <= likely < 5
    divider = search.locator(".divider").bounding_box()
    assert divider is not None
    for place, above in ((likely, True), (likely + 1, False)):
        card = search.locator(f'.card[aria-posinset="{place}"]')
        box = card.bounding_box()
        assert box is not None
        assert (box["y"] < divider["y"]) == above
        expect(card.locator(".share")).to_have_text(re.compile(r"relevance \d+%"))
    search.get_by_role("combobox", name=BOX).fill("quarterly tax return")
    expect(search.locator(".verdict")).to_contain_text("Nothing here looks like that")
    expect(search.get_by_text("Try other words")).to_be_visible()


def test_words_read_as_facts_are_chips_and_the_order_is_chosen(search: Page) -> None:
    search.get_by_role("combobox", name=BOX).fill("a cat in august 2019")
    chip = search.locator(".chip.understood")
    expect(chip).to_contain_text("taken in august 2019")
    chip.click()
    expect(search).to_have_url(re.compile("literal=true"))
    expect_first(search, "cat.png")
    search.get_by_role("combobox", name=BOX).fill("")
    search.get_by_label("Order").select_option("name")
    expect(search).to_have_url(re.compile("sort=name"))
    expect_first(search, NASTY)
    expect(search.locator("h1")).to_contain_text("by name")


def test_filters_fold_out_narrow_the_answer_and_are_taken_away_by_their_chip(search: Page) -> None:
    search.get_by_text("Filters", exact=True).first.click()
    search.get_by_label("drawings").check()
    expect_count(search, 12)
    width = search.get_by_role("spinbutton", name="wide")
    width.fill("700")
    width.press("Enter")
    expect_count(search, 2)
    expect(search).to_have_url(re.compile("source=drawings.*min_width=700"))
    search.get_by_role("link", name="Remove in drawings").click()
    expect_count(search, 3)
    search.get_by_text("Filters", exact=True).first.click()
    expect(search.get_by_label("drawings")).not_to_be_checked()
    expect(search.locator(".chip", has_text="at least 700 wide")).to_be_visible()
    width.fill("9000")
    width.press("Enter")
    expect(search.get_by_role("heading", name="Nothing here looks like that")).to_be_visible()


def test_a_path_is_asked_for_once_and_the_filters_close_by_themselves(
    shared: tuple[WebLibrary, str], open_page: Open
) -> None:
    page = open_page(shared[1], viewport={"width": 390, "height": 844})
    page.wait_for_selector("[data-ready]")
    asked: list[str] = []
    page.on("request", lambda each: asked.append(each.url) if "ts/search" in each.url else None)
    for key in ("Enter", "Apply"):
        page.get_by_text("Filters", exact=True).first.click()
        panel = page.locator(".filters .panel").bounding_box()
        assert panel is not None
        assert 0 <= panel["x"] < panel["x"] + panel["width"] <= 390
        first_card = page.locator(".card").first.bounding_box()
        assert first_card is not None
        assert first_card["y"] >= panel["y"] + panel["height"]
        path = page.get_by_role("textbox", name="Path")
        path.fill(f"*{key[0].lower()}*.jpg")
        if key == "Enter":
            path.press("Enter")
        else:
            page.get_by_role("button", name="Apply").click()
        expect(page.locator(".chip.path", has_text=f"*{key[0].lower()}*.jpg")).to_be_visible()
        page.keyboard.press("Escape")
        expect(page.locator(".filters .panel")).to_be_hidden()
    assert len(asked) == 2
    page.get_by_text("Filters", exact=True).first.click()
    page.locator("#summary").click()
    expect(page.locator(".filters .panel")).to_be_hidden()


def test_words_are_added_and_taken_away_as_chips(search: Page) -> None:
    search.get_by_role("combobox", name=BOX).fill("an animal")
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
    search.get_by_role("combobox", name=BOX).fill("a rocket")
    expect(search).to_have_url(re.compile("text=a.rocket.*upload=|upload=.*text=a.rocket"))
    search.goto(shared[1])
    search.wait_for_selector("[data-ready]")
    # Browsers know no type for files such as photo.heic: the server looks at the bytes.
    search.evaluate(DROP, [data, ""])
    expect_first(search, "cat.png")
    search.goto(shared[1])
    search.wait_for_selector("[data-ready]")
    search.locator("#file").set_input_files(shared[0].photo("rocket.jpg"))
    expect(search.locator(".chip.like")).to_be_visible()
    search.evaluate(PASTE, [[1, 2, 3], "image/png"])
    expect(search.get_by_role("status")).to_contain_text("not an image")


def test_more_like_this_finds_the_twin(search: Page) -> None:
    search.get_by_role("combobox", name=BOX).fill("a flower")
    search.locator(".card", has_text="flower.jpg").hover()
    search.get_by_role("link", name="More like flower.jpg").click()
    expect_first(search, NASTY)
    expect(search.locator(".chip.like img")).to_be_visible()


def test_one_picture_is_shown_large_with_arrows_escape_and_an_address(search: Page) -> None:
    search.get_by_role("combobox", name=BOX).fill("a photo of a cat")
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
    search.keyboard.press("ArrowRight")
    expect(viewer.get_by_role("heading", level=1)).to_have_text(second)
    search.keyboard.press("Escape")
    expect(viewer).to_be_hidden()
    expect(search).not_to_have_url(re.compile("view="))
    assert first(search) == "cat.png"
    expect(search.locator(".card", has_text=second).locator("a.picture")).to_be_focused()
    search.goto(f"{search.url.partition('?')[0]}?path=deep/*")
    search.locator(".card a.picture").click()
    expect(viewer.get_by_role("heading", level=1)).to_have_text("cat again.png")


def test_a_vote_in_the_large_view_is_told_there_and_taken_back(search: Page) -> None:
    search.locator(".card a.picture").nth(2).click()
    viewer = search.get_by_role("dialog")
    like = viewer.get_by_role("button", name=re.compile("^Like "))
    like.click()
    expect(viewer.get_by_role("status")).to_contain_text("Liked")
    expect(like).to_have_attribute("aria-pressed", "true")
    viewer.get_by_role("button", name="Undo").click()
    expect(like).to_have_attribute("aria-pressed", "false")
    search.keyboard.press("l")
    expect(like).to_have_attribute("aria-pressed", "true")
    like.click()
    expect(like).to_have_attribute("aria-pressed", "false")
    search.reload()
    expect(like).to_have_attribute("aria-pressed", "false")


def test_a_picture_is_enlarged_moved_and_seen_with_its_own_pixels(
    shared: tuple[WebLibrary, str], open_page: Open
) -> None:
    page = open_page(f"{shared[1]}?view={shared[0].content('flower.jpg')}")
    image = page.locator(".frame > img")
    expect(image).to_have_attribute("src", re.compile("size=large"))
    before = image.bounding_box()
    assert before is not None
    page.get_by_role("button", name="Full size or whole").click()
    enlarged = image.bounding_box()
    assert enlarged is not None
    assert enlarged["width"] > 1.5 * before["width"]
    page.mouse.move(300, 300)
    page.mouse.down()
    page.mouse.move(250, 300, steps=3)
    page.mouse.up()
    moved = image.bounding_box()
    assert moved is not None
    assert moved["x"] == pytest.approx(enlarged["x"] - 50, abs=1)
    for _ in range(4):
        page.keyboard.press("+")
    expect(image).to_have_attribute("src", re.compile("/image$"))
    page.keyboard.press("0")
    page.mouse.wheel(0, -300)
    wheeled = image.bounding_box()
    assert wheeled is not None
    assert wheeled["width"] > 1.5 * before["width"]
    page.keyboard.press("i")
    expect(page.locator(".panel-of-one")).to_be_hidden()
    page.keyboard.press("0")
    page.get_by_role("button", name="Find a part").click()
    page.mouse.move(500, 350)
    page.mouse.down()
    page.mouse.move(700, 500, steps=3)
    page.mouse.up()
    expect(page).to_have_url(re.compile("like=.*crop=0"))
    expect(page.locator(".chip.crop")).to_be_visible()


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
        expect(search.get_by_role("status")).to_contain_text("undone")
    expect(like).to_have_attribute("aria-pressed", "true")


def test_each_tab_votes_into_the_recommender_that_was_chosen_in_it(
    shared: tuple[WebLibrary, str], open_page: Open
) -> None:
    page = open_page(f"{shared[1]}vote?name=one")
    page.wait_for_selector("[data-ready]")
    page.goto(shared[1])
    page.wait_for_selector("[data-ready]")
    expect(page.get_by_role("link", name="Vote")).to_have_attribute("href", "/vote?name=one")
    other = page.context.new_page()
    other.goto(f"{shared[1]}vote?name=two")
    other.wait_for_selector("[data-ready]")
    page.locator(".card").first.hover()
    page.get_by_role("button", name=re.compile("^Like ")).first.click()
    expect(page.get_by_role("status")).to_contain_text("“one”")


def test_a_finger_finds_what_to_do_with_a_picture_and_swipes_to_the_next(
    shared: tuple[WebLibrary, str], open_page: Open
) -> None:
    page = open_page(
        shared[1], viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    page.wait_for_selector("[data-ready]")
    card = page.locator(".card").first
    card.get_by_role("button", name=re.compile("^What to do")).tap()
    for target in (
        card.get_by_role("button", name=re.compile("^Like ")),
        card.get_by_role("link", name=re.compile("^More like")),
        page.get_by_role("link", name="Status"),
        page.get_by_text("Filters", exact=True).first,
    ):
        box = target.bounding_box()
        assert box is not None
        assert box["height"] >= 44
    page.locator(".card a.picture").nth(2).tap()
    following = page.locator(".card").nth(3).get_attribute("data-id")
    expect(page.get_by_role("dialog").locator("h1")).to_be_visible()
    touch = page.context.new_cdp_session(page)
    for kind, x in (("Start", 300), ("Move", 240), ("Move", 120), ("End", None)):
        points = [] if x is None else [{"x": x, "y": 250}]
        touch.send("Input.dispatchTouchEvent", {"type": f"touch{kind}", "touchPoints": points})
    expect(page).to_have_url(re.compile(f"view={following}"))


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


NAMES_ARE_APART = """() => {
  const names = [...document.querySelectorAll("#overlay span")];
  const boxes = names.map((name) => name.getBoundingClientRect());
  const apart = (one, other) => one.right <= other.left || other.right <= one.left ||
    one.bottom <= other.top || other.bottom <= one.top;
  return boxes.length > 1 &&
    boxes.every((one, i) => boxes.slice(i + 1).every((other) => apart(one, other)));
}"""


def test_the_map_lists_what_is_in_view_and_what_lies_in_a_region_that_one_draws(
    shared: tuple[WebLibrary, str], open_page: Open
) -> None:
    page = open_page(f"{shared[1]}map")
    page.wait_for_selector("[data-ready]")
    expect(page.locator("#overlay img").first).to_be_attached()
    heading = page.locator("#count")
    expect(heading).to_have_text(re.compile(r"^\d+ pictures in view$"))
    everything = int(heading.inner_text().split()[0])
    expect(page.locator("#seen li")).to_have_count(everything)
    # One source alone, then everything again.
    page.get_by_text("source", exact=True).click()
    page.locator("#legend button").first.click()
    expect(page.locator("#legend button").first).to_have_attribute("aria-pressed", "true")
    expect(heading).not_to_have_text(f"{everything} pictures in view")
    page.get_by_text("cluster", exact=True).click()
    page.get_by_role("button", name="Show every source again").click()
    expect(heading).to_have_text(f"{everything} pictures in view")
    # What is outside of the window is not listed.
    page.locator("#map").focus()
    for _ in range(6):
        page.keyboard.press("+")
    expect(heading).not_to_have_text(f"{everything} pictures in view")
    page.keyboard.press("0")
    expect(heading).to_have_text(f"{everything} pictures in view")
    # Names keep apart where there is little room.
    page.set_viewport_size({"width": 360, "height": 500})
    page.wait_for_function(NAMES_ARE_APART)
    page.set_viewport_size({"width": 1280, "height": 900})
    expect(heading).to_have_text(f"{everything} pictures in view")
    page.get_by_text("choose a region", exact=True).click()
    plane = page.locator("#map").bounding_box()
    assert plane is not None
    x, y, width, height = (plane[name] for name in ("x", "y", "width", "height"))
    corners = [(0.01, 0.01), (0.7, 0.01), (0.7, 0.99), (0.01, 0.99), (0.01, 0.05)]
    page.mouse.move(x + corners[0][0] * width, y + corners[0][1] * height)
    page.mouse.down()
    for across, down in corners[1:]:
        page.mouse.move(x + across * width, y + down * height, steps=6)
    page.mouse.up()
    expect(page).to_have_url(re.compile("region="))
    expect(heading).to_have_text(re.compile(r"^\d+ pictures? in the region$"))
    told = heading.inner_text()
    count = int(told.split()[0])
    assert 0 < count < everything
    page.reload()
    expect(heading).to_have_text(told)
    page.locator("#seen li a").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    page.keyboard.press("Escape")
    page.get_by_role("link", name="Search within the region").click()
    expect(page.locator(".chip.region")).to_be_visible()
    expect_count(page, count)


def test_the_map_is_coloured_by_the_nearness_to_a_query(
    shared: tuple[WebLibrary, str], open_page: Open
) -> None:
    page = open_page(f"{shared[1]}map")
    page.wait_for_selector("[data-ready]")
    page.get_by_text("year", exact=True).click()
    expect(page.locator("#legend button").first).to_contain_text(re.compile(r"^\d{4}|unknown"))
    page.get_by_label("Words to colour the map by").fill("a cat")
    page.get_by_label("Words to colour the map by").press("Enter")
    expect(page.get_by_label("nearness to")).to_be_checked()
    expect(page.locator("#legend .scale")).to_be_attached()
    expect(page.locator("#overlay img").first).to_be_attached()
    frames = page.locator("#overlay img").evaluate_all(
        "images => images.map((image) => image.style.borderColor)"
    )
    # The nearest is yellow and the farthest violet, as in the legend.
    assert {"rgb(253, 231, 37)", "rgb(68, 1, 84)"} <= set(frames)
    image = page.locator("#overlay img").first.bounding_box()
    assert image is not None
    page.mouse.move(image["x"] + image["width"] / 2, image["y"] + image["height"] / 2)
    expect(page.locator("#card .name")).to_contain_text(re.compile(r"\.(png|jpg)$"))


def test_a_name_that_looks_like_a_script_is_text(search: Page) -> None:
    search.get_by_role("combobox", name=BOX).fill("<img src=x onerror=alert(2)>")
    expect(search.locator("h1")).to_have_text("<img src=x onerror=alert(2)>")
    search.goto(f"{search.url.partition('?')[0]}?path=*onerror*")
    expect(search.locator(".card .name")).to_have_text(NASTY)


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
        assert page.evaluate("document.querySelector('header').clientWidth") > 1_200
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
        box = page.get_by_role("combobox", name=BOX)
        Image.new("RGB", (500, 300), "orange").save(library.photo("orange.png"))
        library.index()
        expect(page.get_by_role("status")).to_contain_text("1 new picture.")
        page.get_by_role("button", name="Show").click()
        expect(page.locator(".card", has_text="orange.png")).to_be_attached()
        expect_count(page, 1)
        page.goto(address)
        box.fill("anything")
        expect(page.locator(".card", has_text="orange.png")).to_be_attached()
        expect_count(page, 21)

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


IN_THE_MIDDLE = """() => [0.3, 0.4, 0.5, 0.6].flatMap((share) =>
  document.elementFromPoint(innerWidth / 2, share * innerHeight)
    ?.closest(".card:not(.awaited)")?.ariaPosInSet ?? [])[0]"""


def test_ten_thousand_pictures_have_their_place_at_once_and_keep_it(
    ten_thousand: WebLibrary, open_page: Open, tmp_path: Path
) -> None:
    picture = tmp_path / "picture.webp"
    Image.fromarray(np.full((200, 300, 3), 90, np.uint8)).save(picture)
    with server(ten_thousand, "--root-path", "/pictures") as (_, address):
        page = open_page("about:blank")
        page.route("**/thumbnail*", lambda route: route.fulfill(path=picture))
        page.goto(address)
        assert page.evaluate("location.pathname") == "/pictures/"
        last = page.locator('.card[aria-setsize="10000"]').last
        expect(last).to_be_attached()
        session = page.context.new_cdp_session(page)

        def usage() -> tuple[int, float]:
            session.send("HeapProfiler.collectGarbage")
            session.send("Performance.enable")
            metrics = session.send("Performance.getMetrics")["metrics"]
            values = {each["name"]: each["value"] for each in metrics}
            return int(values["Nodes"]), values["JSHeapUsedSize"] / 1e6

        def jump(share: float) -> int:
            """Scroll to a share of the page, and return the place of a card in the middle."""
            page.evaluate(
                "share => scrollTo(0, share * document.documentElement.scrollHeight)", share
            )
            place = page.wait_for_function(IN_THE_MIDDLE)
            expect(page.locator(".awaited")).to_have_count(0)
            return int(place.json_value())

        height = page.evaluate("document.documentElement.scrollHeight")
        jump(0.1)
        early = usage()
        places = [jump(step / 20) for step in range(2, 20)]
        assert places == sorted(places)
        assert places[8] == pytest.approx(5_000, abs=300)
        assert page.locator(".card").count() < 200
        late = usage()
        assert late[0] < 1.5 * early[0] + 2_000
        assert late[1] < early[1] + 8
        assert page.evaluate("document.documentElement.scrollHeight") == height
        jump(1)
        expect(page.locator('.card[aria-posinset="10000"]')).to_be_visible()

        jump(0.7)
        page.wait_for_timeout(400)
        place = page.evaluate("scrollY")
        card = page.locator(".card:has(:hover), .card").nth(20)
        name = card.locator(".name").inner_text()
        card.locator("a.picture").click()
        expect(page.get_by_role("dialog")).to_be_visible()
        page.go_back()
        expect(page.get_by_role("dialog")).to_be_hidden()
        expect(page.locator(".card", has_text=name)).to_be_in_viewport()
        page.evaluate("y => scrollTo(0, y)", place)
        page.wait_for_timeout(400)
        page.reload()
        page.wait_for_selector("[data-ready]")
        page.wait_for_function("y => Math.abs(scrollY - y) < 3", arg=place)


def test_axe_finds_nothing_on_any_page_light_or_dark(
    shared: tuple[WebLibrary, str], open_page: Open
) -> None:
    from axe_playwright_python.sync_playwright import Axe

    library, address = shared
    findings = []
    page = open_page("about:blank", reduced_motion="reduce")

    def look(where: str) -> None:
        # What is being made is a page that loads itself again.
        expect(page.locator("script[src*='reload.js']")).to_have_count(0)
        page.wait_for_timeout(600)
        for theme in ("light", "dark"):
            page.emulate_media(color_scheme=theme)
            for violation in Axe().run(page).response["violations"]:
                nodes = [node["html"][:200] for node in violation["nodes"][:3]]
                findings.append((where, theme, violation["id"], nodes))

    for path in (
        "?text=a+cat&plus=snow&minus=people",
        "?text=a+cat&min_width=9000",
        f"picture/{library.content('cat.png')}",
        "vote?name=axe",
        "map",
        "albums",
        "duplicates",
        "quarantine",
        "status",
        "api",
        "nowhere",
    ):
        page.goto(address + path)
        look(path)
    page.goto(address)
    page.locator(".card a.picture").first.click()
    expect(page.get_by_role("dialog")).to_be_visible()
    look("viewer")
    assert findings == []


def test_everything_is_reached_by_keyboard_with_the_focus_in_sight(search: Page) -> None:
    # In the box, which has the focus at first, a slash is a slash.
    search.evaluate("document.activeElement.blur()")
    search.keyboard.press("/")
    expect(search.get_by_role("combobox", name=BOX)).to_be_focused()
    search.evaluate("document.querySelector('.card a').focus()")
    search.keyboard.press("ArrowRight")
    focused = "document.activeElement.closest('.card').ariaPosInSet"
    search.wait_for_function(f"{focused} === '2'")
    search.keyboard.press("ArrowDown")
    search.wait_for_function(f"Number({focused}) > 2")
    search.keyboard.press("ArrowUp")
    search.wait_for_function(f"['1', '2'].includes({focused})")
    # The grid is one stop: its other cards are passed by.
    reached = search.evaluate(
        "[...document.querySelectorAll('.card a.picture')].filter((a) => a.tabIndex >= 0).length"
    )
    assert reached == 1
    search.keyboard.press("?")
    expect(search.get_by_role("dialog", name="Keys")).to_be_visible()
    search.keyboard.press("Escape")
    search.keyboard.press("Tab")
    label = search.evaluate("document.activeElement.getAttribute('aria-label')")
    assert label.startswith("Select ")
    assert search.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    search.keyboard.press("Shift+Tab")
    search.keyboard.press("Enter")
    expect(search.get_by_role("dialog")).to_be_visible()
    search.keyboard.press("Escape")
    expect(search.get_by_role("dialog")).to_be_hidden()


def test_no_page_is_wider_than_its_window(shared: tuple[WebLibrary, str], open_page: Open) -> None:
    page = open_page("about:blank")
    for path in (
        "?text=a+cat",
        "vote",
        "map",
        "albums",
        "duplicates",
        "quarantine",
        "status",
        "api",
    ):
        page.goto(shared[1] + path)
        for width in (320, 390, 2560):
            page.set_viewport_size({"width": width, "height": 800})
            page.wait_for_timeout(200)
            assert page.evaluate("document.documentElement.scrollWidth") <= width, (path, width)


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
    page.goto(f"{shared[1]}vote?name=plain")
    voted = page.locator(".stage .large").get_attribute("data-id")
    page.get_by_role("button", name="Like").click()
    expect(page.locator(".tally dd").first).to_have_text("1")
    assert page.locator(".stage .large").get_attribute("data-id") != voted
    page.get_by_role("button", name="Undo").click()
    expect(page.locator(".tally dd").first).to_have_text("0")
    page.goto(f"{shared[1]}map")
    expect(page.get_by_text("The map is drawn by JavaScript")).to_be_visible()


def test_the_browser_is_opened_if_asked_to(
    library: WebLibrary, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = tmp_path / "opened"
    script = tmp_path / "browser"
    script.write_text(f'#!/bin/sh\necho "$1" > {opened}\n')
    script.chmod(0o755)
    monkeypatch.setenv("BROWSER", str(script))
    with server(library, "--open") as (_, address):
        deadline = time.monotonic() + 60
        while not (opened.exists() and opened.read_text().strip()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        assert opened.read_text().strip() == address
