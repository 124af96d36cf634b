"""Why a picture cannot be used, and the limits that it must keep."""

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from retrieval_pipeline.errors import RetrievalError

if TYPE_CHECKING:
    from retrieval_pipeline.config.settings import ImageLimits


class Reason(StrEnum):
    """Why an image could not be used; the quarantine table stores it.

    not_an_image: empty, or in no picture format that is known here.
    truncated: a picture whose data end early or are damaged.
    too_large: more pixels, bytes or memory than the limits allow.
    unsupported: a format, or a variant of one, that is not read here; the file may be sound.
    unreadable: the file system does not hand out its bytes.
    timed_out: decoding took longer than the limit.
    crashed: the worker process died while it decoded the file.
    """

    NOT_AN_IMAGE = "not_an_image"
    TRUNCATED = "truncated"
    TOO_LARGE = "too_large"
    UNSUPPORTED = "unsupported"
    UNREADABLE = "unreadable"
    TIMED_OUT = "timed_out"
    CRASHED = "crashed"

    @property
    def spoken(self) -> str:
        """The reason in words."""
        return self.value.replace("_", " ")


class ImageError(RetrievalError):
    """One image cannot be used, for a typed reason."""

    def __init__(self, reason: Reason, detail: str) -> None:
        super().__init__(f"{reason.spoken}: {detail}")
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


def too_large(detail: str) -> ImageError:
    """Return the error of a picture that exceeds a limit; `detail` says which."""
    return ImageError(Reason.TOO_LARGE, detail)


def out_of_memory() -> ImageError:
    """Return the error of a picture for which memory did not suffice."""
    return ImageError(Reason.TOO_LARGE, "decoding it takes more memory than it may")
