"""Facets of the pictures in Milvus, which counts what passes an expression, and not by value.

All pictures were counted when they were published. A few are read and counted here. Else the engine
counts the pictures with each value, one after the other: a bounded number of short questions.
"""

import threading
import time
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from cachetools import LRUCache

from retrieval_pipeline.index.milvus.schema import UNKNOWN
from retrieval_pipeline.search.facets import MOST_VALUES, Facets, folders_in
from retrieval_pipeline.search.milvus.expressions import (
    Passing,
    begins,
    checks_of,
    every,
    quoted,
)

# The kinds of values, as `about.values_of` tells them, in the order in which they are counted.
KINDS = ("year", "source", "camera", "place", "format", "folder")
# The fields of a picture that its values are made of.
FIELDS = ("source", "path", "format", "camera", "place", "country", "taken_at")

# Pictures that are read and counted here: a tenth of a second.
READ_HERE = 1_000
# Values of a kind that the engine counts: of more, those that the most of all pictures have.
MOST_COUNTED = 2 * MOST_VALUES
# Of years and folders, all are shown.
MOST_OF_ALL = 60
# Seconds of counting after which the rest is left out: the page waits for it. What was counted is
# remembered, so the next page counts more.
SECONDS = 1.0
# What is told of filters that only a look at each picture decides.
NOT_COUNTED = "Too many pictures would have to be looked at to count those that pass the filters."
# Answers that are remembered, of some KB.
REMEMBERED = 256

# The values of a kind and how many pictures have each; of a place [town, country code, count].
Told = Sequence[Sequence[Any]]


class ValueCounter:
    """Counts facets, of one publication. Thread-safe."""

    def __init__(
        self,
        told: Mapping[str, Told],
        count: Callable[[Passing], int],
        read: Callable[[Passing], Iterable[Mapping[str, Any]]],
    ) -> None:
        """Count by asking the engine.

        Args:
            told: The values of all pictures, by KINDS.
            count: Returns how many pictures pass; it remembers what it was asked.
            read: Returns FIELDS of the pictures that pass.
        """
        self._all = {
            kind: Counter({", ".join(map(str, names)): count for *names, count in told[kind]})
            for kind in KINDS
        }
        self._count = count
        self._read = read
        # In the form that the engine has paths in.
        folders: Counter[str] = Counter()
        for path, n in self._all["folder"].items():
            folders[unicodedata.normalize("NFC", path)] += n
        self._all["folder"] = folders
        self._lock = threading.Lock()
        self._remembered: LRUCache[Any, Facets] = LRUCache(REMEMBERED)

    def count(self, selection: Passing, folder: str) -> Facets:
        """Count the values of the pictures that pass.

        Args:
            selection: Expressions; none for all pictures.
            folder: The folder whose folders are counted; "" for the sources' own.
        """
        if not selection:
            return Facets.of(self._all, folder)
        if checks_of(selection):
            return Facets.of({kind: Counter() for kind in KINDS}, folder, (NOT_COUNTED,))
        asked = selection, folder
        with self._lock:
            known = self._remembered.get(asked)
        if known is not None:
            return known
        if self._count(selection) <= READ_HERE:
            found, is_all = Facets.of(_counted_here(self._read(selection)), folder), True
        else:
            found, is_all = self._ask(selection, folder)
        if is_all:
            with self._lock:
                self._remembered[asked] = found
        return found

    def _ask(self, selection: Passing, folder: str) -> tuple[Facets, bool]:
        """Have the engine count; return also whether there was time for all."""
        end = time.monotonic() + SECONDS
        counts: dict[str, Counter[str]] = {}
        late, cut = [], []
        for kind in KINDS:
            values = self._all[kind]
            if kind == "folder":
                values = Counter(folders_in(folder, values.items()))
            most = MOST_OF_ALL if kind in ("year", "folder") else MOST_COUNTED
            if len(values) > most:
                cut.append(kind)
            found = counts[kind] = Counter()
            for value, _ in values.most_common(most):
                if time.monotonic() > end:
                    late.append(kind)
                    break
                found[value] = self._count(selection | {self._having(kind, value, folder)})
        start = f"{folder}/" if folder else ""
        counts["folder"] = Counter({f"{start}{name}": n for name, n in counts["folder"].items()})
        notes = []
        if late:
            notes.append(f"The engine took too long to count all of {_listed(late)}.")
        if cut := [kind for kind in cut if kind not in late]:
            notes.append(f"Only those {_listed(cut)} are counted that most of all pictures have.")
        positive = {kind: +found for kind, found in counts.items()}
        return Facets.of(positive, folder, tuple(notes)), not late

    def _having(self, kind: str, value: str, folder: str) -> str:
        """Return the expression of the pictures with a value."""
        if kind == "year":
            start, end = (np.datetime64(year, "us").astype(np.int64) for year in _years(value))
            return every([f"taken_at >= {start}", f"taken_at < {end}"])
        if kind == "place":
            town, country = value.rsplit(", ", 1)
            return every([f"place == {quoted(town)}", f"country == {quoted(country)}"])
        if kind == "folder":
            return begins("path", f"{folder}/{value}/" if folder else f"{value}/")
        return f"{kind} == {quoted(value)}"


def _counted_here(rows: Iterable[Mapping[str, Any]]) -> dict[str, Counter[str]]:
    counts: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    for row in rows:
        counts["source"][row["source"]] += 1
        counts["folder"][row["path"].rpartition("/")[0]] += 1
        counts["format"][row["format"]] += 1
        if row["camera"] != UNKNOWN["camera"]:
            counts["camera"][row["camera"]] += 1
        if row["place"] != UNKNOWN["place"] and row["country"] != UNKNOWN["country"]:
            counts["place"][f"{row['place']}, {row['country']}"] += 1
        if row["taken_at"] != UNKNOWN["taken_at"]:
            counts["year"][str(np.datetime64(row["taken_at"], "us").astype("datetime64[Y]"))] += 1
    return counts


def _years(year: str) -> tuple[str, str]:
    """Return a year and the next one."""
    return year, f"{int(year) + 1:04}"


def _listed(kinds: Sequence[str]) -> str:
    return ", ".join(f"{kind}s" for kind in kinds)
