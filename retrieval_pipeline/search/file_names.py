"""The names of the files and folders of a corpus, for what people type of them."""

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.index.corpus import Corpus

# Spellings of one name that are told apart, and names in a list of suggestions.
MOST_NAMES = 50


class Folders:
    """Finds folders among whole paths of folders; case does not matter. Thread-safe."""

    def __init__(self, folders: Iterable[str]) -> None:
        self._folders = [folder for folder in folders if folder]

    def folders(self, folder: str) -> list[str]:
        """Return the folders, in a row, that are called so, each spelling once.

        "2019/lisbon" is that of "trips/2019/Lisbon/second day" in lower case.
        """
        wanted = folder.lower().split("/")
        found: dict[str, None] = {}
        for parts in self._parts():
            folded = [part.lower() for part in parts]
            for start in range(len(parts) - len(wanted) + 1):
                if folded[start : start + len(wanted)] == wanted:
                    found["/".join(parts[start : start + len(wanted)])] = None
        return [*found][:MOST_NAMES]

    def folders_like(self, text: str, count: int) -> list[str]:
        """Return folders, from the source on, whose last name begins with a text."""
        folded = text.lower()
        found: dict[str, None] = {}
        for parts in self._parts():
            for end, part in enumerate(parts, 1):
                if part.lower().startswith(folded):
                    found["/".join(parts[:end])] = None
            if len(found) >= count:
                break
        return [*found][:count]

    def _parts(self) -> Iterator[Sequence[str]]:
        return (folder.split("/") for folder in self._folders)


class FileNames(Folders):
    """File and folder names of a corpus, each once; case does not matter. Thread-safe."""

    def __init__(self, corpus: Corpus) -> None:
        paths = pa.chunked_array(
            [chunk.flatten().field("path") for chunk in corpus.items["locations"].chunks],
            pa.string(),
        )
        self._names = pc.unique(pc.replace_substring_regex(paths, "^.*/", ""))
        self._folded = pc.utf8_lower(self._names)
        super().__init__(pc.unique(pc.replace_substring_regex(paths, "/?[^/]*$", "")).to_pylist())

    def named(self, name: str) -> list[str]:
        """Return the names that are this one, with or without its ending, as they are spelt."""
        folded = name.lower()
        stems = pc.replace_substring_regex(self._folded, r"\.[^.]*$", "")
        return self._those(pc.or_(pc.equal(self._folded, folded), pc.equal(stems, folded)))

    def like(self, text: str, count: int) -> list[str]:
        """Return names that begin with a text, then such that hold it, `count` at most."""
        folded = text.lower()
        found = self._those(pc.starts_with(self._folded, folded))[:count]
        if len(found) < count:
            holding = self._those(pc.match_substring(self._folded, folded))
            found += [name for name in holding if name not in found][: count - len(found)]
        return found

    def _those(self, flags: pa.BooleanArray) -> list[str]:
        names: list[str] = self._names.filter(flags).slice(0, MOST_NAMES).to_pylist()
        return names
