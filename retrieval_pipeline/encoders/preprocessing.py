"""Preprocessing of a checkpoint: its image processor's configuration as an `ImageTransform`.

If no `ImageTransform` can express it (NaFlex), the processor of transformers runs itself, on
pictures of bounded size.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from retrieval_pipeline.encoders.checkpoint import IMAGE_CONFIGS, Checkpoint
from retrieval_pipeline.encoders.hardware import Precision
from retrieval_pipeline.encoders.loading import transformers_loading
from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline.images.transform import ImageTransform

_RESIZES = {"do_resize", "size", "resample", "do_normalize", "image_mean", "image_std"}
_CROPS = {"do_center_crop", "crop_size"}
# Processors that only resize, crop, rescale and normalise, in this order, with the keys that their
# file must have: for a missing key, the class would use a default that is not known here.
PLAIN_PROCESSORS = {
    "BlipImageProcessor": _RESIZES,
    "CLIPImageProcessor": _RESIZES | _CROPS,
    "ChineseCLIPImageProcessor": _RESIZES | _CROPS,
    "SiglipImageProcessor": _RESIZES,
    "ViTImageProcessor": _RESIZES,
}

RESAMPLE_NAMES = {1: "lanczos", 2: "bilinear", 3: "bicubic"}

# Shorter edge, in pixels, of the pictures that are handed to transformers' own processor: about
# twice the input of today's models, so that the second resize loses next to nothing.
BOUNDED_EDGE = 768


@dataclass(frozen=True)
class Preprocessing:
    """How an image becomes the model's input.

    Attributes:
        transform: From an upright image to uint8 pixels.
        fingerprint: Text that names every setting that decides the model's input.
        processor: transformers' image processor, if it must run after `transform`; else None.
    """

    transform: ImageTransform
    fingerprint: str
    processor: Any = None


def read_preprocessing(checkpoint: Checkpoint, precision: Precision) -> Preprocessing:
    """Read the preprocessing of a checkpoint; transformers is imported for unusual ones only.

    Raises:
        EncoderError: The checkpoint has no such configuration, or transformers cannot read it.
    """
    shrink = 0 if precision == "reference" else ImageTransform.shrink_on_load
    config = _image_config(checkpoint)
    transform = _transform(config, shrink)
    processor = None
    if transform is None:
        with transformers_loading(checkpoint):
            from transformers import AutoImageProcessor

            processor = AutoImageProcessor.from_pretrained(
                checkpoint.directory, backend="pil", trust_remote_code=False, local_files_only=True
            )
        config = json.loads(processor.to_json_string())
        transform = _transform(config, shrink)
    if transform is not None:
        return Preprocessing(transform, transform.fingerprint)
    bounded = ImageTransform(
        resize=BOUNDED_EDGE,
        crop=None,
        resample="bicubic",
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        shrink_on_load=shrink,
    )
    digest = hashlib.sha256(json.dumps(config, sort_keys=True).encode()).hexdigest()[:8]
    return Preprocessing(bounded, f"{bounded.fingerprint} then {_kind(config)}@{digest}", processor)


def _image_config(checkpoint: Checkpoint) -> dict[str, Any]:
    combined, separate = (checkpoint.read_json(name) for name in IMAGE_CONFIGS)
    config = combined.get("image_processor") or separate
    if not config:
        raise EncoderError(
            f'model "{checkpoint.name}" does not say how it prepares images: '
            f"it has no {IMAGE_CONFIGS[1]}"
        )
    return dict(config)


def _kind(config: Mapping[str, Any]) -> str:
    """Return the class name of the image processor, also from files of old versions."""
    kind = config.get("image_processor_type") or config.get("feature_extractor_type") or ""
    return str(kind).removesuffix("Fast").replace("FeatureExtractor", "ImageProcessor")


def _transform(config: Mapping[str, Any], shrink_on_load: int) -> ImageTransform | None:
    """Translate a processor's configuration; None if it is incomplete or has other steps."""
    kind = _kind(config)
    if kind not in PLAIN_PROCESSORS or not config.keys() >= PLAIN_PROCESSORS[kind]:
        return None
    rescales = config.get("do_rescale", True) and math.isclose(
        config.get("rescale_factor", 1 / 255), 1 / 255, rel_tol=1e-6
    )
    resize = _resize(config["size"], kind)
    if not config["do_resize"] or resize is None or not rescales or config.get("do_pad"):
        return None
    crop = _size(config["crop_size"]) if config.get("do_center_crop") else None
    height, width = (resize, resize) if isinstance(resize, int) else resize
    if crop and (crop[0] > height or crop[1] > width):  # such a crop would pad the picture
        return None
    if config["resample"] not in RESAMPLE_NAMES:
        return None
    normalises = config["do_normalize"]
    return ImageTransform(
        resize=resize,
        crop=crop,
        resample=RESAMPLE_NAMES[config["resample"]],
        mean=_channels(config["image_mean"] if normalises else 0.0),
        std=_channels(config["image_std"] if normalises else 1.0),
        shrink_on_load=shrink_on_load,
    )


def _resize(size: Any, kind: str) -> int | tuple[int, int] | None:
    """Return the shorter edge or the exact (height, width); None for any other rule."""
    if isinstance(size, int):  # the shorter edge in old CLIP files; other classes mean a square
        return size if kind == "CLIPImageProcessor" else None
    if size.keys() == {"shortest_edge"}:
        return int(size["shortest_edge"])
    return _size(size) if size.keys() == {"height", "width"} else None


def _size(size: int | Mapping[str, int]) -> tuple[int, int]:
    return (size, size) if isinstance(size, int) else (size["height"], size["width"])


def _channels(values: float | Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = [values] * 3 if isinstance(values, float) else values
    return red, green, blue
