"""The scripts, styles and icons of the pages, under addresses that change with them."""

from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles

from retrieval_pipeline.latent_map.html import MAP_SCRIPTS
from retrieval_pipeline.rendering.templating import read_texts
from retrieval_pipeline.storage.content_id import content_id
from retrieval_pipeline.web.pictures import NARROWEST, WIDEST

PACKAGE = "retrieval_pipeline.web"
STATIC = files(PACKAGE) / "static"
CACHED = "public, max-age=31536000, immutable"


@cache
def style_sheet() -> str:
    """Return the style sheet: the tokens that all pages of the project share, and its own.

    The policy forbids style attributes, so that each shape of a card has a class.
    """
    shapes = range(round(100 * NARROWEST), round(100 * WIDEST) + 1)
    rules = [f".s{shape}{{--r:{shape / 100:g}}}" for shape in shapes]
    shared = read_texts("tokens.css", "latent_map.css")
    return "\n".join([shared, (STATIC / "style.css").read_text("utf-8"), *rules])


@cache
def version() -> str:
    """Return the folder that scripts and styles are served from: a new one for each change."""
    texts = [style_sheet(), read_texts(*MAP_SCRIPTS)]
    texts += [file.read_text("utf-8") for file in sorted_static()]
    return content_id("\n".join(texts).encode())[:12]


def sorted_static() -> list[Path]:
    """Return the files that are served as they are."""
    return sorted(Path(str(STATIC)).glob("*.[js]*"))


async def style(request: Request) -> Response:
    """Give the style sheet."""
    return Response(style_sheet(), media_type="text/css", headers={"cache-control": CACHED})


async def map_scripts(request: Request) -> Response:
    """Give the scripts that draw maps, here and in the pages that stand alone."""
    script = read_texts(*MAP_SCRIPTS)
    return Response(script, media_type="text/javascript", headers={"cache-control": CACHED})


class CachedFiles(StaticFiles):
    """Scripts and icons: the version in their addresses changes with them."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """Answer with a file."""
        response = super().file_response(*args, **kwargs)
        response.headers["cache-control"] = CACHED
        return response


ROUTES = [
    Route("/static/{version}/style.css", style),
    Route("/static/{version}/latent_map.js", map_scripts),
    Mount("/static/{version}", CachedFiles(packages=[(PACKAGE, "static")])),
]
