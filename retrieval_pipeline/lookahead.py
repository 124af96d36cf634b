"""An ordered map over threads that reads only so far ahead of its consumer."""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")

# Jobs in flight for each thread: enough that none idles, few enough that memory stays bounded.
AHEAD = 4


def ordered_map(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    threads: int,
    ahead: int = AHEAD,
    enter: Callable[[], None] | None = None,
) -> Iterator[R]:
    """Yield `function(item)` in the order of `items`; at most `ahead` x threads are in flight.

    Each thread calls `enter` first. What `function` raises is raised here; then, or when the
    consumer stops, nothing more starts.
    """
    remaining = iter(items)
    pending: deque[Future[R]] = deque()
    with ThreadPoolExecutor(threads, initializer=enter) as pool:
        try:
            for item in islice(remaining, ahead * threads):
                pending.append(pool.submit(function, item))
            while pending:
                result = pending.popleft().result()
                for item in islice(remaining, 1):
                    pending.append(pool.submit(function, item))
                yield result
        finally:
            for future in pending:
                future.cancel()
