"""How many processor cores there are for this process."""

import os


def available_cores() -> int:
    """Return the cores that this process may use, at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
