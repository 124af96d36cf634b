"""The names of the classes and the vocabulary, encoded once for all tests.

They are always the same, and to encode them takes longer than most tests.
"""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

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
