"""How the command line loads its libraries in the least time; the first module of ours to run."""

import gc
import os
import sys

# pydantic asks every installed package whether it is a plugin of pydantic, which takes longer than
# checking the settings. A plugin could only watch that.
os.environ.setdefault("PYDANTIC_DISABLE_PLUGINS", "__all__")

# OpenBLAS, which comes with NumPy, starts a thread for each core, and each of them would spin for
# 2^26 ticks (27 ms) before it sleeps. 2^20 ticks still span the pauses between the products of one
# query. https://github.com/OpenMathLib/OpenBLAS#environment-variables
os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "20")

# Imports make 100,000 objects that live as long as the process. Looking through them again and
# again for garbage took a tenth of the time of an `index` run with nothing new.
gc.set_threshold(10_000)


def load_arrow_without_pandas() -> None:
    """Import pyarrow, and have it take pandas for missing, unless something has imported pandas.

    pyarrow imports pandas, if it is installed, when it makes the first array from a list, only to
    ask whether the list is a Series. That takes half a second, more than an unchanged
    `retrieval index` takes in all. It asks once. `to_pandas` and `from_pandas` still import pandas;
    what would be slow is handing a Series to `pyarrow.array`, which no command does.
    """
    if "pandas" in sys.modules:
        return
    import pyarrow as pa

    hidden = _NoPandas()
    sys.meta_path.insert(0, hidden)
    try:
        pa.array([True])
    finally:
        sys.meta_path.remove(hidden)


class _NoPandas:
    """A finder for `sys.meta_path`; the base class in importlib.abc is not needed, and slow."""

    def find_spec(self, fullname: str, *_: object) -> None:
        if fullname == "pandas":
            raise ModuleNotFoundError("pandas is left out", name=fullname)
