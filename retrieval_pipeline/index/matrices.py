"""Matrices of stored vectors, float16 or float32: their rows, and their products with queries.

Processors without AVX-512 compute with float32 only, and NumPy converts float16 without the
processor's help, one number after the other. `to_float32` moves the bits of many numbers at a time
instead, which takes a fifth of the time and gives the same numbers.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.vectors import Numbers, Vectors

# float16 or float32, (n, dim).
Matrix = npt.NDArray[np.floating]

# Rows that are converted and multiplied at a time: small enough for the processor's cache. All
# products are of so many rows, the last one filled up, so that equal vectors have equal scores
# wherever they lie: BLAS adds in another order in products of another height.
PRODUCT_ROWS = 256
# Rows that are gathered and multiplied at a time: from 128 KiB on, the allocator takes fresh pages
# from the system, and those cost more than the copy.
GATHERED_ROWS = 32

# A float16 is a sign, 5 bits of exponent and 10 of fraction; a float32 has 8 and 23. Moved up by 13
# bits the fraction is in place, and the exponent too small by the difference of the biases.
_FRACTION_SHIFT = 13
_WITHOUT_COPIES_OF_THE_SIGN = np.array(0x8FFFE000, np.uint32).view(np.int32)[()]
_BIASES = np.float32(2.0 ** (127 - 15))


def to_float32(rows: Matrix) -> Vectors:
    """Return rows (n, dim) as float32: a copy of float16, float32 as it is.

    The numbers are finite: vectors are checked before they are stored.
    """
    if rows.dtype == np.float32:
        return rows
    bits = rows.view(np.int16).astype(np.int32)
    return _shifted(bits) * _BIASES


def _shifted(bits: npt.NDArray[np.int32]) -> Vectors:
    """Turn the bits of float16 numbers into float32 numbers, in place; they lack _BIASES."""
    bits <<= _FRACTION_SHIFT
    bits &= _WITHOUT_COPIES_OF_THE_SIGN
    return bits.view(np.float32)


def products(matrix: Matrix, vectors: Vectors) -> Vectors:
    """Return the products of all rows, (n, dim), with vectors.

    The result is float32 (n,) for one vector (dim,), and (n, m) for (m, dim).
    """
    result = np.empty((len(matrix), *vectors.shape[:-1]), np.float32)
    whole = len(matrix) - len(matrix) % PRODUCT_ROWS
    right = vectors.T
    if matrix.dtype == np.float32:
        for start in range(0, whole, PRODUCT_ROWS):
            np.matmul(
                matrix[start : start + PRODUCT_ROWS],
                right,
                out=result[start : start + PRODUCT_ROWS],
            )
        if whole < len(matrix):
            result[whole:] = _filled_up(matrix[whole:], right, PRODUCT_ROWS)
        return result
    right = right * _BIASES
    half, bits = matrix.view(np.int16), np.zeros((PRODUCT_ROWS, matrix.shape[1]), np.int32)
    for start in range(0, len(matrix), PRODUCT_ROWS):
        part = half[start : start + PRODUCT_ROWS]
        bits[: len(part)] = part
        result[start : start + PRODUCT_ROWS] = (_shifted(bits) @ right)[: len(part)]
    return result


def products_of_rows(matrix: Matrix, numbers: Numbers, vectors: Vectors) -> Vectors:
    """Return the products of some rows with vectors: (n,) for (dim,), (n, m) for (m, dim)."""
    result = np.empty((len(numbers), *vectors.shape[:-1]), np.float32)
    for start in range(0, len(numbers), GATHERED_ROWS):
        rows = to_float32(matrix[numbers[start : start + GATHERED_ROWS]])
        result[start : start + len(rows)] = _filled_up(rows, vectors.T, GATHERED_ROWS)
    return result


def _filled_up(rows: Vectors, right: Vectors, height: int) -> Vectors:
    if len(rows) == height:
        filled = rows
    else:
        filled = np.zeros((height, rows.shape[1]), np.float32)
        filled[: len(rows)] = rows
    product: Vectors = (filled @ right)[: len(rows)]
    return product


def rows_of(matrices: Sequence[Matrix], numbers: Numbers) -> Vectors:
    """Return these rows of all matrices, float32 (len(numbers), dim).

    Args:
        matrices: float16 or float32 (n, dim) each; their rows are numbered one after the other.
        numbers: In any order.
    """
    result = np.empty((len(numbers), matrices[0].shape[1]), np.float32)
    for number, here, rows in placed(matrices, numbers):
        result[here] = to_float32(matrices[number][rows])
    return result


def placed(
    parts: Sequence[Matrix], numbers: Numbers
) -> Iterator[tuple[int, Numbers | slice, Numbers]]:
    """Yield for each part that some numbers lie in: which it is, which numbers, and their rows.

    Args:
        parts: Whose rows are numbered one after the other.
        numbers: In any order.
    """
    if len(parts) == 1:
        yield 0, slice(None), numbers
        return
    starts = np.cumsum([0, *map(len, parts)])
    part = np.searchsorted(starts, numbers, side="right") - 1
    for number in np.flatnonzero(np.bincount(part, minlength=len(parts))):
        here = np.flatnonzero(part == number)
        yield int(number), here, numbers[here] - starts[number]


def in_float32(matrices: Sequence[Matrix], rows: int) -> Iterator[Vectors]:
    """Yield all rows in their order, at most so many at a time, as float32 (n, dim)."""
    for matrix in matrices:
        for start in range(0, len(matrix), rows):
            yield to_float32(matrix[start : start + rows])
