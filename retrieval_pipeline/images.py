"""The only module that opens images: orientation, modes, limits, shrink-on-load, thumbnails."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval_pipeline.errors import RetrievalError

Pixels = npt.NDArray[np.uint8]


class Reason(StrEnum):
    """Why an image could not be used; the quarantine table stores it."""

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
        memory_mb: Address space of a decode worker, MiB.
    """

    pixels: int = 300_000_000
    bytes: int = 1_000_000_000
    seconds: float = 60.0
    memory_mb: int = 2_000


@dataclass(frozen=True)
class ImageTransform:
    """How an image becomes the encoder's input, up to and including the uint8 pixels.

    Attributes:
        resize: Length of the shorter edge (int) or the exact (height, width).
        crop: Centre crop to this (height, width) afterwards, if any.
        resample: Pillow's filter: "bicubic", "bilinear" or "lanczos".
        mean: Per channel, subtracted from pixel / 255 (by the encoder, on its device).
        std: Per channel, divisor after that.
        shrink_on_load: Let the JPEG decoder scale down to no less than this many times the target
            before the exact resize; 0 decodes every pixel (the reference).
    """

    resize: int | tuple[int, int]
    crop: tuple[int, int] | None
    resample: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    shrink_on_load: int = 2

    @property
    def fingerprint(self) -> str:
        """Readable and complete: two transforms with one fingerprint give the same pixels."""
        raise NotImplementedError


@dataclass(frozen=True)
class Decoded:
    """One image as the encoder wants it.

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
