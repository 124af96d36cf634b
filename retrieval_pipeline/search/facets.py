"""How many of some pictures are of each source, folder, year, place, camera and format."""

import functools
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.index.arrow import one_chunk
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.vectors import Flags, Numbers

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
    """

    sources: Mapping[str, int]
    folders: Mapping[str, int]
    years: Mapping[str, int]
    places: Mapping[str, int]
    cameras: Mapping[str, int]
    formats: Mapping[str, int]


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
        return Facets(
            sources=_frequent(self._counts("source", flags)),
            folders=self._folders(flags, folder),
            years=dict(sorted(self._counts("year", flags).items(), reverse=True)),
            places=_frequent(self._counts("place", flags)),
            cameras=_frequent(self._counts("camera", flags)),
            formats=_frequent(self._counts("format", flags)),
        )

    def _counts(self, kind: str, flags: Flags | None) -> Counter[str]:
        """Return how many of these items have each value; unknown ones are left out."""
        values, codes = self._columns[kind]
        chosen = codes if flags is None else codes[flags]
        counts = np.bincount(chosen[chosen >= 0], minlength=len(values)).tolist()
        return Counter({value: n for value, n in zip(values, counts, strict=True) if n})

    def _folders(self, flags: Flags | None, folder: str) -> dict[str, int]:
        start = f"{folder}/" if folder else ""
        found: Counter[str] = Counter()
        for path, count in self._counts("folder", flags).items():
            if path and path.startswith(start):
                found[path.removeprefix(start).partition("/")[0]] += count
        return dict(sorted(found.items()))

    @functools.cached_property
    def _columns(self) -> dict[str, tuple[list[str], Numbers]]:
        """The values of each kind, and the number of each item's; -1 if unknown."""
        corpus = self._corpus
        firsts = [pc.list_element(chunk, 0) for chunk in corpus.items["locations"].chunks]
        sources = pa.chunked_array([each.field("source") for each in firsts], pa.string())
        paths = pa.chunked_array([each.field("path") for each in firsts], pa.string())
        columns = {
            "source": _encoded(sources),
            "folder": _encoded(pc.replace_substring_regex(paths, "/?[^/]*$", "")),
            "format": _encoded(corpus.items["format"]),
        }
        facts = corpus.facts
        if facts is None:
            nothing: tuple[list[str], Numbers] = ([], np.full(len(corpus), -1))
            return columns | dict.fromkeys(("year", "place", "camera"), nothing)
        town = pc.binary_join_element_wise(
            facts["place"].cast(pa.string()), facts["country"].cast(pa.string()), ", "
        )
        taken = facts["taken_at"]
        years = pc.fill_null(taken, 0).to_numpy().astype("datetime64[us]").astype("datetime64[Y]")
        named = pa.array(years.astype(str).tolist(), pa.string(), mask=pc.is_null(taken).to_numpy())
        columns["year"] = _encoded(pa.chunked_array([named]))
        return columns | {
            "place": _encoded(town),
            "camera": _encoded(facts["camera"].cast(pa.string())),
        }


def _encoded(column: pa.ChunkedArray) -> tuple[list[str], Numbers]:
    """Return the values of a column of text, and the number of each row's; -1 for null."""
    encoded = one_chunk(column).dictionary_encode()
    codes: Numbers = pc.fill_null(encoded.indices, -1).to_numpy(zero_copy_only=False)
    return encoded.dictionary.to_pylist(), codes


def _frequent(counts: Counter[str]) -> dict[str, int]:
    return dict(counts.most_common(MOST_VALUES))
