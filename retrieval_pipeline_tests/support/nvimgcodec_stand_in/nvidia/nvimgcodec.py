"""Takes the place of nvImageCodec where there is no GPU: the same calls, answered by Pillow.

A file that ends with CRASH takes the process down, and one that ends with REFUSE is not decoded.
"""

import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image

CRASH, REFUSE = b"crash", b"refuse"


class BackendKind:
    HW_GPU_ONLY, GPU_ONLY, HYBRID_CPU_GPU = range(3)


class ColorSpec:
    SRGB = 1


class SampleFormat:
    I_RGB = 3


def Backend(kind: int) -> int:  # noqa: N802
    return kind


def DecodeParams(**_: Any) -> None:  # noqa: N802
    return None


class CodeStream:
    def __init__(self, data: bytes) -> None:
        self.data = data


class Decoder:
    def __init__(self, device_id: int, backends: Sequence[int]) -> None:
        pass

    def decode(self, streams: Sequence[CodeStream], params: None) -> list[torch.Tensor | None]:
        if any(stream.data.endswith(CRASH) for stream in streams):
            os._exit(3)
        return [
            None
            if stream.data.endswith(REFUSE)
            else torch.from_numpy(np.array(Image.open(io.BytesIO(stream.data))))
            for stream in streams
        ]
