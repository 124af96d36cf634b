"""From a decoded picture to an encoder's pixels or a small copy: resizing and cropping."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.facts.model import PictureFacts
from retrieval_pipeline.views import View

if TYPE_CHECKING:
    from PIL import Image

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]
Box = tuple[float, float, float, float]

# Version of the rules that turn a file into pixels (colours, alpha, orientation, shrinking), a part
# of every fingerprint: a new version is a new vector space, for which everything is embedded anew.
PIXEL_RULES = "srgb1"

# Before the exact resize, a picture may be shrunk by faster methods to this many times the size of
# its thumbnail: the difference is not visible.
THUMBNAIL_SHRINK = 2

# A very long picture that would have more pixels than this after the resize is cropped first.
# Pillow's crop box is float32, so the pixels differ by at most one level.
RESIZED_PIXELS = 4_000_000


@dataclass(frozen=True)
class ImageTransform:
    """How an image becomes the encoder's input, up to and including the uint8 pixels.

    Attributes:
        resize: Length of the shorter edge (int) or the exact (height, width).
        crop: Centre crop to this (height, width) afterwards, if any.
        resample: Pillow's filter: "bicubic", "bilinear" or "lanczos".
        mean: Per channel, subtracted from pixel / 255 (by the encoder, on its device).
        std: Per channel, divisor after that.
        shrink_on_load: Let the JPEG decoder, and a box filter after any decoder, scale down to no
            less than this many times the target before the exact resize; 0 is the reference.
    """

    resize: int | Size
    crop: Size | None
    resample: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    shrink_on_load: int = 2

    @property
    def fingerprint(self) -> str:
        """Text that names every setting: transforms with equal fingerprints give equal pixels."""
        resize = self.resize if isinstance(self.resize, int) else "{}x{}".format(*self.resize)
        crop = "{}x{}".format(*self.crop) if self.crop else "none"
        mean, std = (",".join(str(float(v)) for v in values) for values in (self.mean, self.std))
        return (
            f"{PIXEL_RULES} resize={resize} crop={crop} {self.resample} "
            f"mean={mean} std={std} shrink={self.shrink_on_load}"
        )


@dataclass(frozen=True)
class Fit:
    """How an image becomes a thumbnail: within `size` x `size` pixels, never enlarged.

    Attributes:
        size: Longest edge, in pixels.
        partial: True to show as much as there is of a JPEG whose data end early, however little.
    """

    size: int
    partial: bool = False

    def of(self, width: int, height: int, times: int = 1) -> Size:
        """Return the (width, height) of a picture after it is fitted into `times` the size."""
        scale = min(times * self.size / max(width, height), 1.0)
        return max(round(width * scale), 1), max(round(height * scale), 1)


@dataclass(frozen=True)
class Decoded:
    """One image after a transform or fit, ready to be encoded or shown.

    Attributes:
        pixels: uint8 (height, width, 3), RGB, after the transform.
        width: Width of the upright picture in the file, in pixels, before the transform.
        height: Height of the upright picture in the file, in pixels, before the transform.
        format: Pillow's name of the file format ("JPEG", "PNG"), with DAMAGED after it if some rows
            of the picture are missing: then it is what can be seen of it.
        facts: What its metadata hold; None if nobody asked for them, as for a thumbnail.
        views: The further views that were asked for.
        view_pixels: Those of each view, of the same shape as `pixels`.
        views_only: True if nobody needs `pixels`: the picture's own vector is known.
    """

    pixels: Pixels
    width: int
    height: int
    format: str
    facts: PictureFacts | None = None
    views: tuple[View, ...] = ()
    view_pixels: tuple[Pixels, ...] = ()
    views_only: bool = False


@dataclass(frozen=True)
class UprightImage:
    """An upright RGB image that may have been shrunk.

    Attributes:
        image: The pixels.
        box: Where the picture lies in `image`: left, upper, right, lower. Shrinking rounds sizes
            up, so that the last column or row may belong to the picture only in part.
        width: Width of the upright picture in full size, in pixels.
        height: Height of the upright picture in full size, in pixels.
        format: Pillow's name of the file format.
        facts: What its metadata hold; None if nobody asked for them.
    """

    image: "Image.Image"
    box: Box
    width: int
    height: int
    format: str
    facts: PictureFacts | None = None


def transform_image(image: "Image.Image", transform: ImageTransform) -> Pixels:
    """Apply `transform` to an upright RGB image without shrinking first: uint8 (height, width, 3).

    The pixels equal those of transformers' image processors with the Pillow backend (CLIP, SigLIP)
    before they rescale and normalise.
    """
    whole = UprightImage(image, (0, 0, *image.size), *image.size, format="")
    return transformed(whole, transform)


def transformed_view(picture: UprightImage, transform: ImageTransform, view: View) -> Pixels:
    """Resize a part of a picture to the size that `transform` gives a picture: nothing is cropped.

    The result is uint8 (height, width, 3); a part of another shape than that is squashed.
    """
    size = transform.crop or transform.resize
    height, width = (size, size) if isinstance(size, int) else size
    left, upper, right, lower = picture.box
    box = (
        left + view.x * (right - left),
        upper + view.y * (lower - upper),
        # The sums may exceed 1 by a rounding error, which Pillow would refuse.
        left + min(view.x + view.width, 1.0) * (right - left),
        upper + min(view.y + view.height, 1.0) * (lower - upper),
    )
    resample = _filter(transform)
    return np.array(picture.image.resize((width, height), resample, box))


def shrink_limit(
    transform: ImageTransform | Fit, times: int | None = None
) -> Callable[[int, int], Size] | None:
    """Return the least size to which a picture may be shrunk before the exact resize.

    Args:
        transform: What becomes of the picture.
        times: So many times the size that it has in the end; None is the factor of the transform.

    Returns:
        A function from the picture's (width, height) to the least (width, height) allowed; None if
        the picture must not be shrunk.
    """
    if isinstance(transform, Fit):
        return lambda width, height: transform.of(width, height, times or THUMBNAIL_SHRINK)
    if not transform.shrink_on_load:
        return None
    times = times or transform.shrink_on_load

    def limit(width: int, height: int) -> Size:
        if isinstance(transform.resize, tuple):
            # The picture may lie on its side.
            return times * max(transform.resize), times * max(transform.resize)
        new_width, new_height = resized_size(width, height, transform.resize)
        return times * new_width, times * new_height

    return limit


def resized_size(width: int, height: int, resize: int | Size) -> Size:
    """Return the (width, height) after the resize, rounded as transformers does."""
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    longer = int(resize * max(width, height) / min(width, height))
    return (resize, longer) if width <= height else (longer, resize)


def _filter(transform: ImageTransform) -> "Image.Resampling":
    from PIL import Image  # the processes that only encode do without Pillow

    return Image.Resampling[transform.resample.upper()]


def fitted(picture: UprightImage, fit: Fit) -> "Image.Image":
    """Return the picture resized to what `fit` allows (bicubic)."""
    from PIL import Image

    size = fit.of(picture.width, picture.height)
    return picture.image.resize(size, Image.Resampling.BICUBIC, box=picture.box)


def transformed(picture: UprightImage, transform: ImageTransform) -> Pixels:
    """Resize and crop: uint8 (height, width, 3).

    Sizes are computed from the picture in full size, even if `picture.image` was shrunk.
    """
    resample = _filter(transform)
    width, height = resized_size(picture.width, picture.height, transform.resize)
    box = picture.box
    if transform.crop is None:
        return np.array(picture.image.resize((width, height), resample, box))
    crop_height, crop_width = transform.crop
    left, top = (width - crop_width) // 2, (height - crop_height) // 2
    if width * height > RESIZED_PIXELS:
        x, y = max(left, 0), max(top, 0)
        kept_width, kept_height = min(width, crop_width), min(height, crop_height)
        x_scale, y_scale = (box[2] - box[0]) / width, (box[3] - box[1]) / height
        box = (
            box[0] + x * x_scale,
            box[1] + y * y_scale,
            box[0] + (x + kept_width) * x_scale,
            box[1] + (y + kept_height) * y_scale,
        )
        left, top = left - x, top - y
        width, height = kept_width, kept_height
    resized = picture.image.resize((width, height), resample, box)
    # Where the crop is larger than the picture, Pillow fills with zeros, as transformers does.
    return np.array(resized.crop((left, top, left + crop_width, top + crop_height)))
