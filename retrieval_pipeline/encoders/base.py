"""What an encoder is: images and texts in, unit vectors of one space out."""

import logging
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from retrieval_pipeline.errors import VectorError
from retrieval_pipeline.images import ImageTransform, Pixels, transform_image
from retrieval_pipeline.vectors import Vectors, VectorSpace, check_vectors, normalise

logger = logging.getLogger(__name__)

Precision = Literal["auto", "reference"]


@dataclass(frozen=True)
class Description:
    """What an encoder makes of what, known without loading its weights."""

    space: VectorSpace
    transform: ImageTransform


class Encoder(Protocol):
    """Turns images and texts into vectors of one space; safe to call from several threads.

    Attributes:
        space: Where the vectors live.
        transform: How an image becomes the pixels that `encode_pixels` takes.
    """

    space: VectorSpace
    transform: ImageTransform

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
    """What all models share: the checks on what they compute, and the empty case."""

    def __init__(self, description: Description) -> None:
        self.space = description.space
        self.transform = description.transform

    def encode_pixels(self, pixels: Sequence[Pixels]) -> Vectors:
        """See `Encoder.encode_pixels`."""
        return self._checked(self._image_features(pixels), "image") if pixels else self._none()

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        """See `Encoder.encode_texts`."""
        return self._checked(self._text_features(texts), "text") if texts else self._none()

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
