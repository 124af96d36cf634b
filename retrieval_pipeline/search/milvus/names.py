"""The names of files and folders, as far as Milvus finds them without a list of all."""

import glob
import unicodedata
from collections.abc import Callable, Iterable

from retrieval_pipeline.index.milvus.client import Patterns
from retrieval_pipeline.search.file_names import MOST_NAMES, Folders
from retrieval_pipeline.search.milvus.expressions import begins, matching, quoted, some


class NamesByExpression(Folders):
    """Finds the names of first files by expressions, and folders among those told of."""

    def __init__(
        self,
        names: Callable[[str, int], list[str]],
        folders: Iterable[str],
        patterns: Patterns,
    ) -> None:
        """Find names.

        Args:
            names: Returns the names of the first files that pass an expression, so many at most.
            folders: Whole paths of folders.
            patterns: What the engine reads in patterns of `like`.
        """
        super().__init__(unicodedata.normalize("NFC", folder) for folder in folders)
        self._names = names
        self._patterns = patterns

    def named(self, name: str) -> list[str]:
        """Return the names that are this one, with or without its ending, as they are spelt."""
        folded = _folded(name)
        is_it = f"folded_name == {quoted(folded)}"
        found = self._names(some([is_it, begins("folded_name", f"{folded}.")]), MOST_NAMES)
        return [each for each in found if folded in (each.lower(), each.lower().rpartition(".")[0])]

    def like(self, text: str, count: int) -> list[str]:
        """Return names that begin with a text, then such that hold it, `count` at most."""
        folded = _folded(text)
        found = self._names(begins("folded_name", folded), count)
        if len(found) < count and self._patterns != "none":
            holding = matching("folded_name", f"*{glob.escape(folded)}*", self._patterns)[0]
            found += [
                name
                for name in self._names(holding, MOST_NAMES)
                if folded in name.lower() and name not in found
            ]
        return found[:count]

    def folders(self, folder: str) -> list[str]:
        """Return the folders, in a row, that are called so, each spelling once.

        Of too many folders not all are told of: the others are found as they are asked for, and
        only in the source itself by an engine that reads no patterns.
        """
        if found := super().folders(folder):
            return found
        within = [begins("path", f"{folder}/")]
        if self._patterns != "none":
            within.append(matching("path", f"*/{glob.escape(folder)}/*", self._patterns)[0])
        return [folder] if self._names(some(within), 1) else []


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).lower()
