"""Whether two pictures agree in their details: a fine comparison, block by block.

Two invoices of one supplier have the same light and dark places, and differ in a few figures. The
copies of a picture agree in every block of a few pixels, also when they were saved with losses,
resized, made brighter or cut at the edges.

Blocks are compared by the correlation of their grey values. Where that fails, one picture is laid
over the other first, by least squares on a pyramid of sizes (B. D. Lucas and T. Kanade, 1981, "An
iterative image registration technique"): scale and shift in each direction, gain and offset of the
brightness.
"""

import numpy as np
from PIL import Image, ImageFilter

from retrieval_pipeline.vectors import Flags, Values, Vectors

# Pixels of the longest edge at which two pictures are compared: a line of text on a page of A4 is
# six of them high.
PIXELS = 512
# Edge of a block in pixels: a few letters.
BLOCK = 8
# Variance of the grey values that losses of a JPEG or WebP cause: it counts as agreement.
NOISE = 30.0
# Correlation below which a block differs (docs/benchmarks.md, "Near-duplicates").
AGREES = 0.8
# Share of the pixels that have the most frequent grey value, give or take NEARLY, from which on a
# picture is a document or a screenshot, where every block counts.
GROUND = 0.25
NEARLY = 2
# Share of the blocks of a photograph that may differ: small edits, and edges between two pixels.
EDITED = 0.03
# Pixels of the radius by which both pictures are blurred, since one may be sharper than the other.
BLUR = 0.7
# Longest edges in pixels at which one picture is laid over the other, one after the other.
PYRAMID = (32, 64, 128, 256, PIXELS)
ROUNDS = 5
# Least share of the rows and columns that both pictures must show.
SHARED = 0.8
# Grey values outside of these may have been cut off.
DARKEST, BRIGHTEST = 6.0, 249.0


def agree(one: Image.Image, other: Image.Image) -> bool:
    """Tell whether two grey pictures (mode L) are copies of one, as far as their details tell."""
    if one.width * one.height > other.width * other.height:
        one, other = other, one
    other = other.resize(one.size, Image.Resampling.BICUBIC)
    first, second = _values(one), _values(other)
    if _blocks_agree(first, second):
        return True
    found = _laid_over(one, other)
    if found is None:
        return False
    moved, rows, columns = _moved(second, found)
    shared = np.ix_(rows, columns)
    return _enough(rows, columns) and _blocks_agree(first[shared], moved[shared])


def _values(picture: Image.Image) -> Vectors:
    return np.asarray(picture.filter(ImageFilter.GaussianBlur(BLUR)), np.float32)


def _blocks_agree(one: Vectors, other: Vectors) -> bool:
    """Tell whether few enough blocks differ; a change of brightness of the whole is no difference.

    The values that got too bright are cut off at white: the brighter picture follows from the
    darker one, and not the other way round.
    """
    return _few_differ(_as_bright(one, other), other) or _few_differ(one, _as_bright(other, one))


def _few_differ(one: Vectors, other: Vectors) -> bool:
    """Tell whether no more blocks differ than may: none of a document, some of a photograph."""
    size = min(BLOCK, *one.shape)
    means = [_block_means(values, size) for values in (one, other, one * one, other * other)]
    variances = [np.maximum(means[2] - means[0] ** 2, 0), np.maximum(means[3] - means[1] ** 2, 0)]
    together = _block_means(one * other, size) - means[0] * means[1]
    alike = (together + NOISE) / np.sqrt((variances[0] + NOISE) * (variances[1] + NOISE))
    allowed = 0.0 if _has_ground(one) or _has_ground(other) else EDITED
    return bool((alike < AGREES).mean() <= allowed)


def _has_ground(values: Vectors) -> bool:
    """Tell whether much of a picture has one grey value, as paper and screens have."""
    counts = np.bincount(np.rint(values).astype(np.int64).ravel(), minlength=256)
    near = np.convolve(counts, np.ones(2 * NEARLY + 1), "same")
    return bool(near.max() >= GROUND * values.size)


def _block_means(values: Vectors, size: int) -> Vectors:
    rows, columns = (length // size for length in values.shape)
    blocks = values[: rows * size, : columns * size].reshape(rows, size, columns, size)
    means: Vectors = blocks.mean((1, 3))
    return means


def _as_bright(values: Vectors, like: Vectors) -> Vectors:
    """Return the values with the gain and offset that bring them nearest to another picture's."""
    kept = (values > DARKEST) & (values < BRIGHTEST) & (like > DARKEST) & (like < BRIGHTEST)
    x, y = values[kept], like[kept]
    if x.size < 2 or x.var() < 1:
        return values
    gain = float(((x - x.mean()) * (y - y.mean())).mean() / x.var())
    if gain <= 0:
        return values
    brightened: Vectors = np.clip(gain * (values - x.mean()) + y.mean(), 0, 255)
    return brightened


def _laid_over(one: Image.Image, other: Image.Image) -> Values | None:
    """Find where `one` lies in `other`, which has the same size.

    Returns:
        float64 (4,): how much wider, to the right, higher and down, where each edge of the picture
        is 2 long. None if it was not found.
    """
    found: Values = np.zeros(4)
    longest = max(one.size)
    for edge in PYRAMID:
        scale = min(edge / longest, 1)
        size = max(round(one.width * scale), BLOCK), max(round(one.height * scale), BLOCK)
        first, second = (
            np.asarray(each.resize(size, Image.Resampling.BOX), np.float32) for each in (one, other)
        )
        for _ in range(ROUNDS):
            step = _step(first, second, found)
            if step is None:
                return None
            found = found + step
            # In pixels.
            if np.abs(step).max() * max(size) / 2 < 0.02:
                break
        if edge >= longest:
            break
    return found


def _step(one: Vectors, other: Vectors, found: Values) -> Values | None:
    """Return by how much `found` changes in one round of least squares; None if it is lost."""
    moved, rows, columns = _moved(other, found)
    if not _enough(rows, columns):
        return None
    height, width = one.shape
    y, x = np.linspace(-1, 1, height)[:, None], np.linspace(-1, 1, width)[None]
    down, right = np.gradient(moved)
    down, right = down * (height - 1) / 2, right * (width - 1) / 2
    terms = (right * x, right, down * y, down, moved, np.ones_like(moved))
    shared = np.ix_(rows, columns)
    matrix = np.stack([term[shared].ravel() for term in terms]).astype(np.float64)
    normal = matrix @ matrix.T
    # Where nothing varies in one direction, nothing moves in it.
    normal[np.diag_indices(len(terms))] += 1e-7 * np.trace(normal)
    solved = np.linalg.solve(normal, matrix @ one[shared].ravel())
    gain = solved[4]
    if gain <= 0:
        return None
    step: Values = np.clip(solved[:4] / gain, -0.1, 0.1)
    return step


def _enough(rows: Flags, columns: Flags) -> bool:
    return bool(min(rows.mean(), columns.mean()) >= SHARED)


def _moved(values: Vectors, found: Values) -> tuple[Vectors, Flags, Flags]:
    """Return the values where `found` says, interpolated, and which rows and columns exist."""
    wider, right, higher, down = found
    height, width = values.shape
    y = ((1 + higher) * np.linspace(-1, 1, height) + down + 1) / 2 * (height - 1)
    x = ((1 + wider) * np.linspace(-1, 1, width) + right + 1) / 2 * (width - 1)
    # A tenth of a pixel outside is still inside.
    moved = _between(_between(values, y).T, x).T
    return moved, _is_inside(y, height), _is_inside(x, width)


def _is_inside(places: Values, length: int) -> Flags:
    # A tenth of a pixel outside is still inside.
    inside: Flags = (places >= -0.1) & (places <= length - 0.9)
    return inside


def _between(values: Vectors, places: Values) -> Vectors:
    """Return the rows of `values` at places that lie between them."""
    last = len(values) - 1
    places = np.clip(places, 0, last)
    before = np.minimum(places.astype(np.int64), max(last - 1, 0))
    share = (places - before).astype(np.float32)[:, None]
    after = np.minimum(before + 1, last)
    between: Vectors = values[before] * (1 - share) + values[after] * share
    return between
