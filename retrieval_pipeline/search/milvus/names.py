"""The names of files and folders, as far as Milvus finds them without a list of all."""

import glob
from collections.abc import Callable

from retrieval_pipeline.search.milvus.expressions import like_of, quoted, some

# Spellings of one name that are told apart.
MOST_NAMES = 50


class NamesByExpression:
    """Finds names by expressions. Unlike those of a build, case matters, and folders are exact."""

    def __init__(self, names: Callable[[str, int], list[str]]) -> None:
        """Ask `names` for the names of the first files that pass an expression, so many at most."""
        self._names = names

    def named(self, name: str) -> list[str]:
        """Return the names that are this one, with or without its ending."""
        with_ending = f"name like {like_of(f'{glob.escape(name)}.*')[0]}"
        found = self._names(some([f"name == {quoted(name)}", with_ending]), MOST_NAMES)
        return [each for each in found if name in (each, each.rpartition(".")[0])]

    def like(self, text: str, count: int) -> list[str]:
        """Return names that begin with a text, `count` at most."""
        return self._names(f"name like {like_of(f'{glob.escape(text)}*')[0]}", count)

    def folders(self, folder: str) -> list[str]:
        """Return the folder if a file lies in it, in the source or further down."""
        escaped = glob.escape(folder)
        likes = (like_of(f"{escaped}/*")[0], like_of(f"*/{escaped}/*")[0])
        return [folder] if self._names(some(f"path like {each}" for each in likes), 1) else []

    def folders_like(self, text: str, count: int) -> list[str]:
        """Return none: folders are found by their whole names only."""
        return []
