"""A few hundred things and scenes that photographs commonly show: a yardstick for any query.

The index is calibrated with them, a query's scores are compared with theirs, and the regions of the
map are named after them.
"""

import functools
from importlib import resources


@functools.cache
def words() -> tuple[str, ...]:
    """Return the vocabulary: English nouns and short phrases, each once, in a fixed order."""
    text = resources.files("retrieval_pipeline.index").joinpath("vocabulary.txt").read_text("utf-8")
    return tuple(text.splitlines())
