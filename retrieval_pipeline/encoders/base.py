"""What an encoder is: images and texts in, unit vectors of one space out."""

import logging
from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval_pipeline.encoders.hardware import is_device_failure, is_out_of_memory
from retrieval_pipeline.errors import EncoderError, VectorError
from retrieval_pipeline.images.transform import ImageTransform, Pixels, transform_image
from retrieval_pipeline.vectors import Vectors, VectorSpace, check_vectors, normalise

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Description:
    """What an encoder makes of what, known without loading its weights."""

    space: VectorSpace
    transform: ImageTransform


@dataclass(frozen=True)
class ThreadPlan:
    """How an encoder is called for the most images in a second.

    Attributes:
        count: Threads that call `encode_pixels` at a time.
        enter: What each of them calls first.
    """

    count: int
    enter: Callable[[], None]


class Encoder(Protocol):
    """Turns images and texts into vectors of one space; safe to call from several threads.

    Attributes:
        space: Where the vectors live.
        transform: How an image becomes the pixels that `encode_pixels` takes.
        batch: Images that `encode_pixels` computes at once; more are cut into batches.
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
        """What fixes the weights."""
        return self.space.revision

    @property
    def dim(self) -> int:
        """Number of components of a vector."""
        return self.space.dim

    @property
    def preprocessing(self) -> str:
        """Fingerprint of how an image becomes the model's input."""
        return self.space.preprocessing

    @abstractmethod
    def encode_pixels(self, pixels: Sequence[Pixels]) -> Vectors:
        """Encode uint8 (height, width, 3) arrays as `transform` makes them, in one batch.

        Returns:
            float32 (n, dim), each row finite and of unit length.

        Raises:
            VectorError: The model made something that is not a vector of the space.
            EncoderError: The device failed, or has too little memory for a single image.
        """

    @abstractmethod
    def encode_threads(self) -> AbstractContextManager[ThreadPlan]:
        """Tell how several threads encode images at a time, until the end of the context."""

    @abstractmethod
    def efficiency(self, images: int, seconds: float) -> float | None:
        """Return the share of the fastest product that a thread achieved, None if that is unknown.

        Args:
            images: That were encoded.
            seconds: Of processor time, of all threads.
        """

    def encode_images(self, images: Sequence[Image.Image]) -> Vectors:
        """Transform and encode upright RGB images; returns and raises as `encode_pixels` does."""
        return self.encode_pixels([transform_image(image, self.transform) for image in images])

    @abstractmethod
    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """Encode texts; what exceeds the model's limit of tokens is cut with a logged warning.

        Returns and raises as `encode_pixels` does.
        """


class BaseEncoder(Encoder):
    """What all models share: batches that fit, the checks on what is computed, the empty case."""

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
        """Yield the features of all images; batches that do not fit into memory are halved."""
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
        """Never again compute `size` images at once: it failed for lack of memory."""
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
    """Tell, once a call, that `count` texts have more tokens than the model's `limit`."""
    if count:
        logger.warning(
            "%d %s longer than the model's limit of %d tokens: the rest is ignored",
            count,
            "text is" if count == 1 else "texts are",
            limit,
        )
