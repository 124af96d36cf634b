"""CLIP-family checkpoints through transformers: by hub id or directory, safetensors only."""

import inspect
import threading
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.encoders.base import (
    BaseEncoder,
    Description,
    Encoder,
    Precision,
    warn_of_cut_texts,
)
from retrieval_pipeline.encoders.checkpoint import CONFIG, Checkpoint, find_checkpoint
from retrieval_pipeline.encoders.hardware import pick_device, pick_dtype, to_tensor
from retrieval_pipeline.encoders.loading import transformers_loading
from retrieval_pipeline.encoders.preprocessing import Preprocessing, read_preprocessing
from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline.images import Pixels
from retrieval_pipeline.vectors import VectorSpace

if TYPE_CHECKING:
    import torch

# The model types with two towers, and what their configuration calls the dimension of a vector.
FAMILY = {
    "aimv2": ("projection_dim",),
    "align": ("projection_dim",),
    "altclip": ("projection_dim",),
    "blip": ("projection_dim",),
    "chinese_clip": ("projection_dim",),
    "clip": ("projection_dim",),
    "clipseg": ("projection_dim",),
    "metaclip_2": ("projection_dim",),
    "siglip": ("vision_config", "hidden_size"),
    "siglip2": ("vision_config", "hidden_size"),
}

# Trained on texts padded to full length and pooled at the last position: with any other padding
# they read another text.
PADDED_TO_LIMIT = {"siglip", "siglip2"}

# Texts in one batch: bounds the memory for long lists of words.
TEXT_BATCH = 64


def describe(model: str, revision: str | None, precision: Precision) -> Description:
    """See `encoders.describe`."""
    return _read(find_checkpoint(model, revision, weights=False), precision)[0]


def load(model: str, revision: str | None, device: str, precision: Precision) -> Encoder:
    """See `encoders.load_encoder`."""
    chosen = pick_device(device)
    checkpoint = find_checkpoint(model, revision, weights=True)
    description, preprocessing = _read(checkpoint, precision)
    with transformers_loading(checkpoint):
        from transformers import AutoModel, AutoTokenizer

        network, report = AutoModel.from_pretrained(
            checkpoint.directory,
            dtype=pick_dtype(chosen, precision),
            use_safetensors=True,
            trust_remote_code=False,
            local_files_only=True,
            output_loading_info=True,
        )
        tokenizer = AutoTokenizer.from_pretrained(
            checkpoint.directory, trust_remote_code=False, local_files_only=True
        )
    # What the file lacks, transformers fills with random numbers.
    if missing := sorted(report["missing_keys"]):
        raise EncoderError(
            f'model "{model}" has incomplete weights: {len(missing)} tensors are missing, '
            f"such as {missing[0]}"
        )
    return ClipEncoder(description, network.to(chosen).eval(), tokenizer, preprocessing.processor)


def _read(checkpoint: Checkpoint, precision: Precision) -> tuple[Description, Preprocessing]:
    dim = _read_dim(checkpoint)
    if not checkpoint.has_tokenizer:
        raise EncoderError(f'model "{checkpoint.name}" has no tokenizer, such as tokenizer.json')
    preprocessing = read_preprocessing(checkpoint, precision)
    space = VectorSpace(checkpoint.name, checkpoint.revision, dim, preprocessing.fingerprint)
    return Description(space, preprocessing.transform), preprocessing


def _read_dim(checkpoint: Checkpoint) -> int:
    config = checkpoint.read_json(CONFIG)
    kind = config.get("model_type")
    if kind not in FAMILY:
        raise EncoderError(
            f'model "{checkpoint.name}" is of the type "{kind}", not of the CLIP family '
            f"({', '.join(FAMILY)}): it does not put images and texts into one space"
        )
    dim: Any = config
    for key in FAMILY[kind]:
        dim = dim.get(key) if isinstance(dim, Mapping) else None
    if not isinstance(dim, int):  # the file leaves out what is the default of its type
        with transformers_loading(checkpoint):
            from transformers import AutoConfig

            dim = AutoConfig.from_pretrained(
                checkpoint.directory, trust_remote_code=False, local_files_only=True
            )
        for key in FAMILY[kind]:
            dim = getattr(dim, key)
    return int(dim)


class ClipEncoder(BaseEncoder):
    """A two-tower model of transformers."""

    def __init__(
        self, description: Description, network: Any, tokenizer: Any, processor: Any = None
    ) -> None:
        """Wrap a model in evaluation mode on its device, its tokenizer and image processor."""
        super().__init__(description)
        self._network = network
        self._processor = processor
        self._tokenizer = tokenizer
        self._limit = _token_limit(tokenizer, network.config.text_config)
        self._padding = "max_length" if network.config.model_type in PADDED_TO_LIMIT else True
        self._text_inputs = inspect.signature(network.get_text_features).parameters.keys()
        # A fast tokenizer cannot be set up for one call while it works on another.
        self._tokenizer_lock = threading.Lock()

    def _image_features(self, pixels: Sequence[Pixels]) -> npt.NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            if self._processor is None:
                inputs = {"pixel_values": to_tensor(pixels, self.transform, self._network.device)}
            else:
                inputs = self._processor(list(pixels), return_tensors="pt")
            return _features(self._network.get_image_features(**self._on_device(inputs)))

    def _text_features(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        import torch

        with torch.inference_mode():
            features = [
                _features(self._network.get_text_features(**self._on_device(inputs)))
                for inputs in self._tokenized(texts)
            ]
        return np.concatenate(features)

    def _tokenized(self, texts: Sequence[str]) -> "list[dict[str, torch.Tensor]]":
        with self._tokenizer_lock:
            whole = self._tokenizer(list(texts), verbose=False)["input_ids"]
            batches = [
                self._tokenizer(
                    list(texts[start : start + TEXT_BATCH]),
                    padding=self._padding,
                    truncation=True,
                    max_length=self._limit,
                    return_tensors="pt",
                )
                for start in range(0, len(texts), TEXT_BATCH)
            ]
        warn_of_cut_texts(sum(len(tokens) > self._limit for tokens in whole), self._limit)
        return [
            {name: batch[name] for name in batch if name in self._text_inputs} for batch in batches
        ]

    def _on_device(self, inputs: "Mapping[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
        """Move the inputs of the network to its device, the fractions among them in its format."""
        device, dtype = self._network.device, self._network.dtype
        return {
            name: tensor.to(device, dtype if tensor.is_floating_point() else None)
            for name, tensor in inputs.items()
        }


def _features(output: Any) -> npt.NDArray[np.float32]:
    features: npt.NDArray[np.float32] = output.pooler_output.float().cpu().numpy()
    return features


def _token_limit(tokenizer: Any, config: Any) -> int:
    """Return how many tokens of a text count, the special ones included."""
    positions: int = config.max_position_embeddings
    if config.model_type == "altclip_text_model":  # RoBERTa counts positions from there on
        positions -= config.pad_token_id + 1
    return min(positions, int(tokenizer.model_max_length))
