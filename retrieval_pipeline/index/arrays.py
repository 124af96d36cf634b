"""Reading the NumPy arrays of a build, whose files may not hold what their names say."""

from pathlib import Path
from typing import Any, Literal
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
    return _checked(file, dtype, shape, None)


def map_array(
    file: Path, dtype: type[np.generic], shape: tuple[int | None, ...]
) -> npt.NDArray[Any]:
    """Map the array of an .npy file into memory, to be read only; otherwise as `load_array`."""
    array = np.asarray(_checked(file, dtype, shape, "r"))
    if not array.flags.c_contiguous:
        raise _other(file)
    return array


def _checked(
    file: Path,
    dtype: type[np.generic],
    shape: tuple[int | None, ...],
    mode: Literal["r"] | None,
) -> npt.NDArray[Any]:
    try:
        with reading(file):
            array = np.load(file, mmap_mode=mode)
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
        raise _other(file)
    return array


def _other(file: Path) -> BuildError:
    return BuildError(f"{file}: not the array that belongs there: run `retrieval index`")
