"""The names of files and folders, as far as Milvus finds them without a list of all."""

import glob
from collections.abc import Callable

from retrieval_pipeline.index.milvus.client import Patterns
from retrieval_pipeline.search.milvus.expressions import begins, matching, quoted, some

# Spellings of one name that are told apart.
MOST_NAMES = 50


class NamesByExpression:
    """Finds names by expressions. Unlike those of a build, case matters, and folders are exact."""

    def __init__(self, names: Callable[[str, int], list[str]], patterns: Patterns) -> None:
        """Find names.

        Args:
            names: Returns the names of the first files that pass an expression, so many at most.
            patterns: What the engine reads in patterns of `like`.
        """
        self._names = names
        self._patterns = patterns

    def named(self, name: str) -> list[str]:
        """Return the names that are this one, with or without its ending."""
        found = self._names(
            some([f"name == {quoted(name)}", begins("name", f"{name}.")]), MOST_NAMES
        )
        return [each for each in found if name in (each, each.rpartition(".")[0])]

    def like(self, text: str, count: int) -> list[str]:
        """Return names that begin with a text, `count` at most."""
        return self._names(begins("name", text), count)

    def folders(self, folder: str) -> list[str]:
        """Return the folder if a file lies in it, in the source or further down.

        An engine that reads no patterns finds only folders that lie in the source itself.
        """
        within = [begins("path", f"{folder}/")]
        if self._patterns != "none":
            within.append(matching("path", f"*/{glob.escape(folder)}/*", self._patterns)[0])
        return [folder] if self._names(some(within), 1) else []

    def folders_like(self, text: str, count: int) -> list[str]:
        """Return none: folders are found by their whole names only."""
        return []
