"""The sentence encoder all-MiniLM-L6-v2 in NumPy: milliseconds a text, and no torch to import.

A BERT (Devlin et al., 2018, arXiv:1810.04805) whose token states are averaged and normalised, as
sentence-transformers does it (Reimers and Gurevych, 2019, arXiv:1908.10084).
"""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.encoders.base import warn_of_cut_texts
from retrieval_pipeline.vectors import Vectors, normalise

# Tokens in one batch: bounds the memory (6 KB a token in the widest layer).
BATCH_TOKENS = 4096


class MiniLM:
    """Turns texts into unit vectors; safe to call from several threads."""

    def __init__(self, directory: Path) -> None:
        """Load weights and tokenizer from a directory in the layout of sentence-transformers."""
        from safetensors.numpy import load_file
        from tokenizers import Tokenizer

        config = _read_json(directory / "config.json")
        self._layers: int = config["num_hidden_layers"]
        self._heads: int = config["num_attention_heads"]
        self._epsilon: float = config["layer_norm_eps"]
        self._limit: int = _read_json(directory / "sentence_bert_config.json")["max_seq_length"]
        self._weights: dict[str, Vectors] = load_file(directory / "model.safetensors")
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self._limit)

    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (n, 384) unit vectors; a text is cut, with a warning, at 256 tokens."""
        encodings = self._tokenizer.encode_batch(list(texts))
        warn_of_cut_texts(sum(bool(each.overflowing) for each in encodings), self._limit)
        lengths = np.array([len(each.ids) for each in encodings])
        means = np.empty((len(texts), len(self._weights["embeddings.LayerNorm.bias"])), np.float32)
        # Texts of one length make a batch: it needs no padding and no mask.
        for length in np.unique(lengths):
            rows = np.flatnonzero(lengths == length)
            for part in np.array_split(rows, math.ceil(len(rows) * length / BATCH_TOKENS)):
                means[part] = self._mean_states(np.array([encodings[row].ids for row in part]))
        return normalise(means)

    def _mean_states(self, tokens: npt.NDArray[np.int64]) -> Vectors:
        """Run tokens (n, length) through the network: (n, 384)."""
        states: Vectors = (
            self._weights["embeddings.word_embeddings.weight"][tokens]
            + self._weights["embeddings.position_embeddings.weight"][: tokens.shape[1]]
            + self._weights["embeddings.token_type_embeddings.weight"][0]
        )
        states = self._norm(states, "embeddings.LayerNorm")
        for layer in range(self._layers):
            states = self._layer(states, f"encoder.layer.{layer}")
        means: Vectors = states.mean(axis=1)
        return means

    def _layer(self, states: Vectors, name: str) -> Vectors:
        attended = self._attention(states, f"{name}.attention.self")
        attended = self._linear(attended, f"{name}.attention.output.dense")
        states = self._norm(states + attended, f"{name}.attention.output.LayerNorm")
        widened = _gelu(self._linear(states, f"{name}.intermediate.dense"))
        narrowed = self._linear(widened, f"{name}.output.dense")
        return self._norm(states + narrowed, f"{name}.output.LayerNorm")

    def _attention(self, states: Vectors, name: str) -> Vectors:
        n, length, width = states.shape
        query, key, value = (
            self._linear(states, f"{name}.{role}")
            .reshape(n, length, self._heads, -1)
            .swapaxes(1, 2)
            for role in ("query", "key", "value")
        )
        scores = query @ key.swapaxes(2, 3) / math.sqrt(width / self._heads)
        weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
        weights /= weights.sum(axis=-1, keepdims=True)
        mixed: Vectors = weights @ value
        return mixed.swapaxes(1, 2).reshape(n, length, width)

    def _linear(self, states: Vectors, name: str) -> Vectors:
        # One large product; NumPy would multiply a 3-d array text by text.
        flat: Vectors = states.reshape(-1, states.shape[-1]) @ self._weights[f"{name}.weight"].T
        flat += self._weights[f"{name}.bias"]
        return flat.reshape(*states.shape[:-1], -1)

    def _norm(self, states: Vectors, name: str) -> Vectors:
        centred = states - states.mean(axis=-1, keepdims=True)
        variance = np.square(centred).mean(axis=-1, keepdims=True)
        scaled: Vectors = centred / np.sqrt(variance + self._epsilon)
        return scaled * self._weights[f"{name}.weight"] + self._weights[f"{name}.bias"]


def _gelu(x: Vectors) -> Vectors:
    """x times the normal distribution function of x.

    The error function is Abramowitz and Stegun's 7.1.26, off by at most 1.5e-7, a float32's
    precision; NumPy has none, and SciPy's costs 0.3 s to import.
    """
    size = np.abs(x) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * size)
    polynomial = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    )
    erf: Vectors = np.copysign(1 - polynomial * np.exp(-size * size), x)
    return 0.5 * x * (1 + erf)


def _read_json(path: Path) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads(path.read_bytes())
    return contents
