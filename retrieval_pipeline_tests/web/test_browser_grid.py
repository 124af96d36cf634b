"""What people do with the pictures of a grid, in a real browser."""

import json
import re
import zipfile
from collections.abc import Iterator
from datetime import datetime

import numpy as np
import pytest
from playwright.sync_api import Page, expect

from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.images.pictures import encoded
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline_tests.cli.test_serve_command import server
from retrieval_pipeline_tests.support.web import WebLibrary
from retrieval_pipeline_tests.web.conftest import BOX, SHIFTS, Open
from synthetic.tables import random_vectors, write_facts, write_manifest, write_part

pytestmark = pytest.mark.slow


GREY = encoded(np.full((20, 30, 3), 90, np.uint8))
# Pictures of each month of three years, and such without a date.
MONTHS, EACH, UNDATED = 36, 10, 5


@pytest.fixture(scope="module")
def dated(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a server of pictures without files, with dates, folders and cameras."""
    library = WebLibrary(tmp_path_factory.mktemp("dated"))
    library.photo("").mkdir()
    library.settings_file.write_text(
        'home = "home"\nmodel = "offline"\n[[sources]]\nname = "photos"\npath = "photos"\n'
    )
    names = [f"n{number:03d}" for number in range(MONTHS * EACH + UNDATED)]
    facts = {}
    for number, name in enumerate(names):
        month = number // EACH
        taken = datetime(2020 + month // 12, 1 + month % 12, 3) if month < MONTHS else None
        facts[f"{2020 + month // 12}/{name}.jpg"] = PictureFacts(
            taken_at=taken, taken_from=taken and Origin.EXIF, camera=f"Maker M{month % 3}"
        )
    store, space = Store(library.root / "home"), VectorSpace("offline", "r", 16, "p")
    write_manifest(store, "photos", dict(zip(facts, names, strict=True)))
    write_part(store, space, "photos", names, random_vectors(len(names), 16))
    write_facts(store, "photos", facts)
    build_index(store, space, ["photos"])
    with server(library) as (_, address):
        yield address


def card(page: Page, place: int) -> str:
    return f'.card[aria-posinset="{place}"]'


def test_pictures_are_selected_by_mouse_and_keys_and_taken_along(
    shared: tuple[WebLibrary, str], open_page: Open
) -> None:
    page = open_page(
        f"{shared[1]}?sort=name",
        viewport={"width": 1280, "height": 1600},
        permissions=["clipboard-read", "clipboard-write"],
    )
    page.wait_for_selector("[data-ready]")
    bar = page.get_by_role("toolbar", name="What is selected")
    expect(bar).to_be_hidden()
    page.locator(card(page, 2)).hover()
    page.locator(card(page, 2)).get_by_role("button", name=re.compile("^Select ")).click()
    expect(bar.locator(".count")).to_have_text("1 selected")
    page.locator(card(page, 5)).locator("a.picture").click(modifiers=["Shift"])
    expect(bar.locator(".count")).to_have_text("4 selected")
    page.keyboard.press("x")
    expect(bar.locator(".count")).to_have_text("3 selected")
    # Another search keeps what is selected.
    page.get_by_label("Order").select_option("newest")
    expect(page).to_have_url(re.compile("sort=newest"))
    expect(page.locator(".card.ticked")).to_have_count(3)
    bar.get_by_role("button", name="Copy paths").click()
    expect(page.get_by_role("status").last).to_contain_text("3 paths are copied")
    copied = page.evaluate("navigator.clipboard.readText()").splitlines()
    names = page.locator(".card.ticked .name").all_inner_texts()
    assert sorted(path.rpartition("/")[2] for path in copied) == sorted(names)
    with page.expect_download() as download:
        bar.get_by_role("button", name="Download").click()
    with zipfile.ZipFile(download.value.path()) as archive:
        assert archive.testzip() is None
        assert sorted(name.rpartition("/")[2] for name in archive.namelist()) == sorted(names)
    bar.get_by_role("button", name="Like all of them", exact=True).click()
    liked = page.locator('.card.ticked [data-vote="true"][aria-pressed="true"]')
    expect(liked).to_have_count(3)
    page.get_by_role("button", name="Undo").click()
    expect(liked).to_have_count(0)
    bar.get_by_role("button", name="Add to album").click()
    page.locator("#album input").fill("Gifts")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status").last).to_contain_text("“Gifts” has 3")
    page.get_by_role("button", name="Show").click()
    expect(page.locator(".chip.album")).to_be_visible()
    expect(page.locator(".card")).to_have_count(3)
    page.keyboard.press("Escape")
    expect(bar).to_be_hidden()
    page.locator(card(page, 1)).get_by_role("button", name=re.compile("^Select ")).click()
    bar.get_by_role("button", name="Take out").click()
    expect(page.locator(".card")).to_have_count(2)
    expect(bar).to_be_hidden()
    page.get_by_role("link", name="Remove in the album Gifts").click()
    expect(page.locator(card(page, 4))).to_be_visible()
    page.keyboard.press("Control+a")
    expect(bar.locator(".count")).to_have_text("20 selected")
    bar.get_by_role("button", name="More like these").click()
    expect(page.locator(".chip.like")).to_have_count(20)
    # Duplicates to leave are an album too; what an earlier version kept in the browser joins them.
    page.goto(f"{shared[1]}duplicates")
    boxes = page.get_by_label("Leave these as they are")
    with page.expect_response("**/api/albums/add"):
        boxes.first.check()
    groups = [box.get_attribute("data-leave") or "" for box in boxes.all()]
    former = json.dumps([ids.split()[0] for ids in groups[1:]])
    page.evaluate("former => localStorage.setItem('left duplicates', former)", former)
    with page.expect_response("**/api/albums/add"):
        page.reload()
    for box in boxes.all():
        expect(box).to_be_checked()
    page.wait_for_function("localStorage.getItem('left duplicates') === null")
    page.reload()
    expect(boxes.first).to_be_checked()
    with page.expect_response("**/api/albums/remove"):
        boxes.first.uncheck()
    page.reload()
    expect(boxes.first).not_to_be_checked()


def test_a_finger_that_rests_on_a_picture_selects_it(
    shared: tuple[WebLibrary, str], open_page: Open
) -> None:
    page = open_page(
        shared[1], viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True
    )
    page.wait_for_selector("[data-ready]")
    box = page.locator(card(page, 1)).bounding_box()
    assert box is not None
    touch = page.context.new_cdp_session(page)
    # Where the tick will be.
    points = [{"x": box["x"] + 20, "y": box["y"] + 20}]
    touch.send("Input.dispatchTouchEvent", {"type": "touchStart", "touchPoints": points})
    expect(page.locator(".count")).to_have_text("1 selected")
    touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    page.locator(card(page, 2)).locator("a.picture").tap()
    expect(page.locator(".count")).to_have_text("2 selected")
    expect(page.get_by_role("dialog")).to_be_hidden()


def test_months_have_headings_and_a_bar_leads_to_any_of_them(dated: str, open_page: Open) -> None:
    page = open_page("about:blank")
    page.route("**/thumbnail*", lambda route: route.fulfill(body=GREY, content_type="image/webp"))
    page.goto(dated)
    page.wait_for_selector("[data-ready]")
    shifts = page.evaluate(SHIFTS)
    assert sum(value for value, _ in shifts) < 0.02, shifts
    headings = page.locator(".month h2")
    expect(headings.first).to_have_text("December 2022")
    bar = page.get_by_role("slider", name="Month")
    expect(bar).to_have_attribute("aria-valuetext", "December 2022")
    expect(bar.locator(".years span")).to_have_text(["2022", "2021", "2020"])
    bar.focus()
    page.keyboard.press("PageDown")
    expect(bar).to_have_attribute("aria-valuetext", "December 2021")
    expect(page.locator(card(page, 12 * EACH + 1))).to_be_in_viewport()
    page.keyboard.press("End")
    expect(page.get_by_role("heading", name="Without a date")).to_be_in_viewport()
    place = bar.bounding_box()
    assert place is not None
    page.mouse.click(place["x"] + 10, place["y"] + place["height"] / 2)
    expect(bar).to_have_attribute("aria-valuetext", re.compile("2021"))
    # By name there are no months.
    page.get_by_label("Order").select_option("name")
    expect(page).to_have_url(re.compile("sort=name"))
    expect(headings).to_have_count(0)
    expect(bar).to_be_hidden()


def test_one_box_takes_words_away_names_files_and_suggests(
    shared: tuple[WebLibrary, str], open_page: Open
) -> None:
    page = open_page(shared[1])
    page.wait_for_selector("[data-ready]")
    box = page.get_by_role("combobox", name=BOX)
    chips = page.locator(".chip.understood")
    box.fill("an animal -cat")
    expect(chips).to_have_text("− cat")
    expect(page.locator(".card .name").first).not_to_have_text("cat.png")
    chips.click()
    expect(page).to_have_url(re.compile(r"text=an\+animal$"))
    expect(page.locator(".card .name").first).to_have_text("cat.png")
    box.press("Enter")
    # Suggestions: what was asked before, then files of that name.
    box.fill("a")
    options = page.get_by_role("listbox", name="Suggestions").get_by_role("option")
    expect(options.first).to_have_text("an animalrecent")
    box.fill("cat")
    file = options.filter(has_text="cat.png")
    expect(file).to_be_visible()
    box.press("ArrowUp")
    expect(box).to_have_attribute("aria-activedescendant", re.compile("suggestions-"))
    box.press("Escape")
    expect(options).to_have_count(0)
    expect(box).to_have_value("cat")
    box.press("Escape")
    expect(box).to_have_value("cat")
    box.press("ArrowDown")
    file.click()
    expect(box).to_have_value('"cat.png"')
    expect(chips).to_have_text("named cat.png")
    expect(page.locator(".card .name")).to_have_text(["cat.png"])
    box.fill("dee")
    expect(options.filter(has_text="folder")).to_have_text("deepfolder")
    box.press("ArrowDown")
    expect(options.first).to_have_attribute("aria-selected", "true")
    box.press("Enter")
    expect(page.locator(".chip.path")).to_have_text("in deep")
    expect(box).to_have_value("")


def test_facets_lead_to_folders_and_years_and_back(dated: str, open_page: Open) -> None:
    page = open_page("about:blank")
    page.route("**/thumbnail*", lambda route: route.fulfill(body=GREY, content_type="image/webp"))
    page.goto(dated)
    page.wait_for_selector("[data-ready]")
    page.get_by_text("Browse by folder").click()
    years = page.get_by_role("region", name="Year").get_by_role("link")
    expect(years).to_have_text(["2022 120", "2021 120", "2020 120"])
    folders = page.get_by_role("region", name="Folder").get_by_role("link")
    expect(folders).to_have_text(["2020 120", "2021 120", "2022 120", "2023 5"])
    folders.nth(1).click()
    expect(page.locator(".chip.path")).to_have_text("in 2021")
    expect(page.locator('.card[aria-setsize="120"]').first).to_be_attached()
    cameras = page.get_by_role("region", name="Camera").get_by_role("link")
    expect(cameras).to_have_text(["Maker M0 40", "Maker M1 40", "Maker M2 40"])
    cameras.nth(2).click()
    expect(page.locator('.card[aria-setsize="40"]').first).to_be_attached()
    page.get_by_role("link", name="all folders").click()
    expect(page.locator('.card[aria-setsize="120"]').first).to_be_attached()
    # Each card leads to its folder.
    page.locator(card(page, 1)).get_by_role("link", name="2022", exact=True).click()
    expect(page).to_have_url(re.compile(r"\?source=photos&path=2022%2F\*$"))
    expect(page.locator(".chip")).to_have_text(["in photos", "in 2022"])


def test_pictures_are_as_large_as_was_chosen_also_when_the_page_loads(
    dated: str, open_page: Open
) -> None:
    page = open_page("about:blank")
    page.route("**/thumbnail*", lambda route: route.fulfill(body=GREY, content_type="image/webp"))
    page.goto(dated)
    page.wait_for_selector("[data-ready]")

    def size() -> float:
        box = page.locator(f"{card(page, 1)} .picture").bounding_box()
        assert box is not None
        return box["height"]

    before = size()
    slider = page.get_by_role("slider", name="Size of the pictures")
    slider.focus()
    page.keyboard.press("End")
    assert size() > 1.5 * before
    page.get_by_label("Captions").uncheck()
    expect(page.locator(".card .name").first).to_be_hidden()
    large = size()
    page.reload()
    page.wait_for_selector("[data-ready]")
    shifts = page.evaluate(SHIFTS)
    assert sum(value for value, _ in shifts) < 0.02, shifts
    assert size() == large
    expect(slider).to_have_value("5")
    # Home and End lead through the grid.
    page.evaluate("document.querySelector('.card a').focus()")
    page.keyboard.press("End")
    last = page.locator(card(page, MONTHS * EACH + UNDATED))
    expect(last.locator("a.picture")).to_be_focused()
