"""Encoders for tests, without a model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.encoders.base import BaseEncoder, Description, ThreadPlan
from retrieval_pipeline.images.transform import ImageTransform, Pixels
from retrieval_pipeline.vectors import Vectors, VectorSpace
from synthetic.tables import random_vectors

TRANSFORM = ImageTransform(
    resize=8, crop=(8, 8), resample="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
SPACE = VectorSpace("colours", "1", 3, TRANSFORM.fingerprint)
DESCRIPTION = Description(SPACE, TRANSFORM)


class MeanColour(BaseEncoder):
    """Has the rules of every encoder; a vector is the mean colour, and black has none."""

    def __init__(
        self,
        *,
        batch: int = 4,
        threads: int = 2,
        before: Callable[[Sequence[Pixels]], None] = lambda _: None,
    ) -> None:
        """Call `before` on each batch; it may raise what a device raises."""
        super().__init__(DESCRIPTION, batch=batch)
        self._threads, self._before = threads, before

    @contextmanager
    def encode_threads(self) -> Iterator[ThreadPlan]:
        yield ThreadPlan(self._threads, lambda: None)

    def _image_features(self, pixels: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        self._before(pixels)
        return np.stack([image.mean(axis=(0, 1)) for image in pixels]).astype(np.float32)

    def _text_features(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        raise NotImplementedError


class VocabularyEncoder:
    """Encodes the words of the vocabulary, at random but always alike, and nothing else."""

    def __init__(self, dim: int) -> None:
        """Give vectors of so many components."""
        self._dim = dim

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        return random_vectors(len(texts), self._dim, seed=9)
