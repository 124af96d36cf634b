"""A browser and a server for the tests of pages: one of each for a module."""

import re
import shutil
from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from retrieval_pipeline_tests.cli.test_serve_command import server
from retrieval_pipeline_tests.support.web import WebLibrary

# Chromium without windows takes two thirds of the processor time of the whole browser.
CHROMIUM = shutil.which("chromium-headless-shell") or shutil.which("chromium")
# Milliseconds: encoding on a busy machine takes its time.
PATIENCE = 60_000

# What the search box is called.
BOX = "What do you want to see?"

Open = Callable[..., Page]

# What moved without anybody's doing, and by how much: https://web.dev/articles/cls.
SHIFTS = """() => new Promise((resolve) => new PerformanceObserver((list) =>
  resolve(list.getEntries().filter((shift) => !shift.hadRecentInput).map((shift) =>
    [shift.value, shift.sources.map(({ node }) => node?.id || node?.className || "?")]))
).observe({ type: "layout-shift", buffered: true }) || setTimeout(() => resolve([]), 500))"""

expect.set_options(timeout=PATIENCE)


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("Chromium is not installed: apt-get install chromium-headless-shell")
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
