"""The layers of a transformer in NumPy, for texts: states are float32 (n, length, width).

Vaswani et al., 2017, arXiv:1706.03762.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.vectors import Vectors

Tokens = npt.NDArray[np.int64]

# Tokens in one batch: bounds the memory, 12 KB a token in the widest layer.
BATCH_TOKENS = 4096


def in_batches(texts: Sequence[Sequence[int]], encode: Callable[[Tokens], Vectors]) -> Vectors:
    """Encode tokenised texts in batches; return float32 (texts, dim), in the order of the texts.

    A batch holds texts of equal length, so that it needs no padding and no mask.
    """
    lengths = np.array([len(tokens) for tokens in texts])
    rows = np.empty((0, 0), np.float32)
    for length in np.unique(lengths):
        same = np.flatnonzero(lengths == length)
        for part in np.array_split(same, math.ceil(len(same) * length / BATCH_TOKENS)):
            encoded = encode(np.array([texts[number] for number in part]))
            if not rows.size:
                rows = np.empty((len(texts), encoded.shape[1]), np.float32)
            rows[part] = encoded
    return rows


def linear(states: Vectors, weight: Vectors, bias: Vectors) -> Vectors:
    """Multiply states (..., in) by weight (out, in), and add the bias: (..., out)."""
    # One large product: NumPy would multiply a three-dimensional array text by text.
    flat = states.reshape(-1, states.shape[-1]) @ weight.T
    flat += bias
    return flat.reshape(*states.shape[:-1], -1)


def layer_norm(states: Vectors, weight: Vectors, bias: Vectors, epsilon: float) -> Vectors:
    """Normalise each token's state to mean 0 and variance 1, then scale and shift it."""
    centred = states - states.mean(axis=-1, keepdims=True)
    variance = np.square(centred).mean(axis=-1, keepdims=True)
    normed: Vectors = centred / np.sqrt(variance + np.float32(epsilon)) * weight + bias
    return normed


def attention(
    query: Vectors, key: Vectors, value: Vectors, heads: int, *, causal: bool = False
) -> Vectors:
    """Multi-head attention within each text; with `causal`, no token sees later ones."""
    n, length, width = query.shape
    query, key, value = (
        each.reshape(n, length, heads, -1).swapaxes(1, 2) for each in (query, key, value)
    )
    scores = query @ key.swapaxes(2, 3) / np.float32(math.sqrt(width / heads))
    if causal:
        scores += np.triu(np.full((length, length), -np.inf, np.float32), 1)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    weights /= weights.sum(axis=-1, keepdims=True)
    mixed: Vectors = (weights @ value).swapaxes(1, 2).reshape(n, length, width)
    return mixed


def quick_gelu(x: Vectors) -> Vectors:
    """Return x times the logistic function of 1.702 x (Hendrycks and Gimpel, arXiv:1606.08415)."""
    # The logistic function, written as a tanh, which cannot overflow.
    result: Vectors = x * (0.5 + 0.5 * np.tanh(np.float32(0.851) * x))
    return result


def gelu(x: Vectors) -> Vectors:
    """Return x times the cumulative distribution function of the normal distribution.

    NumPy has no error function, and SciPy's takes 0.3 s to import: this is formula 7.1.26 of
    Abramowitz and Stegun, whose error of 1.5e-7 is about the precision of float32.
    """
    size = np.abs(x) / math.sqrt(2)
    t = 1 / (1 + 0.3275911 * size)
    polynomial = t * (
        0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429)))
    )
    erf = np.copysign(1 - polynomial * np.exp(-size * size), x)
    result: Vectors = 0.5 * x * (1 + erf)
    return result
