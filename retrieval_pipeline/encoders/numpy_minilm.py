"""The sentence encoder all-MiniLM-L6-v2 in NumPy: milliseconds a text, without importing torch.

A BERT (Devlin et al., 2018, arXiv:1810.04805) whose token states are averaged and normalised, as
sentence-transformers does it (Reimers and Gurevych, 2019, arXiv:1908.10084).
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from retrieval_pipeline.concurrency import one_blas_thread
from retrieval_pipeline.encoders.base import warn_of_cut_texts
from retrieval_pipeline.encoders.numpy_layers import (
    Tokens,
    attention,
    gelu,
    in_batches,
    layer_norm,
    linear,
)
from retrieval_pipeline.encoders.numpy_safetensors import Tensors
from retrieval_pipeline.vectors import Vectors, normalise


class MiniLM:
    """Turns texts into unit vectors; safe to call from several threads."""

    def __init__(self, directory: Path) -> None:
        """Load weights and tokenizer from a directory in the layout of sentence-transformers."""
        from tokenizers import Tokenizer

        config = _read_json(directory / "config.json")
        self._layers: int = config["num_hidden_layers"]
        self._heads: int = config["num_attention_heads"]
        self._epsilon: float = config["layer_norm_eps"]
        self._limit: int = _read_json(directory / "sentence_bert_config.json")["max_seq_length"]
        self._tensors = Tensors([directory / "model.safetensors"])
        self._tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(self._limit)

    @one_blas_thread()
    def encode(self, texts: Sequence[str]) -> Vectors:
        """Return float32 (n, 384) unit vectors; tokens beyond 256 are dropped, with a log line."""
        encodings = self._tokenizer.encode_batch(list(texts))
        warn_of_cut_texts(sum(bool(each.overflowing) for each in encodings), self._limit)
        return normalise(in_batches([each.ids for each in encodings], self._mean_states))

    def _mean_states(self, tokens: Tokens) -> Vectors:
        """Map tokens (n, length) to the mean of their final states, float32 (n, 384)."""
        states = (
            self._tensors.rows("embeddings.word_embeddings.weight", tokens)
            + self._tensors["embeddings.position_embeddings.weight"][: tokens.shape[1]]
            + self._tensors["embeddings.token_type_embeddings.weight"][0]
        )
        states = self._norm(states, "embeddings.LayerNorm")
        for layer in range(self._layers):
            states = self._layer(states, f"encoder.layer.{layer}")
        means: Vectors = states.mean(axis=1)
        return means

    def _layer(self, states: Vectors, name: str) -> Vectors:
        query, key, value = (
            self._linear(states, f"{name}.attention.self.{role}")
            for role in ("query", "key", "value")
        )
        mixed = attention(query, key, value, self._heads)
        attended = self._linear(mixed, f"{name}.attention.output.dense")
        states = self._norm(states + attended, f"{name}.attention.output.LayerNorm")
        widened = gelu(self._linear(states, f"{name}.intermediate.dense"))
        narrowed = self._linear(widened, f"{name}.output.dense")
        return self._norm(states + narrowed, f"{name}.output.LayerNorm")

    def _linear(self, states: Vectors, name: str) -> Vectors:
        return linear(states, self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"])

    def _norm(self, states: Vectors, name: str) -> Vectors:
        weight, bias = self._tensors[f"{name}.weight"], self._tensors[f"{name}.bias"]
        return layer_norm(states, weight, bias, self._epsilon)


def _read_json(path: Path) -> dict[str, Any]:
    contents: dict[str, Any] = json.loads(path.read_bytes())
    return contents
