"""Tensors of a safetensors file, memory-mapped: only what is used is read from disk."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.errors import EncoderError
from retrieval_pipeline.vectors import Vectors

_FLOATS: dict[str, np.dtype[Any]] = {
    "F32": np.dtype("<f4"),
    "F16": np.dtype("<f2"),
    "BF16": np.dtype("<u2"),
}


class Tensors:
    """The floating-point tensors of safetensors files, by name, as float32.

    A float32 tensor is a view of the file; half precision is converted at each access. The format:
    https://github.com/huggingface/safetensors#format
    """

    def __init__(self, files: list[Path]) -> None:
        """Read the headers of the files.

        Raises:
            EncoderError: A file is damaged.
        """
        self._places: dict[str, tuple[npt.NDArray[np.uint8], str, list[int]]] = {}
        for file in files:
            try:
                data = np.memmap(file, np.uint8, "r")
                start = 8 + int.from_bytes(data[:8].tobytes(), "little")
                header = json.loads(data[8:start].tobytes())
                for name, entry in header.items():
                    if name != "__metadata__" and entry["dtype"] in _FLOATS:
                        first, last = entry["data_offsets"]
                        place = data[start + first : start + last]
                        self._places[name] = place, entry["dtype"], entry["shape"]
            except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
                raise EncoderError(f"{file} cannot be read: {error}") from error

    def __contains__(self, name: str) -> bool:
        return name in self._places

    def __getitem__(self, name: str) -> Vectors:
        """Return a tensor.

        Raises:
            EncoderError: There is none of that name, or the file is shorter than it says.
        """
        values, kind = self._stored(name)
        return _widened(values, kind)

    def rows(self, name: str, numbers: npt.NDArray[np.int64]) -> Vectors:
        """Return rows of a matrix, without reading the others; raises as `[]` does."""
        values, kind = self._stored(name)
        return _widened(values[numbers], kind)

    def _stored(self, name: str) -> tuple[npt.NDArray[Any], str]:
        try:
            place, kind, shape = self._places[name]
            return np.asarray(place).view(_FLOATS[kind]).reshape(shape), kind
        except KeyError:
            raise EncoderError(f"the weights have no tensor {name}") from None
        except ValueError as error:
            raise EncoderError(f"tensor {name} is damaged: {error}") from error


def _widened(values: npt.NDArray[Any], kind: str) -> Vectors:
    if kind == "BF16":
        # bfloat16 is the upper half of a float32.
        wide: Vectors = (values.astype(np.uint32) << 16).view(np.float32)
    else:
        wide = values.astype(np.float32, copy=False)
    return wide
