"""A latent map as one picture: thumbnails at their coordinates, as many as do not overlap."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw, ImageFont, ImageOps

from retrieval_pipeline.images.transform import Pixels
from retrieval_pipeline.latent_map.clusters import sample
from retrieval_pipeline.latent_map.drawing import Drawing, Group, fact_groups
from retrieval_pipeline.paths import printable

GROUND, PANEL, GRID, INK, MUTED = "#f6f4f0", "#ffffff", "#e8e4dc", "#1d1b18", "#67625a"
# Everything is laid out for this width, and scaled.
REFERENCE_WIDTH = 4096
# Thumbnails take a share of the picture's width between these: few images are shown larger.
SMALLEST_TILE, LARGEST_TILE = 1 / 32, 1 / 12
# Points drawn behind the thumbnails; more would only fill the ground.
POINTS = 100_000
# Names in the legend; the rest is counted in a last line.
LEGEND_LINES = 24

# Viridis by van der Walt and Smith, in ten steps; latent_map.js has the same.
VIRIDIS = (
    "#440154", "#482878", "#3e4989", "#31688e", "#26828e",
    "#1f9e89", "#35b779", "#6ece58", "#b5de2b", "#fde725",
)  # fmt: skip

Box = tuple[float, float, float, float]


@dataclass(frozen=True)
class _Frame:
    """Where the map lies in the picture, and the scale of everything else.

    Attributes:
        size: Of the picture.
        plot: Left, top, right, bottom of the part with the map.
        unit: Pixels for one pixel of a picture of REFERENCE_WIDTH.
    """

    size: tuple[int, int]
    plot: Box
    unit: float

    @classmethod
    def of(cls, size: tuple[int, int]) -> "_Frame":
        unit = min(size[0] / REFERENCE_WIDTH, size[1] / (REFERENCE_WIDTH / 2))
        width, height = size
        return cls(size, (190 * unit, 170 * unit, width - 600 * unit, height - 130 * unit), unit)

    def font(self, pixels: float) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        return ImageFont.load_default(max(pixels * self.unit, 6))


def tile_size(count: int, size: tuple[int, int]) -> int:
    """Return the longest edge in pixels of thumbnails on a picture that maps `count` images."""
    left, top, right, bottom = _Frame.of(size).plot
    room = np.sqrt((right - left) * (bottom - top) / (4 * count))
    return int(min(max(room, size[0] * SMALLEST_TILE), size[0] * LARGEST_TILE))


def map_picture(
    drawing: Drawing, thumbnails: Mapping[int, Pixels], size: tuple[int, int]
) -> Image.Image:
    """Draw the map.

    Args:
        drawing: What to draw.
        thumbnails: By row of the map, in the order of importance: of those that would overlap, the
            first is drawn.
        size: Width and height in pixels.
    """
    frame = _Frame.of(size)
    picture = Image.new("RGB", size, GROUND)
    draw = ImageDraw.Draw(picture)
    tile = tile_size(len(drawing.paths), size)
    low, high = _extent(drawing)
    places = _places(drawing, frame, tile, low, high)
    colours, legend = _colours(drawing)
    _draw_axes(draw, drawing, frame, low, high, tile)
    _draw_points(draw, places, colours, frame)
    for row in _apart(places, list(thumbnails), tile):
        small = Image.fromarray(thumbnails[row])
        _draw_tile(picture, draw, small, places[row], colours[row], tile, frame)
    if drawing.colour_by in ("cluster", "score"):
        _draw_names(draw, drawing, places, frame)
    _draw_legend(picture, draw, drawing, legend, frame)
    draw.text((frame.plot[0], 85 * frame.unit), printable(drawing.title), INK, frame.font(72), "lm")
    return picture


def _extent(drawing: Drawing) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    flat = drawing.latent.coordinates[:, :2].astype(np.float64)
    low, high = flat.min(axis=0), flat.max(axis=0)
    # Images that all lie on one point or line still need some extent.
    empty = high - low < 1e-6
    return np.where(empty, low - 0.5, low), np.where(empty, high + 0.5, high)


def _places(
    drawing: Drawing,
    frame: _Frame,
    tile: int,
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
) -> npt.NDArray[np.float64]:
    """Return the centre of each image in pixels, float64 (n, 2)."""
    left, top, right, bottom = _inner(frame, tile)
    unit = (drawing.latent.coordinates[:, :2] - low) / (high - low)
    return np.stack([left + unit[:, 0] * (right - left), bottom - unit[:, 1] * (bottom - top)], 1)


def _inner(frame: _Frame, tile: int) -> Box:
    """Return where centres of thumbnails may lie, so that none hangs over the edge."""
    left, top, right, bottom = frame.plot
    margin = tile / 2 + 20 * frame.unit
    return left + margin, top + margin, right - margin, bottom - margin


def _apart(places: npt.NDArray[np.float64], rows: Sequence[int], tile: int) -> list[int]:
    """Return the rows whose tiles do not overlap an earlier one's."""
    gap = tile * 1.06
    taken: dict[tuple[int, int], list[int]] = {}
    kept = []
    for row in rows:
        x, y = places[row]
        column, line = int(x // gap), int(y // gap)
        near = (
            other
            for i in (-1, 0, 1)
            for j in (-1, 0, 1)
            for other in taken.get((column + i, line + j), ())
        )
        if all(max(abs(places[other] - places[row])) >= gap for other in near):
            taken.setdefault((column, line), []).append(row)
            kept.append(row)
    return kept


def _colours(drawing: Drawing) -> tuple[Sequence[str], tuple[Group, ...]]:
    """Return the colour of each image and the legend; a score has a scale instead."""
    if drawing.colour_by == "score" and drawing.scores is not None:
        scores = drawing.scores.astype(np.float64)
        extent = max(float(np.ptp(scores)), 1e-9)
        shades = _viridis(256)
        level = np.rint((scores - scores.min()) / extent * 255).astype(int)
        return [shades[number] for number in level], ()
    if drawing.colour_by in drawing.facts:
        groups = fact_groups(drawing.facts[drawing.colour_by])
        return [
            groups[number].colour for number in drawing.facts[drawing.colour_by].group_of
        ], groups
    by_source = drawing.colour_by == "source"
    groups = drawing.source_groups if by_source else drawing.clusters
    numbers = drawing.source_of if by_source else drawing.latent.members
    return [groups[number].colour for number in numbers], groups


def _viridis(count: int) -> list[str]:
    """Return colours "#rrggbb" from the lowest to the highest value."""
    steps = np.array([ImageColor.getrgb(colour) for colour in VIRIDIS])
    at = np.linspace(0, len(steps) - 1, count)
    channels = [np.interp(at, np.arange(len(steps)), channel) for channel in steps.T]
    return ["#" + bytes(colour).hex() for colour in np.rint(channels).astype(np.uint8).T]


def _draw_axes(
    draw: ImageDraw.ImageDraw,
    drawing: Drawing,
    frame: _Frame,
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
    tile: int,
) -> None:
    left, top, right, bottom = frame.plot
    draw.rectangle(frame.plot, PANEL)
    x0, y0, x1, y1 = _inner(frame, tile)
    font, line = frame.font(32), max(round(2 * frame.unit), 1)
    for tick in _ticks(low[0], high[0]):
        x = x0 + (tick - low[0]) / (high[0] - low[0]) * (x1 - x0)
        draw.line((x, top, x, bottom), GRID, line)
        draw.text((x, bottom + 30 * frame.unit), f"{tick:g}", MUTED, font, "mm")
    for tick in _ticks(low[1], high[1]):
        y = y1 - (tick - low[1]) / (high[1] - low[1]) * (y1 - y0)
        draw.line((left, y, right, y), GRID, line)
        draw.text((left - 16 * frame.unit, y), f"{tick:g}", MUTED, font, "rm")
    across, up = drawing.axes[:2]
    font = frame.font(40)
    draw.text(((left + right) / 2, bottom + 86 * frame.unit), across, MUTED, font, "mm")
    # Pillow writes upwards only by way of a picture of its own.
    text = Image.new("L", (round(draw.textlength(up, font)) + 1, round(60 * frame.unit)))
    ImageDraw.Draw(text).text((0, text.height / 2), up, 255, font, "lm")
    text = text.transpose(Image.Transpose.ROTATE_90)
    place = (round(14 * frame.unit), round((top + bottom - text.height) / 2))
    draw.bitmap(place, text, MUTED)


def _ticks(low: float, high: float) -> list[float]:
    """Return about five round numbers between two."""
    step = (high - low) / 5
    power = 10.0 ** np.floor(np.log10(step))
    step = power * min((1, 2, 5, 10), key=lambda factor: abs(factor * power - step))
    first = int(np.ceil(low / step))
    return [round(number * step, 10) for number in range(first, int(np.floor(high / step)) + 1)]


def _draw_points(
    draw: ImageDraw.ImageDraw,
    places: npt.NDArray[np.float64],
    colours: Sequence[str],
    frame: _Frame,
) -> None:
    radius = (9 if len(places) < 5_000 else 4) * frame.unit
    pale = {colour: _mixed(colour, PANEL) for colour in set(colours)}
    for row in sample(len(places), POINTS):
        x, y = places[row]
        draw.ellipse((x - radius, y - radius, x + radius, y + radius), pale[colours[row]])


def _mixed(colour: str, other: str) -> tuple[int, ...]:
    pairs = zip(ImageColor.getrgb(colour), ImageColor.getrgb(other), strict=True)
    return tuple((one + two) // 2 for one, two in pairs)


def _draw_tile(
    picture: Image.Image,
    draw: ImageDraw.ImageDraw,
    small: Image.Image,
    place: npt.NDArray[np.float64],
    colour: str,
    tile: int,
    frame: _Frame,
) -> None:
    border = max(round(5 * frame.unit), 1)
    small = ImageOps.contain(small, (tile - 2 * border, tile - 2 * border))
    x, y = (round(value - edge / 2) for value, edge in zip(place, small.size, strict=True))
    edges = (x - border, y - border, x + small.width + border - 1, y + small.height + border - 1)
    draw.rectangle(edges, colour)
    picture.paste(small, (x, y))


def _draw_names(
    draw: ImageDraw.ImageDraw, drawing: Drawing, places: npt.NDArray[np.float64], frame: _Frame
) -> None:
    """Write the name of each cluster over its middle, the largest first, none over another."""
    font, pad = frame.font(46), 14 * frame.unit
    taken: list[Box] = []
    for number, group in enumerate(drawing.clusters):
        if not group.images:
            continue
        x, y = np.median(places[drawing.latent.members == number], axis=0)
        left, top, right, bottom = draw.textbbox((x, y), group.name, font, "mm")
        box = (left - pad, top - pad, right + pad, bottom + pad)
        while any(_overlap(box, other) for other in taken):
            box = (box[0], box[1] + pad, box[2], box[3] + pad)
        taken.append(box)
        draw.rounded_rectangle(box, pad, PANEL, group.colour, max(round(4 * frame.unit), 1))
        middle = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
        draw.text(middle, group.name, INK, font, "mm")


def _overlap(one: Box, two: Box) -> bool:
    return one[0] < two[2] and two[0] < one[2] and one[1] < two[3] and two[1] < one[3]


def _draw_legend(
    picture: Image.Image,
    draw: ImageDraw.ImageDraw,
    drawing: Drawing,
    groups: Sequence[Group],
    frame: _Frame,
) -> None:
    unit = frame.unit
    left, top = frame.plot[2] + 50 * unit, frame.plot[1]
    draw.text(
        (left, top + 20 * unit), f"{len(drawing.paths):,} images", MUTED, frame.font(40), "lm"
    )
    if drawing.colour_by == "score" and drawing.scores is not None:
        _draw_scale(draw, drawing, (left, top + 90 * unit), frame)
        return
    font = frame.font(44)
    for line, group in enumerate(groups[:LEGEND_LINES]):
        y = top + (100 + 66 * line) * unit
        draw.rounded_rectangle(
            (left, y - 20 * unit, left + 40 * unit, y + 20 * unit), 8 * unit, group.colour
        )
        draw.text((left + 60 * unit, y), group.name, INK, font, "lm")
        draw.text((picture.width - 40 * unit, y), f"{group.images:,}", MUTED, font, "rm")
    if len(groups) > LEGEND_LINES:
        y = top + (100 + 66 * LEGEND_LINES) * unit
        draw.text((left, y), f"and {len(groups) - LEGEND_LINES} more", MUTED, font, "lm")


def _draw_scale(
    draw: ImageDraw.ImageDraw, drawing: Drawing, corner: tuple[float, float], frame: _Frame
) -> None:
    assert drawing.scores is not None
    (left, top), unit = corner, frame.unit
    height = 800 * unit
    steps = 200
    for step, shade in enumerate(_viridis(steps)):
        bottom = top + height * (1 - step / steps)
        draw.rectangle((left, bottom - height / steps, left + 50 * unit, bottom), shade)
    font = frame.font(40)
    for value, y in ((drawing.scores.max(), top), (drawing.scores.min(), top + height)):
        draw.text((left + 70 * unit, y), f"{value:.3f}", INK, font, "lm")
    draw.text((left + 70 * unit, top + height / 2), "score", MUTED, font, "lm")
