"""What passes between the processes that let a GPU decode a JPEG, and for which transforms."""

from dataclasses import dataclass

from retrieval_pipeline.images.transform import ImageTransform

# Filters that PyTorch computes as Pillow does.
FILTERS = {"bicubic", "bilinear"}


@dataclass(frozen=True)
class ForDevice:
    """Asks a worker for the bytes of a JPEG that suits the device, and for the pixels of others."""

    transform: ImageTransform


@dataclass(frozen=True)
class Jpeg:
    """One JPEG of three colours of eight bits.

    Attributes:
        data: The bytes of the file.
        orientation: As in EXIF; anything but 2 to 8 means upright.
    """

    data: bytes
    orientation: int = 1


def suits_device(transform: ImageTransform) -> bool:
    """Tell whether a device may apply a transform: not that of the reference."""
    return transform.shrink_on_load > 0 and transform.resample in FILTERS
