"""Threads, cores and the order of work: shared by everything that computes in parallel."""

import contextlib
import functools
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

from threadpoolctl import ThreadpoolController


def available_cores() -> int:
    """Return the cores that this process may use, at least 1.

    joblib asks the affinity of the process and the quota of its control group: a container with
    `--cpus 2` on a machine of 64 cores has two.
    """
    from joblib import cpu_count  # half a second of imports, which a query does not need

    return int(cpu_count())


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Multiply with one thread in this process meanwhile.

    After it was used by several threads at once, the process may stay with one: what serves many
    queries at a time has no use for more.
    """
    with _controller().limit(limits=1, user_api="blas"):
        yield


@functools.cache
def _controller() -> ThreadpoolController:
    # Looking for the libraries of the process takes a millisecond.
    return ThreadpoolController()


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


@dataclass(frozen=True)
class Stage:
    """What the threads or processes of a stage did together.

    Attributes:
        width: How many there were.
        busy: Seconds in which they had work, summed over them.
        computing: Seconds of processor time that it took.
    """

    width: int
    busy: float
    computing: float

    def __sub__(self, earlier: "Stage") -> "Stage":
        """Return what was done since."""
        return Stage(self.width, self.busy - earlier.busy, self.computing - earlier.computing)
