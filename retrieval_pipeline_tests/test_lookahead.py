import threading

import pytest

from retrieval_pipeline.concurrency import AHEAD, ordered_map


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
