"""The only module that opens images: orientation, modes, limits, shrink-on-load, thumbnails.

Everything here runs in the calling process; `decode.py` isolates it for files of unknown origin.
"""

import os
import re
import stat
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, lru_cache
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import AvifImagePlugin, ExifTags, Image, ImageCms, UnidentifiedImageError

from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.storage.remote import Remote

if TYPE_CHECKING:
    from retrieval_pipeline.config import ImageLimits

Pixels = npt.NDArray[np.uint8]
Size = tuple[int, int]
Box = tuple[float, float, float, float]
# The bytes of an image file, or its path.
Source = bytes | str | os.PathLike[str] | Remote

# Names the rules of this module that decide pixels (colours, alpha, orientation, shrinking). A
# change of them takes a new name, which makes another vector space of the embeddings.
PIXEL_RULES = "srgb1"

# Tried in this order. Left out, though Pillow would open them:
# - EPS, because Pillow runs Ghostscript on it; WMF, HDF5, GRIB, BUFR, MPEG: there is no decoder;
# - FITS, SPIDER, McIDAS: measurements, whose numbers are no brightness;
# - IM, IMT, IPTC have no signature, XBM and XPM are C sources: other files pass for them;
# - BLP, FTEX, GBR, MSP, PIXAR, FLI, XV thumbnails: no photographs, but a history of hangs.
# TGA has no signature either and comes last.
FORMATS = (
    *("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "HEIF", "JXL", "JPEG2000", "ICO", "CUR"),
    *("ICNS", "PSD", "PPM", "QOI", "DDS", "SGI", "SUN", "PCX", "DCX", "DIB", "PCD", "TGA"),
)

# Formats of plugins that may be missing: signature and package.
PLUGINS = {
    "HEIF": (re.compile(rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL), "pillow-heif"),
    "JXL": (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "pillow-jxl-plugin"),
}

# Bytes of plain text.
TEXT = bytes(range(32, 127)) + b"\t\n\r"

# TIFF compressions that libtiff may have been built without.
OPTIONAL_TIFF_CODECS = {"lzma", "webp", "zstd"}

# What Pillow says of files that are too large in some way, and of sound ones that it cannot decode.
TOO_MUCH = re.compile(r"memory|too large", re.IGNORECASE)
UNSUPPORTED = re.compile(
    r"support|unimplemented|unknown (?!error|filter)|unable to determine|not available"
    r"|cannot handle",
    re.IGNORECASE,
)

# Memory that a decoder takes at most, bytes per pixel: JPEG 2000 has an int32 for each channel.
WORKING_BYTES = 16

# What turns a picture upright, by its EXIF orientation.
TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
LAID_DOWN = {5, 6, 7, 8}
MIRRORED_X = {2, 3, 6, 7}
MIRRORED_Y = {3, 4, 7, 8}

# A box filter leaves more error than the JPEG decoder's scaling: it stops at this many times more.
BOX_MARGIN = 2

# A thumbnail's source may be shrunk cheaply to this many times its size: the loss is not seen.
THUMBNAIL_SHRINK = 2
THUMBNAIL_QUALITY = 80

# A picture that would be resized to more pixels than this, because it is very long, is only
# resized where the crop keeps it. Pillow's box is float32, so this is exact within one level.
RESIZED_PIXELS = 4_000_000

# A profile that moves no colour by more than this (of 255) is sRGB by another name.
SRGB_TOLERANCE = 2


class Reason(StrEnum):
    """Why an image could not be used; the quarantine table stores it.

    not_an_image: empty, or in no picture format that is known here.
    truncated: a picture whose data end early or are damaged.
    too_large: more pixels, bytes or memory than the limits allow.
    unsupported: maybe sound, but a format or variant that is not read here.
    unreadable: the file system does not hand out its bytes.
    timed_out: decoding took longer than the limit.
    crashed: decoding killed the worker process.
    """

    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported"
    UNREADABLE = "unreadable"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"


class ImageError(RetrievalError):
    """One image cannot be used, for a typed reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.value.replace('_', ' ')}: {detail}")
        self.reason = reason
        self.detail = detail


@dataclass(frozen=True)
class Limits:
    """Bounds under which one image is decoded.

    Attributes:
        pixels: Largest width x height.
        bytes: Largest file.
        seconds: Longest time for one image in a decode worker.
        memory_mb: Memory that a decode worker may allocate, MiB.
    """

    pixels: int = 300_000_000
    bytes: int = 1_000_000_000
    seconds: float = 60.0
    memory_mb: int = 2_000

    @classmethod
    def of(cls, settings: "ImageLimits") -> "Limits":
        """Return the limits that the user's settings ask for."""
        return cls(
            pixels=round(settings.max_megapixels * 1e6),
            bytes=round(settings.max_megabytes * 1e6),
            seconds=settings.timeout_seconds,
        )


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
        """Readable and complete: two transforms with one fingerprint give the same pixels."""
        resize = self.resize if isinstance(self.resize, int) else "{}x{}".format(*self.resize)
        crop = "{}x{}".format(*self.crop) if self.crop else "none"
        mean, std = (",".join(str(float(v)) for v in values) for values in (self.mean, self.std))
        return (
            f"{PIXEL_RULES} resize={resize} crop={crop} {self.resample} "
            f"mean={mean} std={std} shrink={self.shrink_on_load}"
        )


@dataclass(frozen=True)
class Fit:
    """How an image becomes a thumbnail: within `size` x `size` pixels, never enlarged."""

    size: int

    def of(self, width: int, height: int, times: int = 1) -> Size:
        """Return the (width, height) of a picture within `times` the size."""
        scale = min(times * self.size / max(width, height), 1.0)
        return max(round(width * scale), 1), max(round(height * scale), 1)


@dataclass(frozen=True)
class Decoded:
    """One image as the encoder, or whoever shows it, wants it.

    Attributes:
        pixels: uint8 (height, width, 3), RGB, after the transform.
        width: Of the file's own picture, upright, in pixels.
        height: Likewise.
        format: Pillow's name of the file format ("JPEG", "PNG").
    """

    pixels: Pixels
    width: int
    height: int
    format: str


@dataclass(frozen=True)
class _Picture:
    """An upright RGB image that may have been shrunk.

    Attributes:
        image: The pixels.
        box: Where the picture lies in `image`; its last row or column may cover but a part.
        width: Of the picture in full size, upright, in pixels.
        height: Likewise.
        format: Pillow's name of the file format.
    """

    image: Image.Image
    box: Box
    width: int
    height: int
    format: str


def decode(source: Source, transform: ImageTransform | Fit, limits: Limits) -> Decoded:
    """Decode the (first) picture of an image file and apply `transform`.

    Raises:
        ImageError: The image cannot be used.
    """
    picture = _load(source, limits, _shrinkable(transform))
    try:
        if isinstance(transform, Fit):
            pixels = np.asarray(_fitted(picture, transform))
        else:
            pixels = _transformed(picture, transform)
    except MemoryError:
        raise _out_of_memory() from None
    return Decoded(pixels, picture.width, picture.height, picture.format)


def transform_image(image: Image.Image, transform: ImageTransform) -> Pixels:
    """Apply `transform` to an upright RGB image, exactly: uint8 (height, width, 3).

    These are the pixels of transformers' image processors on Pillow (CLIP, SigLIP) before they
    rescale and normalise.
    """
    whole = _Picture(image, (0, 0, *image.size), *image.size, format="")
    return _transformed(whole, transform)


def open_upright(source: Source, limits: Limits) -> Image.Image:
    """Return the (first) picture of an image file in full size, upright, as RGB (sRGB).

    Raises:
        ImageError: The image cannot be used.
    """
    return _load(source, limits, None).image


def thumbnail(
    source: Source,
    size: int,
    limits: Limits,
    format: Literal["WEBP", "JPEG", "PNG"] = "WEBP",
    quality: int = THUMBNAIL_QUALITY,
) -> bytes:
    """Return an image file that shows `source` upright within `size` x `size` pixels.

    Args:
        source: The image file.
        size: Longest edge, in pixels; a smaller picture is not enlarged.
        limits: Bounds for the source.
        format: Of the result.
        quality: 1 to 100, for WEBP and JPEG.

    Raises:
        ImageError: The source cannot be used.
    """
    fit = Fit(size)
    return encoded(_fitted(_load(source, limits, _shrinkable(fit)), fit), format, quality)


def encoded(
    image: Image.Image | Pixels,
    format: Literal["WEBP", "JPEG", "PNG"] = "WEBP",
    quality: int = THUMBNAIL_QUALITY,
) -> bytes:
    """Return an image file of RGB pixels, uint8 (height, width, 3) where they are an array."""
    buffer = BytesIO()
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    picture.save(buffer, format, quality=quality)
    return buffer.getvalue()


def read_bytes(path: str | os.PathLike[str] | Remote, limits: Limits) -> bytes:
    """Read an image file whole.

    Raises:
        ImageError: It is no regular file, cannot be read, or is too large.
    """
    try:
        if isinstance(path, Remote):
            return _download(path, limits)
        status = Path(path).stat()
        # Opening a pipe would wait for its writer, and a device may act on it.
        if not stat.S_ISREG(status.st_mode):
            raise ImageError(Reason.UNREADABLE, "it is not a regular file")
        _check_bytes(status.st_size, limits)
        return Path(path).read_bytes()
    except OSError as error:
        raise ImageError(Reason.UNREADABLE, error.strerror or str(error)) from None
    except MemoryError:
        raise _out_of_memory() from None


def _download(file: Remote, limits: Limits) -> bytes:
    info = file.info()
    if not info.is_file:
        raise ImageError(Reason.UNREADABLE, "no such file")
    _check_bytes(info.size or 0, limits)
    return file.read()


def _load(
    source: Source, limits: Limits, shrinkable: Callable[[int, int], Size] | None
) -> _Picture:
    """Open and decode once, for all that this module offers.

    Args:
        source: The image file.
        limits: Bounds.
        shrinkable: From the (width, height) of the picture to those that it may be shrunk to. It
            is asked before the orientation is known: swapping its arguments swaps its results.
    """
    data = source if isinstance(source, bytes) else read_bytes(source, limits)
    _check_bytes(len(data), limits)
    if not data:
        raise ImageError(Reason.NOT_AN_IMAGE, "the file is empty")
    # Pillow refuses what has more than twice this number, pictures inside of containers included.
    Image.MAX_IMAGE_PIXELS = limits.pixels // 2
    # A damaged file is told by a typed error or not at all. Not within `catch_warnings`, which
    # would disturb other threads.
    warnings.filterwarnings("ignore", module=r"(PIL|pillow_heif|pillow_jxl)\b")
    with _typed_errors():
        image = _open(data)
    width, height = image.size
    with _typed_errors(large=width * height * WORKING_BYTES > limits.memory_mb << 20):
        _check_tiff_codec(image)
        drafted = image.draft(None, shrinkable(width, height)) if shrinkable else None
        image.load()
        if drafted:
            x_extent, y_extent = drafted[1][2:]
        else:  # an icon knows the size of its picture only now
            width, height = x_extent, y_extent = image.size
        format = image.format or ""
        orientation = _orientation(image)
        profile = image.info.get("icc_profile")
        image = _eight_bit(image)
        if shrinkable:
            least_width, least_height = shrinkable(width, height)
            factor = min(image.width // least_width, image.height // least_height) // BOX_MARGIN
            if factor > 1:
                image = image.reduce(factor)
                x_extent, y_extent = x_extent / factor, y_extent / factor
        image = _srgb(image, profile)
        picture = _Picture(image, (0, 0, x_extent, y_extent), width, height, format)
        return _upright(picture, orientation)


def _upright(picture: _Picture, orientation: object) -> _Picture:
    """Turn a picture that starts at the top left of its image as its EXIF orientation says."""
    if orientation not in TURNS:
        return picture
    image = picture.image.transpose(TURNS[orientation])
    width, height = picture.width, picture.height
    x_extent, y_extent = picture.box[2:]
    if orientation in LAID_DOWN:
        width, height = height, width
        x_extent, y_extent = y_extent, x_extent
    left = image.width - x_extent if orientation in MIRRORED_X else 0
    upper = image.height - y_extent if orientation in MIRRORED_Y else 0
    right = image.width if orientation in MIRRORED_X else x_extent
    lower = image.height if orientation in MIRRORED_Y else y_extent
    return _Picture(image, (left, upper, right, lower), width, height, picture.format)


def _open(data: bytes) -> Image.Image:
    try:
        image = Image.open(BytesIO(data), formats=_formats())
    except Exception as error:
        if isinstance(error, UnidentifiedImageError) or _is_text(data[:16]):
            raise _unidentified(data) from None
        raise
    # What passes for a TGA, which has no signature, but describes no data, is something else.
    if image.format == "TGA" and not image.tile:
        raise _unidentified(data)
    return image


@cache
def _formats() -> tuple[str, ...]:
    """Register the decoders, each on one thread, and return the formats that may be opened.

    The parallelism is that of many images: threads would only cost memory.
    """
    Image.init()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    with suppress(ImportError):
        heif = import_module("pillow_heif")
        heif.register_heif_opener()
        heif.options.DECODE_THREADS = 1
    with suppress(ImportError):
        jxl: Any = import_module("pillow_jxl.JpegXLImagePlugin")
        jxl.DECODE_THREADS = 1
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _orientation(image: Image.Image) -> object:
    """Return the EXIF orientation of a loaded image; anything but 2 to 8 is upright."""
    # JPEG XL keeps its pixels upright, whatever the EXIF says, but for a repacked JPEG.
    if image.format == "JXL" and not getattr(image, "jpeg", False):
        return None
    try:
        return image.getexif().get(ExifTags.Base.Orientation)
    # The EXIF parser fails on damaged data in as many ways as the decoders (see _typed_errors),
    # and a picture is no worse for a broken EXIF.
    except Exception:  # noqa: BLE001
        return None


def _eight_bit(image: Image.Image) -> Image.Image:
    """Return a loaded image as one of L, LA, RGB, RGBA and CMYK, which can be scaled."""
    mode = image.mode
    if mode.startswith(("I", "F")):
        return _grey(image)
    if image.has_transparency_data:
        wanted = "LA" if mode in ("1", "L", "LA", "La") else "RGBA"
    elif mode in ("L", "CMYK"):
        wanted = mode
    else:
        wanted = "L" if mode == "1" else "RGB"
    return image if mode == wanted else image.convert(wanted)


def _grey(image: Image.Image) -> Image.Image:
    """Scale a picture of wider integers or floats to L, or LA if one of its values is transparent.

    Of 16 bits the upper eight are kept, as Pillow does with 16-bit colours. Floats are taken for
    0..1, 0..255 or 0..65535, whatever holds them all, and integers for 0..65535; what exceeds that
    is stretched from its least to its greatest value.
    """
    values = np.asarray(image)
    if image.mode.startswith("I;16"):
        # Pillow neither scales the 12 bits of a TIFF nor inverts its 16 bits where white is zero.
        tags = getattr(image, "tag_v2", {})
        bright = (values >> (tags.get(ExifTags.Base.BitsPerSample, (16,))[0] - 8)).astype(np.uint8)
        if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:
            bright = 255 - bright
    else:
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        for top in (1.0, 255.0, 65_535.0) if image.mode == "F" else (65_535.0,):
            if low >= 0 and high <= top:
                low, high = 0.0, top
                break
        scale = 255 / (high - low) if high > low else 0.0
        with np.errstate(over="ignore"):
            scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * scale
        bright = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    grey = Image.fromarray(bright)
    if "transparency" in image.info:
        opaque = values != image.info["transparency"]
        grey.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    return grey


def _srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Return L, LA, RGB, RGBA or CMYK as RGB in the colours of sRGB, over white."""
    alpha = image.getchannel("A") if image.mode.endswith("A") else None
    if alpha is not None:
        image = image.convert(image.mode.removesuffix("A"))
    transform = _to_srgb(profile, image.mode) if profile else None
    if transform:
        image = transform.apply(image)
    elif image.mode != "RGB":
        image = image.convert("RGB")
    if alpha is not None:
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=alpha)
        return white
    return image


@lru_cache(maxsize=16)  # the cameras of one library share few profiles, of up to some MB
def _to_srgb(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return what turns `mode` under an ICC profile into sRGB; None if there is nothing to do.

    A profile that is broken, or meant for another mode, is ignored, as browsers do.
    """
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(BytesIO(profile)), ImageCms.createProfile("sRGB"), mode, "RGB"
        )
    except (ImageCms.PyCMSError, OSError):
        return None
    if mode == "CMYK":
        return transform
    steps = np.arange(0, 256, 15, dtype=np.uint8)
    colours = np.stack(np.meshgrid(steps, steps, steps), axis=-1).reshape(1, -1, 3)
    probe = Image.fromarray(colours if mode == "RGB" else steps[np.newaxis])
    moved = np.asarray(transform.apply(probe), np.int16) - np.asarray(probe.convert("RGB"))
    return transform if np.abs(moved).max() > SRGB_TOLERANCE else None


def _shrinkable(transform: ImageTransform | Fit) -> Callable[[int, int], Size] | None:
    """Return to which (width, height) a picture may be shrunk before `transform`; None: not."""
    if isinstance(transform, Fit):
        return lambda width, height: transform.of(width, height, THUMBNAIL_SHRINK)
    times = transform.shrink_on_load
    if not times:
        return None

    def shrinkable(width: int, height: int) -> Size:
        if isinstance(transform.resize, tuple):
            # The picture may lie on its side.
            return times * max(transform.resize), times * max(transform.resize)
        new_width, new_height = _resized(width, height, transform.resize)
        return times * new_width, times * new_height

    return shrinkable


def _resized(width: int, height: int, resize: int | Size) -> Size:
    """Return the (width, height) after the resize, rounded as transformers does."""
    if isinstance(resize, tuple):
        return resize[1], resize[0]
    longer = int(resize * max(width, height) / min(width, height))
    return (resize, longer) if width <= height else (longer, resize)


def _fitted(picture: _Picture, fit: Fit) -> Image.Image:
    size = fit.of(picture.width, picture.height)
    return picture.image.resize(size, Image.Resampling.BICUBIC, box=picture.box)


def _transformed(picture: _Picture, transform: ImageTransform) -> Pixels:
    """Resize and crop; the sizes follow from the full picture, not from the shrunk one."""
    resample = Image.Resampling[transform.resample.upper()]
    width, height = _resized(picture.width, picture.height, transform.resize)
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
    # Beyond its edges, Pillow crops zeros, as transformers does.
    return np.array(resized.crop((left, top, left + crop_width, top + crop_height)))


@contextmanager
def _typed_errors(large: bool = False) -> Iterator[None]:
    """Turn whatever Pillow raises on a damaged or unusual file into an ImageError.

    Args:
        large: The picture may take more memory than is allowed.
    """
    try:
        yield
    except ImageError:
        raise
    # On damaged files the plugins raise what their parsers happen to stumble over (struct.error,
    # KeyError, AssertionError, ZeroDivisionError...): no list of names is complete.
    except Exception as error:
        raise _diagnosis(error, large) from error


def _diagnosis(error: Exception, large: bool = False) -> ImageError:
    """Tell the reason of a failure from what Pillow raised on a file that it identified."""
    if isinstance(error, UnidentifiedImageError):
        return ImageError(Reason.TRUNCATED, "the picture inside of it is damaged")
    detail = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return _too_large(detail.partition(",")[0])
    if isinstance(error, MemoryError):
        return _out_of_memory()
    if TOO_MUCH.search(detail):
        return _too_large(detail)
    # Pillow's plugins look up modes and compressions in tables.
    if isinstance(error, NotImplementedError) or isinstance(error.__cause__, KeyError):
        return ImageError(Reason.UNSUPPORTED, detail)
    if UNSUPPORTED.search(detail):
        return ImageError(Reason.UNSUPPORTED, detail)
    if large:
        # Some codecs tell a lack of memory from damage no more than Pillow does.
        return _too_large(f"it takes too much memory, or the data are damaged ({detail})")
    return ImageError(Reason.TRUNCATED, f"the data are damaged or end early ({detail})")


def _unidentified(data: bytes) -> ImageError:
    """Tell why none of the formats took the file."""
    for name, (signature, package) in PLUGINS.items():
        if signature.match(data) and name not in _formats():
            return ImageError(
                Reason.UNSUPPORTED, f"{name} pictures need the Python package {package}"
            )
    prefix = data[:16].ljust(16, b"\0")
    claimed = [
        name for name, (_, accept) in Image.OPEN.items() if accept and accept(prefix) is True
    ]
    known = [name for name in claimed if name in FORMATS]
    if claimed and not known:
        return ImageError(Reason.UNSUPPORTED, f"{' or '.join(claimed)} files are not read")
    for name in known:
        if _is_text(data[:16]):
            continue
        try:
            Image.OPEN[name][0](BytesIO(data), "")
        except Exception as error:  # noqa: BLE001 (see _typed_errors)
            return _diagnosis(error)
    return ImageError(Reason.NOT_AN_IMAGE, "it is in no known picture format")


def _is_text(prefix: bytes) -> bool:
    """Tell a text that begins with the two letters that sign a BMP or PPM."""
    return not prefix.translate(None, TEXT)


def _check_bytes(count: int, limits: Limits) -> None:
    if count > limits.bytes:
        raise _too_large(f"{count:,} bytes; {limits.bytes:,} are allowed")


def _check_tiff_codec(image: Image.Image) -> None:
    """Refuse a TIFF whose compression this libtiff lacks; it would only say "decoder error -2"."""
    compression = image.info.get("compression")
    if image.format == "TIFF" and compression in OPTIONAL_TIFF_CODECS:
        try:
            Image.new("L", (1, 1)).save(BytesIO(), "TIFF", compression=compression)
        except OSError:
            raise ImageError(
                Reason.UNSUPPORTED, f"this build of libtiff lacks {compression} compression"
            ) from None


def _too_large(detail: str) -> ImageError:
    return ImageError(Reason.TOO_LARGE, detail)


def _out_of_memory() -> ImageError:
    return ImageError(Reason.TOO_LARGE, "decoding it takes more memory than it may")
