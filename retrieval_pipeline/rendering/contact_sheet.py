"""A contact sheet: one small PNG of a few pictures, for the event log of Dagster."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import groupby

from PIL import Image, ImageDraw, ImageFont, ImageOps

from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.pictures import pictures
from retrieval_pipeline.images.transform import Decoded, Fit
from retrieval_pipeline.paths import printable

# The event log keeps every sheet, and a browser loads all sheets of a run at once. Base64 makes
# this 93 kB, so that a whole event stays below 100 kB.
MAX_BYTES = 70_000
# With more pictures, each would be too small to recognise within MAX_BYTES.
MAX_PICTURES = 48
# In pixels: greatest width of the sheet, longest edge of a picture, gap between pictures, height of
# a caption.
WIDTH, PICTURE, GAP, LINE = 640, 480, 4, 16
# Height divided by width: the aim for the whole sheet, and the greatest value for one row.
ASPECT, ROW_ASPECT = 0.6, 0.5
# Width divided by height: pictures outside this range are cropped, so that a panorama leaves room
# for others.
NARROWEST, WIDEST = 0.5, 2.5
# Colours of the dithered palette; sheets of MAX_BYTES looked worse with 64 and with 256.
COLOURS = 128
# Background, empty tile and text; photographs stand out in the light and the dark theme of Dagster.
GROUND, MATTE, INK = (28, 27, 25), (62, 59, 55), (206, 201, 193)


@dataclass(frozen=True)
class _Tile:
    """A picture, or the reason why it cannot be shown, and a caption."""

    picture: Image.Image | None
    problem: str
    caption: str

    @property
    def ratio(self) -> float:
        """Width divided by height of the place for the picture."""
        if self.picture is None:
            return 4 / 3
        return min(max(self.picture.width / self.picture.height, NARROWEST), WIDEST)


def contact_sheet(
    jobs: Sequence[Job | ImageError],
    limits: Limits,
    captions: Sequence[str] = (),
    *,
    partial: bool = False,
) -> bytes:
    """Return a PNG of less than 70,000 bytes with the first 48 pictures in rows.

    Args:
        jobs: Image files; one that cannot be used becomes a grey tile that names the reason, and so
            does an error in the place of a file.
        limits: Bounds under which they are decoded.
        captions: A line below each picture, in the order of `jobs`; shortened to its width.
        partial: Whether to show as much as there is of a damaged picture.
    """
    jobs = jobs[:MAX_PICTURES]
    texts = [*captions, *[""] * len(jobs)]
    files = [job for job in jobs if isinstance(job, Job)]
    shown = pictures(files, Fit(PICTURE, partial), limits)
    found = (next(shown) if isinstance(job, Job) else job for job in jobs)
    tiles = [_tile(each, text) for each, text in zip(found, texts, strict=False)]
    tiles = tiles or [_Tile(None, "no pictures", "")]
    width = WIDTH
    while len(png := _png(_drawn(tiles, width))) >= MAX_BYTES:
        # Slightly less than in proportion, because smaller pictures take more bytes per pixel.
        width = int(width * 0.96 * math.sqrt(MAX_BYTES / len(png)))
    return png


def _tile(found: Decoded | ImageError, caption: str) -> _Tile:
    if isinstance(found, ImageError):
        return _Tile(None, found.reason.value.replace("_", " "), printable(caption))
    return _Tile(Image.fromarray(found.pixels), "", printable(caption))


def _drawn(tiles: Sequence[_Tile], width: int) -> Image.Image:
    """Draw the tiles in rows, each as wide as the sheet, in reading order."""
    line = LINE if any(tile.caption for tile in tiles) else 0
    font = ImageFont.load_default(12)
    placed = []
    right, top = GAP, GAP
    for row in _rows(tiles):
        ratio = sum(tile.ratio for tile in row)
        height = min((width - GAP * (len(row) + 1)) / ratio, width * ROW_ASPECT)
        left = float(GAP)
        for tile in row:
            end = left + height * tile.ratio
            placed.append((tile, (round(left), top, round(end), top + round(height))))
            left = end + GAP
        right = max(right, round(left))
        top += round(height) + line + GAP
    sheet = Image.new("RGB", (right, top), GROUND)
    draw = ImageDraw.Draw(sheet)
    for tile, (x0, y0, x1, y1) in placed:
        size = (x1 - x0, y1 - y0)
        if tile.picture:
            sheet.paste(ImageOps.fit(tile.picture, size), (x0, y0))
        else:
            draw.rectangle((x0, y0, x1 - 1, y1 - 1), MATTE)
            text = _shortened(tile.problem, size[0], font)
            draw.text(((x0 + x1) / 2, (y0 + y1) / 2), text, INK, font, anchor="mm")
        draw.text((x0, y1 + 1), _shortened(tile.caption, size[0], font), INK, font)
    return sheet


def _rows(tiles: Sequence[_Tile]) -> list[list[_Tile]]:
    """Split the tiles into rows of about equal length, so that the last row is full as well."""
    total = sum(tile.ratio for tile in tiles)
    # A row is W * rows / total high if rows share the ratios evenly; that many rows are ASPECT * W
    # high together when rows**2 = total * ASPECT.
    rows = max(1, round(math.sqrt(total * ASPECT)))
    middles = []
    passed = 0.0
    for tile in tiles:
        middles.append(passed + tile.ratio / 2)
        passed += tile.ratio
    numbered = zip(middles, tiles, strict=True)
    return [
        [tile for _, tile in row]
        for _, row in groupby(numbered, key=lambda each: int(each[0] / total * rows))
    ]


def _shortened(text: str, width: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """Return the text, cut with an ellipsis if it is wider than `width` pixels."""
    if font.getlength(text) <= width:
        return text
    while text and font.getlength(f"{text}…") > width:
        text = text[:-1]
    return f"{text}…"


def _png(sheet: Image.Image) -> bytes:
    palette = sheet.quantize(COLOURS, Image.Quantize.FASTOCTREE)
    buffer = BytesIO()
    sheet.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG).save(
        buffer, "PNG", optimize=True
    )
    return buffer.getvalue()
