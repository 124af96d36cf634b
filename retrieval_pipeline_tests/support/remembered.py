"""The offline model, and the words that every model encodes: made once for all tests.

Both are always the same, and to make them takes longer than most tests.
"""

import hashlib
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import numpy as np
import pytest

from retrieval_pipeline.encoders import efficientnet_onnx, offline
from retrieval_pipeline.encoders.numpy_minilm import MiniLM
from retrieval_pipeline.vectors import Vectors
from retrieval_pipeline_tests.support.processes import made_once

# Fewer texts than this are encoded whenever a test asks.
MANY_TEXTS = 500


def remember_sentences(directory: Path, patched: pytest.MonkeyPatch) -> None:
    """Let this process read the vectors of many texts from `directory`, or write them there."""
    encode = MiniLM.encode

    def remembering(self: MiniLM, texts: Sequence[str]) -> Vectors:
        if len(texts) < MANY_TEXTS:
            return encode(self, texts)
        name = hashlib.sha256("\0".join(texts).encode()).hexdigest()
        made = made_once(directory / f"{name}.npy", lambda file: np.save(file, encode(self, texts)))
        vectors: Vectors = np.load(made)
        return vectors

    patched.setattr(MiniLM, "encode", remembering)


def remember_network(patched: pytest.MonkeyPatch) -> None:
    """Let this process read the offline model's network, and make a session of it, only once."""
    patched.setattr(offline, "read_network", cache(offline.read_network))
    patched.setattr(efficientnet_onnx, "make_session", cache(efficientnet_onnx.make_session))
