"""The vocabulary: a few hundred things and scenes that photographs commonly show.

Its words are the text queries that a build is calibrated with, the yardstick for the scores of any
query, and the names of the map's regions.
"""

import functools
from importlib import resources


@functools.cache
def words() -> tuple[str, ...]:
    """Return the vocabulary: English nouns and short phrases, each once, in a fixed order."""
    text = resources.files("retrieval_pipeline.index").joinpath("vocabulary.txt").read_text("utf-8")
    return tuple(text.splitlines())
