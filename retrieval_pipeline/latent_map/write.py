"""The files that show a map: map.html to explore, map.png to look at."""

from pathlib import Path

from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.latent_map.drawing import Drawing, thumbnails
from retrieval_pipeline.latent_map.html import map_html
from retrieval_pipeline.latent_map.picture import map_picture, tile_size
from retrieval_pipeline.progress import Progress
from retrieval_pipeline.storage.atomic import replacing

# Of the original's picture, in pixels: width, height.
DEFAULT_SIZE = (4096, 2048)
# Longest edge of a thumbnail in pixels: two centimetres on most screens.
THUMBNAIL_PIXELS = 128


def write_views(
    drawing: Drawing,
    directory: Path,
    limits: Limits,
    progress: Progress,
    *,
    size: tuple[int, int] = DEFAULT_SIZE,
    three: bool = False,
) -> None:
    """Write map.html and map.png into a directory.

    Args:
        drawing: What they show.
        directory: Where they go.
        limits: Bounds under which the images are decoded; one that cannot be is left out.
        progress: Told of the thumbnails.
        size: Width and height of map.png, in pixels.
        three: Show three dimensions in map.html.

    Raises:
        StoreError: The file system refused.
    """
    pixels = max(THUMBNAIL_PIXELS, tile_size(len(drawing.paths), size))
    small = thumbnails(drawing, pixels, limits, progress)
    with replacing(directory / "map.png") as temporary:
        map_picture(drawing, small, size).save(temporary, "PNG")
    with replacing(directory / "map.html") as temporary:
        temporary.write_text(map_html(drawing, small, three=three), encoding="utf-8")
