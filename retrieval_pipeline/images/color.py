"""Any mode, bit depth and colour profile as eight-bit sRGB."""

from functools import lru_cache
from io import BytesIO

import numpy as np
from PIL import ExifTags, Image, ImageCms

# A TIFF's SampleFormat of signed integers.
SIGNED = 2

# A profile that changes no channel by more than this (of 255) is treated as sRGB: no conversion.
SRGB_TOLERANCE = 2


def eight_bit(image: Image.Image) -> Image.Image:
    """Convert a loaded image to L, LA, RGB, RGBA or CMYK, eight-bit modes that can be resized."""
    mode = image.mode
    signed = SIGNED in getattr(image, "tag_v2", {}).get(ExifTags.Base.SampleFormat, ())
    if mode.startswith(("I", "F")) or (mode == "L" and signed):
        return _grey(image)
    if image.has_transparency_data:
        wanted = "LA" if mode in ("1", "L", "LA", "La") else "RGBA"
    elif mode in ("L", "CMYK"):
        wanted = mode
    else:
        wanted = "L" if mode == "1" else "RGB"
    return image if mode == wanted else image.convert(wanted)


def _grey(image: Image.Image) -> Image.Image:
    """Scale grey values of more than eight bits to mode L, or LA if one value means transparent.

    Of 16 bits the upper eight are kept, as Pillow does with 16-bit colours. Floats are read as
    brightness of the range 0..1, 0..255 or 0..65535: the smallest that holds all values. 32-bit
    integers are read as 0..65535. Signed bytes, and values outside of these ranges, are stretched
    linearly, from the least to the greatest of the picture.
    """
    values = np.asarray(image)
    tags = getattr(image, "tag_v2", {})
    bits = tags.get(ExifTags.Base.BitsPerSample, (16,))[0]
    if image.mode.startswith("I;16"):
        # Pillow does not scale the 12 bits of a TIFF.
        bright = (values >> (bits - 8)).astype(np.uint8)
    else:
        if image.mode == "L":
            values = values.view(np.int8)  # Pillow reads them as unsigned
        if bits == 32 and tags.get(ExifTags.Base.SampleFormat, (1,)) == (1,):
            values = values.view(np.uint32)  # Pillow reads them as signed
        finite = values[np.isfinite(values)]
        low, high = (float(finite.min()), float(finite.max())) if finite.size else (0.0, 0.0)
        tops: tuple[float, ...] = {"F": (1.0, 255.0, 65_535.0), "L": ()}.get(
            image.mode, (65_535.0,)
        )
        for top in tops:
            if low >= 0 and high <= top:
                low, high = 0.0, top
                break
        scale = 255 / (high - low) if high > low else 0.0
        with np.errstate(over="ignore"):
            scaled = (np.nan_to_num(values, nan=low, posinf=high, neginf=low) - low) * scale
        bright = np.clip(np.rint(scaled), 0, 255).astype(np.uint8)
    if tags.get(ExifTags.Base.PhotometricInterpretation) == 0:
        bright = 255 - bright  # zero is white
    grey = Image.fromarray(bright)
    if "transparency" in image.info:
        opaque = values != image.info["transparency"]
        grey.putalpha(Image.fromarray(opaque.astype(np.uint8) * 255))
    return grey


def to_srgb(image: Image.Image, profile: bytes | None) -> Image.Image:
    """Convert L, LA, RGB, RGBA or CMYK to RGB in the sRGB colour space; transparency shows white.

    Args:
        image: A loaded image.
        profile: The ICC profile of its colours; None means sRGB (or plain CMYK).
    """
    alpha = image.getchannel("A") if image.mode.endswith("A") else None
    if alpha is not None:
        image = image.convert(image.mode.removesuffix("A"))
    transform = srgb_transform(profile, image.mode) if profile else None
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
def srgb_transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the conversion from `mode` with an ICC profile to sRGB; None if none is needed.

    A profile that is broken, or made for another mode, is ignored, as browsers do.
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
