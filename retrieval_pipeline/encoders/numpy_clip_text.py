"""CLIP's text tower in NumPy: a query by text takes a fifth of a second and imports no torch.

Radford et al., 2021, arXiv:2103.00020. The vectors equal those of transformers to the precision of
float32.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from retrieval_pipeline.concurrency import one_blas_thread
from retrieval_pipeline.encoders.base import warn_of_cut_texts
from retrieval_pipeline.encoders.checkpoint import CONFIG, Checkpoint, weight_files
from retrieval_pipeline.encoders.numpy_layers import (
    Tokens,
    attention,
    gelu,
    in_batches,
    layer_norm,
    linear,
    quick_gelu,
)
from retrieval_pipeline.encoders.numpy_safetensors import Tensors
from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline.vectors import Vectors, normalise

# Values of keys that a configuration leaves out, as in transformers' CLIPTextConfig.
DEFAULTS = {
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
    "num_attention_heads": 8,
    "num_hidden_layers": 12,
    "max_position_embeddings": 77,
    "eos_token_id": 49407,
}
ACTIVATIONS = {"quick_gelu": quick_gelu, "gelu": gelu}
TOKENIZER = "tokenizer.json"
# Old checkpoints have this placeholder as eos_token_id. Then the token with the largest id ends a
# text, as transformers has it.
UNKNOWN_END = 2


def read_text_config(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Return the configuration of the text tower; None if `ClipText` cannot compute this model."""
    config = checkpoint.read_json(CONFIG)
    text = config.get("text_config") or {}
    former = config.get("text_config_dict") or {}
    contradicts = any(text.get(key, value) != value for key, value in former.items())
    merged = DEFAULTS | former | text
    if (
        config.get("model_type") != "clip"
        or contradicts
        or merged["hidden_act"] not in ACTIVATIONS
        or not isinstance(merged["eos_token_id"], int)
        or not (checkpoint.directory / TOKENIZER).is_file()
    ):
        return None
    return merged


class ClipText:
    """Turns texts into unit vectors; safe to call from several threads."""

    def __init__(self, checkpoint: Checkpoint, config: Mapping[str, Any]) -> None:
        """Map the weights and load the tokenizer; `config` is that of `read_text_config`.

        Raises:
            EncoderError: The files are damaged.
        """
        from tokenizers import Tokenizer

        self._heads: int = config["num_attention_heads"]
        self._layers: int = config["num_hidden_layers"]
        self._epsilon: float = config["layer_norm_eps"]
        self._end: int = config["eos_token_id"]
        self._activation = ACTIVATIONS[config["hidden_act"]]
        self._tensors = Tensors(weight_files(checkpoint.directory))
        tokens = checkpoint.read_json("tokenizer_config.json").get("model_max_length", math.inf)
        self._limit = int(min(config["max_position_embeddings"], tokens))
        file = checkpoint.directory / TOKENIZER
        try:
            self._tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:
            raise EncoderError(f"{file} cannot be read: {error}") from error
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self._limit)
        if self._end not in (UNKNOWN_END, *self._tokenizer.encode("a").ids):
            raise EncoderError(
                f"{file} does not end texts with token {self._end}, as {CONFIG} says: "
                "take both files from the same model"
            )
        if f"text_model.encoder.layers.{self._layers}.layer_norm1.weight" in self._tensors:
            raise EncoderError(
                f"{checkpoint.directory} has weights of more layers than its {CONFIG} counts: "
                "take both files from the same model"
            )

    @one_blas_thread()
    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (n, dim) unit vectors; excess tokens are dropped, with a log line."""
        encodings = self._tokenizer.encode_batch(list(texts))
        warn_of_cut_texts(sum(bool(each.overflowing) for each in encodings), self._limit)
        pooled = in_batches([each.ids for each in encodings], self._pooled)
        return normalise(pooled @ self._tensors["text_projection.weight"].T)

    def _pooled(self, tokens: Tokens) -> Vectors:
        """Map tokens (n, length) to the final states of the end tokens, float32 (n, width)."""
        states = self._tensors.rows("text_model.embeddings.token_embedding.weight", tokens)
        states += self._tensors["text_model.embeddings.position_embedding.weight"][
            : tokens.shape[1]
        ]
        for layer in range(self._layers):
            states = self._layer(states, f"text_model.encoder.layers.{layer}")
        ends = tokens if self._end == UNKNOWN_END else tokens == self._end
        last = states[np.arange(len(tokens)), ends.argmax(axis=1)]
        return self._norm(last, "text_model.final_layer_norm")

    def _layer(self, states: Vectors, name: str) -> Vectors:
        normed = self._norm(states, f"{name}.layer_norm1")
        query, key, value = (
            self._linear(normed, f"{name}.self_attn.{role}_proj") for role in ("q", "k", "v")
        )
        mixed = attention(query, key, value, self._heads, causal=True)
        states = states + self._linear(mixed, f"{name}.self_attn.out_proj")
        normed = self._norm(states, f"{name}.layer_norm2")
        widened = self._activation(self._linear(normed, f"{name}.mlp.fc1"))
        return states + self._linear(widened, f"{name}.mlp.fc2")

    def _linear(self, states: Vectors, name: str) -> Vectors:
        return linear(states, self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"])

    def _norm(self, states: Vectors, name: str) -> Vectors:
        weight, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
        return layer_norm(states, weight, bias, self._epsilon)
