"""Cores, threads and ordered parallel work, for every folder that computes in parallel."""

import contextlib
import functools
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from threadpoolctl import ThreadpoolController

# Packages that bring a BLAS of their own.
BLAS_PACKAGES = {"faiss", "numpy", "scipy.linalg", "sklearn", "torch"}


def available_cores() -> int:
    """Return the cores that this process may use, at least 1.

    Heeds the CPU affinity of the process and the quota of its control group (joblib knows both): a
    container with `--cpus 2` on a machine of 64 cores has two.
    """
    from joblib import cpu_count  # takes half a second, which a query should not wait

    return int(cpu_count())


@contextlib.contextmanager
def one_blas_thread() -> Iterator[None]:
    """Let matrix products in this process use one thread only, inside the `with` block.

    If several threads use this at once, the limit may stay in force afterwards. That is fine for
    a server, where many queries share the cores anyway.
    """
    loaded = frozenset(BLAS_PACKAGES & sys.modules.keys())
    with _controller(loaded).limit(limits=1, user_api="blas"):
        yield


@functools.lru_cache(maxsize=1)
def _controller(loaded: frozenset[str]) -> "ThreadpoolController":
    """Find the BLAS libraries of the process: a millisecond, spent again when more are loaded."""
    from threadpoolctl import ThreadpoolController

    return ThreadpoolController()


T = TypeVar("T")
R = TypeVar("R")

# Jobs in flight per thread: enough that no thread idles, few enough to bound the memory.
AHEAD = 4


def ordered_map(
    function: Callable[[T], R],
    items: Iterable[T],
    *,
    threads: int,
    ahead: int = AHEAD,
    enter: Callable[[], None] | None = None,
) -> Iterator[R]:
    """Yield `function(item)` in the order of `items`, computed on `threads` threads.

    At most `ahead` x `threads` items are in flight or wait for the consumer. Each thread calls
    `enter` first. An exception of `function` is raised here; after that, or when the consumer
    stops, no further item is started.
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
    """The work of one stage (decode or encode), summed over its threads or processes.

    Attributes:
        width: Number of threads or processes.
        busy: Seconds of wall time in which they had work.
        computing: Seconds of processor time that they used.
    """

    width: int
    busy: float
    computing: float

    def __sub__(self, earlier: "Stage") -> "Stage":
        """Return the work since `earlier`."""
        return Stage(self.width, self.busy - earlier.busy, self.computing - earlier.computing)
