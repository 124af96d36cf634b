"""Images of a map in groups by a fact: the year, the camera or the country."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from retrieval_pipeline.facts.places import country_name
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.vectors import Numbers

UNKNOWN = "unknown"
# More groups of one kind than anybody tells apart: the smaller ones become one.
MOST_GROUPS = 40
OTHERS = "others"


@dataclass(frozen=True)
class Grouping:
    """Images in groups.

    Attributes:
        names: Of the groups; unknown comes last.
        group_of: int32 (n,), the number of each image's group.
    """

    names: tuple[str, ...]
    group_of: npt.NDArray[np.int32]


def groupings(corpus: Corpus, numbers: Numbers) -> dict[str, Grouping]:
    """Return the groups of these items by "year", "camera" and "country".

    Years ascend, and of the others the largest group comes first. What no item knows is left out.

    Args:
        corpus: Whose items they are.
        numbers: int64 (n,), of the items.
    """
    if corpus.facts is None:
        return {}
    rows = pa.array(numbers)
    columns: dict[str, tuple[str, Callable[[str], str]]] = {
        "camera": ("camera", str),
        "country": ("country", country_name),
    }
    texts = {
        kind: [value and name(value) for value in corpus.facts[column].take(rows).to_pylist()]
        for kind, (column, name) in columns.items()
    }
    taken = corpus.facts["taken_at"].take(rows)
    years = taken.fill_null(0).to_numpy().astype("datetime64[us]").astype("datetime64[Y]")
    known = taken.is_valid().to_pylist()
    texts["year"] = [str(year) if valid else None for year, valid in zip(years, known, strict=True)]
    return {
        kind: _grouping(texts[kind], by_name=kind == "year")
        for kind in ("year", "camera", "country")
        if any(texts[kind])
    }


def known_facts(corpus: Corpus) -> list[str]:
    """Return which of "year", "camera" and "country" any item of a corpus knows."""
    columns = {"year": "taken_at", "camera": "camera", "country": "country"}
    facts = corpus.facts
    if facts is None:
        return []
    return [kind for kind, column in columns.items() if facts[column].null_count < len(facts)]


def _grouping(values: list[str | None], *, by_name: bool) -> Grouping:
    names, group_of, counts = np.unique(
        [value or "" for value in values], return_inverse=True, return_counts=True
    )
    order = [number for number in np.argsort(-counts, kind="stable").tolist() if names[number]]
    kept, rest = order[:MOST_GROUPS], order[MOST_GROUPS:]
    if by_name:
        kept.sort()
    told = [str(names[number]) for number in kept] + ([OTHERS] if rest else [])
    number_of = np.full(len(names), len(kept), np.int32)
    number_of[kept] = np.arange(len(kept))
    if not names[0]:
        number_of[0] = len(told)
        told.append(UNKNOWN)
    return Grouping(tuple(told), number_of[group_of])
