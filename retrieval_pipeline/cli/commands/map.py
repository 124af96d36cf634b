"""`retrieval map`: draw the latent space of the collection."""

import re
from pathlib import Path
from typing import TYPE_CHECKING

import click

from retrieval_pipeline.cli.commands.common import (
    check_page,
    config_option,
    path_option,
    source_option,
)
from retrieval_pipeline.cli.output import report
from retrieval_pipeline.cli.parameters import Count, FilePath
from retrieval_pipeline.config.loading import load_settings

if TYPE_CHECKING:
    from retrieval_pipeline.config.settings import Settings
    from retrieval_pipeline.latent_map.coordinates import MapInfo
    from retrieval_pipeline.latent_map.drawing import ColourBy
    from retrieval_pipeline.progress import Progress

# Pixels of a side: labels cannot be read on a smaller picture, and Pillow and most viewers refuse
# larger ones.
SMALLEST, LARGEST = 256, 20_000


class Size(click.ParamType):  # type: ignore[type-arg]
    """Width and height in pixels, written as "4096x2048"."""

    name = "WxH"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[int, int]:
        """Return (width, height)."""
        found = re.fullmatch(r"(\d{1,9})[x×](\d{1,9})", str(value).strip().lower())
        if not found:
            self.fail(f"{value!r} is not a size: write it as 4096x2048", param, ctx)
        width, height = int(found[1]), int(found[2])
        if not (SMALLEST <= width <= LARGEST and SMALLEST <= height <= LARGEST):
            self.fail(f"{value}: each side must be {SMALLEST} to {LARGEST} pixels", param, ctx)
        return width, height


@click.command("map")
@click.option("--like", metavar="TEXT", help="Colour images by how near they are to these words.")
@click.option(
    "--like-image",
    type=FilePath(),
    metavar="PATH",
    help="Colour images by how near they are to this picture.",
)
@click.option(
    "--sample",
    "count",
    type=Count(1),
    metavar="N",
    help="Map only the N images nearest to --like; without --like, N random images.",
)
@click.option(
    "--clusters",
    type=Count(1),
    metavar="K",
    help="Number of clusters.  [default: as many as separate best]",
)
@source_option
@path_option
@click.option(
    "--color",
    "colour_by",
    type=click.Choice(["cluster", "source", "score", "year", "camera", "country"]),
    help="What colours mean.",
)
@click.option("--size", type=Size(), help="Size of map.png in pixels.  [default: 4096x2048]")
@click.option("--3d", "three", is_flag=True, help="Draw map.html in three dimensions.")
@click.option(
    "--output",
    type=FilePath(file_okay=False),
    metavar="DIR",
    help="Directory for map.html and map.png.",
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
@config_option
def latent_map(
    like: str | None,
    like_image: Path | None,
    count: int | None,
    clusters: int | None,
    sources: tuple[str, ...],
    paths: tuple[str, ...],
    colour_by: "ColourBy | None",
    size: tuple[int, int] | None,
    three: bool,
    output: Path | None,
    open_page: bool,
    config: Path | None,
) -> None:
    """Show the collection as a map on which similar pictures lie together.

    Without options this is the map that `retrieval index` keeps up to date. With options a map of
    the chosen images is drawn now, into a directory of its own.

    \b
    retrieval map --open
    retrieval map --like "a flower" --sample 200
    retrieval map --source holidays --clusters 12 --size 8192x4096 --output holidays-map
    """
    settings = load_settings(config)
    if output is not None:
        check_page(output / "map.html")
    from retrieval_pipeline.cli.index_text import map_text
    from retrieval_pipeline.cli.progress import console_progress
    from retrieval_pipeline.images.errors import Limits
    from retrieval_pipeline.latent_map.drawing import drawing_to_order
    from retrieval_pipeline.latent_map.write import DEFAULT_SIZE, write_views
    from retrieval_pipeline.search.query import Query
    from retrieval_pipeline.search.searcher import Searcher
    from retrieval_pipeline.storage.store import Store

    query = Query(
        text=like, images=(like_image,) if like_image else (), sources=sources, paths=paths
    )
    to_order = query != Query() or three or any((count, clusters, colour_by, size, output))
    with console_progress() as progress:
        if not to_order:
            directory, info = _standing_map(settings, progress)
        else:
            drawing = drawing_to_order(
                Searcher.open(settings),
                query,
                count=count,
                clusters=clusters,
                colour_by=colour_by,
                progress=progress,
            )
            directory, info = output or Store(settings.home).last_map, drawing.latent.info
            write_views(
                drawing,
                directory,
                Limits.of(settings.images),
                progress,
                size=size or DEFAULT_SIZE,
                three=three,
            )
    page = directory.absolute() / "map.html"
    report(*map_text(info), f"page     {page}", f"picture  {page.with_suffix('.png')}")
    if open_page:
        import webbrowser

        webbrowser.open(page.as_uri())


def _standing_map(settings: "Settings", progress: "Progress") -> "tuple[Path, MapInfo]":
    """Return the map of the current build, and draw it if `retrieval index` did not."""
    from retrieval_pipeline.errors import BuildError, MapError
    from retrieval_pipeline.latent_map.coordinates import read_map_info
    from retrieval_pipeline.pipeline.publish import answering_build, update_map
    from retrieval_pipeline.storage.store import Store

    store = Store(settings.home)
    build = answering_build(settings)
    if build is None:
        raise BuildError(f"nothing is indexed yet in {store.home}: run `retrieval index` first")
    directory = store.map(build.name)
    if directory.exists():
        return directory, read_map_info(directory)
    with store.locked():
        report = update_map(settings, build, progress=progress)
    if report.info is None:
        raise MapError(report.problem)
    return directory, report.info
