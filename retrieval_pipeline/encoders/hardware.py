"""Which device computes, in which number format, and how pixels get there."""

import platform
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from retrieval_pipeline.encoders.base import Precision
from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline.images import ImageTransform, Pixels

if TYPE_CHECKING:
    import torch


def pick_device(device: str) -> "torch.device":
    """Return the device of that name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        EncoderError: There is no such device here.
    """
    import torch

    present = {
        "cuda": torch.cuda.device_count() if torch.cuda.is_available() else 0,
        "mps": int(torch.backends.mps.is_available()),
        "cpu": 1,
    }
    if device == "auto":
        return torch.device(next(kind for kind, count in present.items() if count))
    try:
        chosen = torch.device(device)
    except RuntimeError as error:
        raise EncoderError(
            f'device "{device}" does not exist: use "auto", "cpu", "cuda", "cuda:1" or "mps"'
        ) from error
    if (chosen.index or 0) >= present.get(chosen.type, 0):
        found = ", ".join(f"{kind} ({count})" for kind, count in present.items() if count)
        raise EncoderError(
            f'device "{device}" is not there: torch {torch.__version__} finds {found}; '
            f'use device = "auto", or install a torch made for it'
        )
    return chosen


def pick_dtype(device: "torch.device", precision: Precision) -> "torch.dtype":
    """Return the fastest number format on `device` that keeps the vectors faithful.

    bfloat16 has float32's range, so that no checkpoint overflows in it; a GPU without it gets
    float16, where an overflow shows as a refused vector. MPS stays with float32: its half
    precision has not been measured. Vectors of one space may be made in several formats, since
    they differ by less than what tells two images apart (cosine above 0.999).
    """
    import torch

    if precision == "auto" and device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
        return torch.bfloat16 if native else torch.float16
    if precision == "auto" and device.type == "cpu" and _cpu_computes_in_bfloat16():
        return torch.bfloat16
    return torch.float32


def _cpu_computes_in_bfloat16() -> bool:
    """Tell whether the processor has bfloat16 instructions; emulating them is slower than float32.

    oneDNN's own answer counts any x86 processor with AVX-512, hence the second question.
    """
    import torch

    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    if not torch.ops.mkldnn._is_mkldnn_bf16_supported():
        return False
    x86 = platform.machine().lower() in {"x86_64", "amd64"}
    return not x86 or bool(torch.cpu._is_avx512_bf16_supported())


def to_tensor(
    pixels: Sequence[Pixels], transform: ImageTransform, device: "torch.device"
) -> "torch.Tensor":
    """Return float32 (n, 3, height, width) on `device`: pixel / 255, less mean, over std."""
    import torch

    # Bytes cross to the device, a quarter of what floats would be.
    batch = torch.from_numpy(np.stack(pixels)).to(device).permute(0, 3, 1, 2)
    mean, std = (
        torch.tensor(values, device=device)[:, None, None]
        for values in (transform.mean, transform.std)
    )
    return (batch / 255 - mean) / std
