import numpy as np
import pytest

from retrieval_pipeline.errors import VectorError
from retrieval_pipeline.vectors import check_vectors, normalise


def test_rows_are_scaled_to_unit_length_in_float32() -> None:
    rows = normalise(np.array([[3.0, 4.0], [0.0, 2.0]]))
    assert rows.dtype == np.float32
    np.testing.assert_allclose(rows, [[0.6, 0.8], [0.0, 1.0]])


@pytest.mark.parametrize("bad", [0.0, np.nan, np.inf])
def test_a_row_without_a_direction_is_refused(bad: float) -> None:
    with pytest.raises(VectorError, match="vector 1 is zero or not finite"):
        normalise(np.array([[1.0, 0.0], [bad, 0.0]]))


@pytest.mark.parametrize("length", [0.0, 0.99, 1.01, 10.0, np.nan, np.inf])
def test_a_stored_row_must_have_unit_length(length: float) -> None:
    with pytest.raises(VectorError, match="part x: vector 1 has length"):
        check_vectors(np.array([[1.0, 0.0], [length, 0.0]]), 2, "part x: vector")


def test_rounding_is_forgiven() -> None:
    rows = np.array([[1.0005, 0.0]])
    np.testing.assert_allclose(check_vectors(rows, 2), rows)


def test_rows_of_another_length_are_refused() -> None:
    with pytest.raises(VectorError, match=r"expected the shape \(n, 3\), found \(1, 2\)"):
        check_vectors(np.ones((1, 2)), 3)
