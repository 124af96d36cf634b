"""Which optional decoders are installed: for those who must not import a decoder."""

from functools import cache
from importlib.util import find_spec

# What brings the packages for RAW, HEIF and JPEG XL.
FORMATS_EXTRA = "retrieval-pipeline[formats]"


@cache
def can_read_raw() -> bool:
    """Tell whether rawpy is installed, without importing it."""
    return find_spec("rawpy") is not None
