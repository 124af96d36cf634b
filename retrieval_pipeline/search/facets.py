"""How many of some pictures are of each source, folder, year, place, camera and format."""

import functools
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.index.item_values import Coded, counted, values_of_items
from retrieval_pipeline.vectors import Flags

# Values of one facet: the most frequent ones; of years and folders all.
MOST_VALUES = 12


@dataclass(frozen=True)
class Facets:
    """Values of each kind and how many pictures have them; a kind that nothing knows is empty.

    Attributes:
        sources: By the first file of each picture, as folders are.
        folders: Names of the folders right below the one that was asked about.
        years: Latest first.
        places: Towns with their country, "Lisbon, PT", the most frequent first.
        cameras: The most frequent first.
        formats: The most frequent first.
        notes: What was not counted.
    """

    sources: Mapping[str, int]
    folders: Mapping[str, int]
    years: Mapping[str, int]
    places: Mapping[str, int]
    cameras: Mapping[str, int]
    formats: Mapping[str, int]
    notes: tuple[str, ...] = ()

    @classmethod
    def of(
        cls, counts: Mapping[str, Counter[str]], folder: str, notes: tuple[str, ...] = ()
    ) -> "Facets":
        """Return the facets of counted values.

        Args:
            counts: By the kinds of `item_values.values_of_items`; "folder" has whole paths.
            folder: The folder whose folders are told, relative to its source; "" for all of them.
            notes: What was not counted.
        """
        return cls(
            sources=_frequent(counts["source"]),
            folders=folders_in(folder, counts["folder"].items()),
            years=dict(sorted(counts["year"].items(), reverse=True)),
            places=_frequent(counts["place"]),
            cameras=_frequent(counts["camera"]),
            formats=_frequent(counts["format"]),
            notes=notes,
        )


class FacetCounter:
    """Counts the facets of the items of a corpus, whose columns it prepares once. Thread-safe."""

    def __init__(self, corpus: Corpus) -> None:
        self._corpus = corpus

    def count(self, flags: Flags | None, folder: str = "") -> Facets:
        """Count the values of some items.

        Args:
            flags: Which items, bool (items,); None for all.
            folder: Relative to its source, without a slash at its end; "" for the sources' own.
        """
        return Facets.of(
            {kind: counted(coded, flags) for kind, coded in self._columns.items()}, folder
        )

    @functools.cached_property
    def _columns(self) -> Mapping[str, Coded]:
        return values_of_items(self._corpus.items, self._corpus.facts)


def folders_in(folder: str, counts: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Return the names of the folders right below one, and how much is in each, at any depth.

    Args:
        folder: Relative to its source; "" for the sources' own.
        counts: Of whole paths of folders.
    """
    start = f"{folder}/" if folder else ""
    found: Counter[str] = Counter()
    for path, count in counts:
        if path and path.startswith(start):
            found[path.removeprefix(start).partition("/")[0]] += count
    return dict(sorted(found.items()))


def _frequent(counts: Counter[str]) -> dict[str, int]:
    """Return the most frequent values; of equally frequent ones the first by name."""
    ranked = sorted(counts.items(), key=lambda each: (-each[1], each[0]))
    return dict(ranked[:MOST_VALUES])
