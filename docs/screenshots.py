"""Takes the pictures of the page in docs/pictures from a server that shows the demo's pictures.

retrieval serve --port 8765
python docs/screenshots.py http://127.0.0.1:8765/

The picture of duplicates needs some copies among them; it waits for two minutes and fails without.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from playwright.sync_api import Page, sync_playwright

PICTURES = Path(__file__).parent / "pictures"
CHROMIUM = "/usr/bin/chromium"
QUALITY = 82
# Milliseconds until everything in sight is there.
PATIENCE = 2_500


def first_picture(page: Page) -> None:
    """Open the first picture large."""
    page.locator(".card a.picture").first.click()
    page.wait_for_timeout(PATIENCE)


def all_compared(page: Page) -> None:
    """Wait until the duplicates are known."""
    page.locator(".twins").first.wait_for(timeout=120_000)
    page.wait_for_timeout(PATIENCE)


def votes(page: Page) -> None:
    """Like flowers, and nothing else."""
    for _ in range(10):
        name = page.locator(".question bdi").inner_text()
        page.keyboard.press("y" if name.startswith("image_") else "n")
        page.wait_for_timeout(PATIENCE)


# Name of the picture, path of the page, width, height, colours, and what is done first.
SHOTS: list[tuple[str, str, int, int, str, Callable[[Page], None] | None]] = [
    ("search", "?text=a+dog&minus=grass", 1280, 860, "light", None),
    ("picture", "?text=a+dog&minus=grass", 1280, 860, "light", first_picture),
    ("vote", "vote?name=flowers", 1280, 860, "light", votes),
    ("map", "map", 1280, 860, "light", None),
    ("duplicates", "duplicates", 1280, 860, "light", all_compared),
    ("phone", "?text=a+flower", 390, 844, "dark", None),
]


def main(address: str) -> None:
    """Take all pictures."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"]
        )
        for name, path, width, height, theme, act in SHOTS:
            touch = width < 500
            context = browser.new_context(
                viewport={"width": width, "height": height},
                color_scheme=theme,  # type: ignore[arg-type]
                has_touch=touch,
                is_mobile=touch,
            )
            page = context.new_page()
            page.goto(address + path)
            page.wait_for_timeout(PATIENCE)
            if act is not None:
                act(page)
            with Image.open(io.BytesIO(page.screenshot())) as shot:
                shot.convert("RGB").save(PICTURES / f"web-{name}.webp", quality=QUALITY)
            context.close()
        browser.close()


if __name__ == "__main__":
    main(sys.argv[1])
