import contextlib
import os
import threading

import numpy as np
import pytest
from threadpoolctl import threadpool_info, threadpool_limits

from retrieval_pipeline.concurrency import AHEAD, available_cores, one_blas_thread, ordered_map


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


def test_results_come_in_the_order_of_the_items() -> None:
    assert list(ordered_map(lambda n: n * n, range(100), threads=4)) == [n * n for n in range(100)]


def test_no_more_items_are_taken_than_the_consumer_needs_soon() -> None:
    taken: list[int] = []

    def items():
        for number in range(1000):
            taken.append(number)
            yield number

    results = ordered_map(lambda n: n, items(), threads=2)
    assert next(results) == 0
    assert len(taken) == 2 * AHEAD + 1


def test_an_error_reaches_the_consumer_and_stops_the_rest() -> None:
    done = threading.Event()

    def work(number: int) -> int:
        if number == 3:
            raise ValueError("three")
        if number > 50:
            done.set()
        return number

    with pytest.raises(ValueError, match="three"):
        list(ordered_map(work, range(1000), threads=2))
    assert not done.is_set()


def test_the_cores_are_those_that_the_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 1 <= available_cores() <= (os.cpu_count() or 1)
    monkeypatch.setenv("LOKY_MAX_CPU_COUNT", "1")  # as a container's quota would
    assert available_cores() == 1
