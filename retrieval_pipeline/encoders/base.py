"""The encoder interface: images and texts in, unit vectors of one space out."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.encoders.hardware import is_device_failure, is_out_of_memory
from retrieval_pipeline.errors import EncoderError, VectorError
from retrieval_pipeline.images.transform import ImageTransform, Pixels, transform_image
from retrieval_pipeline.vectors import Vectors, VectorSpace, check_vectors, normalise

if TYPE_CHECKING:
    from PIL import Image

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Description:
    """The vector space and the image transform of an encoder, known without loading its weights."""

    space: VectorSpace
    transform: ImageTransform


# At the end of the fingerprint of a space whose images are encoded in eight bits.
_INT8 = ", int8"


def int8_description(description: Description) -> Description:
    """Return the description of the same encoder, encoding images in eight bits."""
    space = description.space
    return replace(description, space=replace(space, preprocessing=f"{space.preprocessing}{_INT8}"))


def is_int8(space: VectorSpace) -> bool:
    """Tell whether the images of a vector space are encoded in eight bits."""
    return space.preprocessing.endswith(_INT8)


@dataclass(frozen=True)
class ThreadPlan:
    """How many threads encode images the fastest.

    Attributes:
        count: Number of threads that call `encode_pixels` at the same time.
        enter: Function that each of these threads calls once, before it encodes.
    """

    count: int
    enter: Callable[[], None]


class Encoder(Protocol):
    """Turns images and texts into vectors of one space; safe to call from several threads.

    Attributes:
        space: The vector space of its vectors.
        transform: Turns an image into the pixels that `encode_pixels` takes.
        batch: Largest number of images computed at once; `encode_pixels` splits longer lists.
    """

    space: VectorSpace
    transform: ImageTransform
    batch: int

    @property
    def name(self) -> str:
        """The model, as the settings name it."""
        return self.space.model

    @property
    def revision(self) -> str:
        """Version of the weights: a commit of the hub, or a fingerprint of the files."""
        return self.space.revision

    @property
    def dim(self) -> int:
        """Number of components of a vector."""
        return self.space.dim

    @property
    def number_format(self) -> str:
        """In which images are encoded: "float32", "bfloat16", "float16" or "int8"."""
        return "float32"

    @property
    def gpu(self) -> int | None:
        """Number of the NVIDIA GPU that encodes (the first of several); None if none does."""
        return None

    @property
    def preprocessing(self) -> str:
        """Fingerprint of the preprocessing: equal fingerprints give equal model inputs."""
        return self.space.preprocessing

    @abstractmethod
    def encode_pixels(self, pixels: Sequence[Pixels]) -> Vectors:
        """Encode uint8 (height, width, 3) arrays, as `transform` makes them.

        Returns:
            float32 (n, dim), each row finite and of unit length.

        Raises:
            VectorError: The model returned values that are not finite, or a wrong dimension.
            EncoderError: The device failed, or has too little memory for a single image.
        """

    @abstractmethod
    def encode_threads(self) -> AbstractContextManager[ThreadPlan]:
        """Prepare for several encoding threads; the plan holds until the context ends."""

    @abstractmethod
    def efficiency(self, images: int, seconds: float) -> float | None:
        """Return the reached share, 0 to 1, of the processor's peak speed in matrix products.

        Args:
            images: Number of images that were encoded.
            seconds: Processor time of all encoding threads together.

        Returns:
            None where the peak speed is unknown.
        """

    def encode_images(self, images: "Sequence[Image.Image]") -> Vectors:
        """Transform and encode upright RGB images; returns and raises as `encode_pixels` does."""
        return self.encode_pixels([transform_image(image, self.transform) for image in images])

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Encode texts; tokens beyond the model's limit are dropped, with a logged warning.

        Returns and raises as `encode_pixels` does.
        """


class BaseEncoder(Encoder):
    """Code that all encoders share: batches that fit into memory, checked vectors, empty lists."""

    def __init__(self, description: Description, *, batch: int) -> None:
        self.space = description.space
        self.transform = description.transform
        self.batch = batch

    def encode_pixels(self, pixels: Sequence[Pixels]) -> Vectors:
        """See `Encoder.encode_pixels`."""
        features = list(self._in_batches(pixels))
        return self._checked(np.concatenate(features), "image") if features else self._none()

    def efficiency(self, images: int, seconds: float) -> float | None:
        """See `Encoder.efficiency`."""
        return None

    def _in_batches(self, pixels: Sequence[Pixels]) -> Iterator[npt.NDArray[np.float32]]:
        """Yield the features of all images; a batch that does not fit into memory is halved."""
        start = 0
        while start < len(pixels):
            size = min(self.batch, len(pixels) - start)
            try:
                features = self._image_features(pixels[start : start + size])
            except RuntimeError as error:
                if is_out_of_memory(error):
                    self._halve(size, error)
                elif is_device_failure(error):
                    raise EncoderError(
                        f"{self.name}: the device failed ({str(error).splitlines()[0]}): run again "
                        'to go on from here, with device = "cpu" if it stays away'
                    ) from error
                else:
                    raise
            else:
                yield features
                start += size

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder.encode_texts`."""
        return self._checked(self._text_features(texts), "text") if texts else self._none()

    def _halve(self, size: int, error: RuntimeError) -> None:
        """Lower the batch size for good, after a batch of `size` images ran out of memory.

        Raises:
            EncoderError: Not even one image fits.
        """
        if size == 1:
            raise EncoderError(
                f"{self.name}: the device has too little memory for a single image: end what else "
                'uses it, or set device = "cpu"'
            ) from error
        self.batch = min(self.batch, size // 2)
        logger.warning(
            "%d images at once need more memory than there is: %d from now on", size, self.batch
        )

    @abstractmethod
    def _image_features(self, pixels: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        """Compute (n, dim) vectors of any length, n > 0."""

    @abstractmethod
    def _text_features(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        """Compute (n, dim) vectors of any length, n > 0."""

    def _checked(self, features: npt.NDArray[np.float32], what: str) -> Vectors:
        try:
            return check_vectors(normalise(features), self.dim, what)
        except VectorError as error:
            raise VectorError(f"{self.name} failed on {what}s: {error}") from error

    def _none(self) -> Vectors:
        return np.empty((0, self.dim), np.float32)


def warn_of_cut_texts(count: int, limit: int) -> None:
    """Log one warning if `count` texts have more tokens than the model's `limit`."""
    if count:
        logger.warning(
            "%d %s longer than the model's limit of %d tokens: the rest is ignored",
            count,
            "text is" if count == 1 else "texts are",
            limit,
        )
