"""How many threads NumPy multiplies with.

OpenBLAS splits even small products among all processors and waits for each in a busy loop. Where
other programs use the processors, a text took 60 ms to encode with one thread and 500 with two.
"""

import contextlib
import functools
from collections.abc import Iterator

from threadpoolctl import ThreadpoolController


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
