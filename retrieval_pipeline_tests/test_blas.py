import contextlib

import numpy as np
from threadpoolctl import threadpool_info, threadpool_limits

from retrieval_pipeline.concurrency import one_blas_thread


def blas_threads() -> set[int]:
    np.ones((2, 2)) @ np.ones((2, 2))
    return {each["num_threads"] for each in threadpool_info() if each["user_api"] == "blas"}


def test_one_thread_multiplies_inside_and_as_many_as_before_afterwards() -> None:
    with threadpool_limits(2, "blas"):
        with one_blas_thread():
            with one_blas_thread():
                assert blas_threads() == {1}
            assert blas_threads() == {1}
        assert blas_threads() == {2}


def test_an_error_inside_gives_the_threads_back() -> None:
    @one_blas_thread()
    def fail() -> None:
        assert blas_threads() == {1}
        raise ZeroDivisionError

    with threadpool_limits(2, "blas"):
        for _ in range(2):
            with contextlib.suppress(ZeroDivisionError):
                fail()
            assert blas_threads() == {2}
