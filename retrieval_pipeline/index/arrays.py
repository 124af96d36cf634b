"""Reading the NumPy arrays of a build, whose files may not hold what their names say."""

from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.storage.reading import reading


def load_array(
    file: Path, dtype: type[np.generic], shape: tuple[int | None, ...]
) -> npt.NDArray[Any]:
    """Return the array of an .npy file.

    Args:
        file: Written by `numpy.save`.
        dtype: The type that its numbers must have.
        shape: The length that each dimension must have; None stands for any.

    Raises:
        BuildError: The file holds something else.
        UnreadableError: The file cannot be read.
    """
    try:
        with reading(file):
            array = np.load(file)
    except (ValueError, EOFError, BadZipFile):
        # Pickled objects, other bytes, or nothing at all.
        array = None
    if (
        not isinstance(array, np.ndarray)
        or array.dtype != dtype
        or array.ndim != len(shape)
        or any(
            length not in (None, found) for length, found in zip(shape, array.shape, strict=True)
        )
    ):
        raise BuildError(f"{file}: not the array that belongs there: run `retrieval index`")
    return array
