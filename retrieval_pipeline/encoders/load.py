"""Encoders by name: "offline", or a CLIP-family checkpoint as a hub id or a local directory."""

import importlib
from types import ModuleType
from typing import get_args

from retrieval_pipeline.encoders.base import Description, Encoder
from retrieval_pipeline.encoders.hardware import Precision
from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline.vectors import EncodeTexts, VectorSpace

__all__ = [
    "Description",
    "Encoder",
    "Precision",
    "describe",
    "load_encoder",
    "load_encoder_of",
    "load_text_encoder_of",
]


# Names of models with a module of their own; every other name is a checkpoint for clip.py. Each
# module has describe(model, revision, precision) and load(model, revision, device, precision).
OFFLINE = "offline"
_MODULES = {OFFLINE: "offline"}


def describe(
    model: str, *, revision: str | None = None, precision: Precision = "auto"
) -> Description:
    """Return space and transform of the encoder, from the configuration files alone.

    Args:
        model: "offline", a hub id or the directory of a checkpoint.
        revision: Branch, tag or commit of a hub model. For a model that lies on this machine, the
            revision that it must still have.
        precision: "auto" for speed, "reference" for float32 and every pixel decoded, "int8" for
            pictures encoded in eight bits where the processor can.

    Raises:
        EncoderError: The model cannot be had, or is not one that encodes images and texts.
    """
    description: Description = _module(model, precision).describe(model, revision, precision)
    return description


def load_encoder(
    model: str,
    *,
    revision: str | None = None,
    device: str = "auto",
    precision: Precision = "auto",
) -> Encoder:
    """Load the encoder; its space and transform are those of `describe`.

    Args:
        model: As for `describe`.
        revision: As for `describe`.
        device: "auto" (CUDA, then MPS, then the CPU), "cpu", "cuda", "cuda:1", "mps".
        precision: As for `describe`.

    Raises:
        EncoderError: The model or the device cannot be had.
    """
    encoder: Encoder = _module(model, precision).load(model, revision, device, precision)
    return encoder


def load_encoder_of(space: VectorSpace, *, device: str = "auto") -> Encoder:
    """Load the encoder whose vectors live in `space`, so that a query meets what was indexed.

    Raises:
        EncoderError: The model cannot be had, or is no longer the one that made the vectors.
    """
    for precision in get_args(Precision):
        if describe(space.model, revision=space.revision, precision=precision).space == space:
            return load_encoder(
                space.model, revision=space.revision, device=device, precision=precision
            )
    raise EncoderError(
        f"{space.model} prepares images differently now than when they were indexed: index again"
    )


def load_text_encoder_of(space: VectorSpace) -> EncodeTexts | None:
    """Load a text encoder for `space` that needs no torch; None if there is none for its model.

    Its vectors equal those of `load_encoder_of` to the precision of float32.

    Raises:
        EncoderError: The model cannot be had, or is no longer the one that made the vectors.
    """
    if space.model in _MODULES:
        return load_encoder_of(space).encode_texts
    from retrieval_pipeline.encoders.checkpoint import find_checkpoint
    from retrieval_pipeline.encoders.numpy_clip_text import ClipText, read_text_config

    checkpoint = find_checkpoint(space.model, space.revision, weights=True)
    config = read_text_config(checkpoint)
    return None if config is None else ClipText(checkpoint, config).encode


def _module(model: str, precision: Precision) -> ModuleType:
    if precision not in get_args(Precision):
        raise EncoderError(
            f'precision "{precision}" does not exist: use "auto", "reference" or "int8"'
        )
    return importlib.import_module(f"{__package__}.{_MODULES.get(model, 'clip')}")
