"""What people do with the pictures of a grid, in a real browser."""

import re
import zipfile

import pytest
from playwright.sync_api import Page, expect

from retrieval_pipeline_tests.support.web import WebLibrary
from retrieval_pipeline_tests.web.conftest import Open

pytestmark = pytest.mark.slow


def card(page: Page, place: int) -> str:
    return f'.card[aria-posinset="{place}"]'


def test_pictures_are_selected_by_mouse_and_keys_and_taken_along(
    shared: tuple[WebLibrary, str], open_page: Open
) -> None:
    page = open_page(f"{shared[1]}?sort=name", permissions=["clipboard-read", "clipboard-write"])
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
    page.evaluate("document.activeElement.blur()")
    page.keyboard.press("Escape")
    expect(bar).to_be_hidden()
    page.keyboard.press("Control+a")
    expect(bar.locator(".count")).to_have_text("20 selected")
    bar.get_by_role("button", name="More like these").click()
    expect(page.locator(".chip.like")).to_have_count(20)


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
