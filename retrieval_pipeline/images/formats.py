"""Which file formats are opened, and the typed reason why a file cannot be."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from importlib import import_module
from io import BytesIO
from typing import Any

from PIL import AvifImagePlugin, Image, UnidentifiedImageError

from retrieval_pipeline.images.errors import ImageError, Reason, out_of_memory, too_large
from retrieval_pipeline.images.png import SIGNATURE, set_text_limits, without_broken_chunks

# Tried in this order. Left out, though Pillow would open them:
# - EPS, because Pillow runs Ghostscript on it; WMF, HDF5, GRIB, BUFR, MPEG: there is no decoder;
# - FITS, SPIDER, McIDAS: measurements, whose numbers are no brightness;
# - IM, IMT, IPTC have no signature, XBM and XPM are C sources: other files are mistaken for them;
# - BLP, FTEX, GBR, MSP, PIXAR, FLI, XV thumbnails: no photographs, but a history of hangs.
# TGA has no signature either and comes last.
FORMATS = (
    *("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP", "AVIF", "HEIF", "JXL", "JPEG2000", "ICO", "CUR"),
    *("ICNS", "PSD", "PPM", "QOI", "DDS", "SGI", "SUN", "PCX", "DCX", "DIB", "PCD", "TGA"),
)

# Formats that need a Python package of their own: signature of their files, name of the package.
PLUGINS = {
    "HEIF": (re.compile(rb"....ftyp(hei[cmsx]|hev[cmsx]|mif1|msf1)", re.DOTALL), "pillow-heif"),
    "JXL": (re.compile(rb"\xff\x0a|\0\0\0\x0cJXL "), "pillow-jxl-plugin"),
}

# Bytes of plain text.
TEXT = bytes(range(32, 127)) + b"\t\n\r"

# A variant of TIFF that Pillow takes for a damaged file.
BIG_ENDIAN_BIGTIFF = b"MM\0\x2b"

# Words in Pillow's messages about files that are too large, and about variants that it cannot read.
TOO_MUCH = re.compile(r"memory|too large", re.IGNORECASE)
UNSUPPORTED = re.compile(
    r"support|unimplemented|unknown (?!error|filter)|unable to determine|not available"
    r"|cannot handle",
    re.IGNORECASE,
)


def open_image(data: bytes) -> Image.Image:
    """Open the bytes of an image file by their signature, without decoding pixels.

    Raises:
        ImageError: They are in no format that is read here.
        Exception: Whatever Pillow raises on a damaged header; see `typed_errors`.
    """
    if data.startswith(BIG_ENDIAN_BIGTIFF):
        raise ImageError(Reason.UNSUPPORTED, "BigTIFF in big-endian byte order is not read")
    if data.startswith(SIGNATURE):
        data = without_broken_chunks(data)
    try:
        image = Image.open(BytesIO(data), formats=readable_formats())
    except Exception as error:
        if isinstance(error, UnidentifiedImageError) or _is_text(data[:16]):
            raise _unidentified(data) from None
        raise
    # TGA has no signature: a file that was taken for one but describes no pixels is something else.
    if image.format == "TGA" and not image.tile:
        raise _unidentified(data)
    return image


@cache
def readable_formats() -> tuple[str, ...]:
    """Register the decoders, one thread each, and return the names of the formats that are opened.

    Many images are decoded at a time, by many processes: more threads would only cost memory.
    """
    Image.init()
    set_text_limits()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1
    with suppress(ImportError):
        heif = import_module("pillow_heif")
        heif.register_heif_opener()
        heif.options.DECODE_THREADS = 1
    with suppress(ImportError):
        jxl: Any = import_module("pillow_jxl.JpegXLImagePlugin")
        jxl.DECODE_THREADS = 1
    return tuple(name for name in FORMATS if name in Image.OPEN)


@contextmanager
def typed_errors(large: bool = False) -> Iterator[None]:
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
    """Return the typed error for what Pillow raised on a file whose format it knows."""
    if isinstance(error, UnidentifiedImageError):
        return ImageError(Reason.TRUNCATED, "the picture inside of it is damaged")
    detail = " ".join(str(error).split())[:200] or type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return too_large(detail.partition(",")[0])
    if isinstance(error, MemoryError):
        return out_of_memory()
    if TOO_MUCH.search(detail):
        return too_large(detail)
    # Pillow's plugins look up modes and compressions in tables.
    if isinstance(error, NotImplementedError) or isinstance(error.__cause__, KeyError):
        return ImageError(Reason.UNSUPPORTED, detail)
    if UNSUPPORTED.search(detail):
        return ImageError(Reason.UNSUPPORTED, detail)
    if large:
        # Some codecs tell a lack of memory from damage no more than Pillow does.
        return too_large(f"it takes too much memory, or the data are damaged ({detail})")
    return ImageError(Reason.TRUNCATED, f"the data are damaged or end early ({detail})")


def _unidentified(data: bytes) -> ImageError:
    """Return the typed error for a file that no decoder accepted."""
    for name, (signature, package) in PLUGINS.items():
        if signature.match(data) and name not in readable_formats():
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
        except Exception as error:  # noqa: BLE001 (see typed_errors)
            return _diagnosis(error)
    return ImageError(Reason.NOT_AN_IMAGE, "it is in no known picture format")


def _is_text(prefix: bytes) -> bool:
    """Tell whether a file is plain text, which may begin with the letters of a BMP or PPM."""
    return not prefix.translate(None, TEXT)
