"""CLIP's text tower in NumPy: a query by text in a fifth of a second, and no torch to import.

Radford et al., 2021, arXiv:2103.00020. Gives what transformers gives, to float32's precision.
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

# What a configuration leaves out is this (transformers' CLIPTextConfig).
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
# Written before transformers knew which token ends a text; it then is the one of the largest id.
UNKNOWN_END = 2


def read_text_config(checkpoint: Checkpoint) -> dict[str, Any] | None:
    """Return the text tower's configuration; None if `ClipText` cannot stand for the model."""
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

    @one_blas_thread()
    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (n, dim) unit vectors; a text is cut, with a warning, at the limit."""
        encodings = self._tokenizer.encode_batch(list(texts))
        warn_of_cut_texts(sum(bool(each.overflowing) for each in encodings), self._limit)
        pooled = in_batches([each.ids for each in encodings], self._pooled)
        return normalise(pooled @ self._tensors["text_projection.weight"].T)

    def _pooled(self, tokens: Tokens) -> Vectors:
        """Run tokens (n, length) through the network: the state of the token that ends each."""
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
