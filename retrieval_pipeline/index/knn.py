"""Finding the rows nearest to a vector: an exact scan, or candidates that are re-ranked.

A plan names the way. All but the exact scan propose candidates from something smaller than the full
vectors (reduced vectors, codes or trees), and the full vectors put them into exact order.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict

from retrieval_pipeline.index.ann import Trees
from retrieval_pipeline.index.quantization import Codes, read_codes
from retrieval_pipeline.index.reduction import ReducedVectors
from retrieval_pipeline.vectors import Numbers, Vectors

# To guess which of many scores are among the largest, one of so many is looked at.
SAMPLE_STEP = 16
# Rows are gathered so many bytes at a time: from 128 KiB on, the allocator takes fresh pages from
# the system, and those cost more than the copy.
GATHERED_BYTES = 96 * 1024


class Plan(BaseModel):
    """How to find the best items for a query.

    Attributes:
        kind: What proposes the candidates. "projected" is a scan of all reduced vectors, "codes" a
            scan of their codes, "trees" a query of Annoy's trees; "scan" compares all full vectors,
            without candidates.
        candidates: How many items are proposed and then re-ranked; 0 for "scan".
        search_k: For "trees", how many nodes Annoy looks at; for "codes", how many items are
            compared by 8-bit codes; otherwise 0.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: Literal["scan", "projected", "codes", "trees"]
    candidates: int = 0
    search_k: int = 0

    def __str__(self) -> str:
        if self.kind == "scan":
            return "exact scan"
        how = {
            "projected": "projected scan",
            "codes": f"scan of codes ({self.search_k:,} looked at twice)",
            "trees": f"trees (search_k {self.search_k:,})",
        }[self.kind]
        return f"{how}, {self.candidates:,} candidates in exact order"


SCAN = Plan(kind="scan")


@dataclass
class VectorIndex:
    """The vectors of a collection and the structures that speed up the search in them.

    "Items" are here the rows of `matrices`, numbered from 0: `rows.Rows` tells which items of a
    build they belong to.

    Attributes:
        matrices: The full vectors, float32 (n, dim) each.
        reduced: The reduced vectors; None if the full ones are few or short.
        trees: Each over some of the items, together over all; empty while they are not grown yet.
        trees_are_reduced: True if the trees index reduced vectors, False if full ones.
        codes_file: Codes of the reduced vectors; None if the build has none.
        codes: What `codes_file` holds; None until `load_codes_for` has read it.
    """

    matrices: Sequence[Vectors]
    reduced: ReducedVectors | None = None
    trees: Sequence[Trees] = ()
    trees_are_reduced: bool = False
    codes_file: Path | None = None
    codes: Codes | None = field(default=None, init=False)

    def load_codes_for(self, plan: Plan) -> None:
        """Read the codes if the plan needs them, there are any and faiss is installed.

        Raises:
            BuildError: The file is gone, or the installed faiss cannot read it.
        """
        if plan.kind == "codes" and self.codes is None and self.codes_file is not None:
            self.codes = read_codes(self.codes_file)

    def usable_plan(self, plan: Plan) -> Plan:
        """Return the plan, or instead of codes that are not loaded the scan that they speed up."""
        if plan.kind == "codes" and self.codes is None:
            return Plan(kind="projected", candidates=plan.candidates)
        return plan

    def vectors(self, numbers: Numbers) -> Vectors:
        """Return the full vectors of these items, float32 (len(numbers), dim)."""
        return rows_of(self.matrices, numbers)

    def scan(self, vectors: Vectors) -> Vectors:
        """Return the exact scores of every item: (items,) for (dim,), (items, n) for (n, dim)."""
        return np.concatenate([matrix @ vectors.T for matrix in self.matrices])

    def scores_of(self, vectors: Vectors, numbers: Numbers) -> Vectors:
        """Return the exact scores of these items: (n,) for (dim,), (n, m) for (m, dim)."""
        # Gathering a large share of the rows would take longer than the product with all of them.
        if 4 * len(numbers) >= sum(map(len, self.matrices)):
            return self.scan(vectors)[numbers]
        scores = np.empty((len(numbers), *vectors.shape[:-1]), np.float32)
        matrix, row = _places(self.matrices, numbers)
        step = max(GATHERED_BYTES // (4 * vectors.shape[-1]), 1)
        for number in np.unique(matrix):
            here = np.flatnonzero(matrix == number)
            for start in range(0, len(here), step):
                some = here[start : start + step]
                scores[some] = self.matrices[number][row[some]] @ vectors.T
        return scores

    def best(self, vector: Vectors, count: int, plan: Plan) -> tuple[Numbers, Vectors]:
        """Return the `count` best items for `vector` (dim,) and their scores, best first.

        Of equal scores the item with the smaller number comes first. All candidates of the plan, in
        exact order, come before all other items, so that a smaller `count` gives the first part of
        what a larger one gives.

        Raises:
            ValueError: The plan needs a structure that this index lacks or has not loaded.
        """
        if plan.kind == "scan":
            return top(self.scan(vector), count)
        candidates = self.candidates(vector, plan)
        order, scores = top(self.scores_of(vector, candidates), count)
        numbers = candidates[order]
        if count > len(numbers):
            rest = self.scan(vector)
            rest[candidates] = -np.inf
            others, more = top(rest, min(count, len(rest)) - len(numbers))
            numbers, scores = np.concatenate([numbers, others]), np.concatenate([scores, more])
        return numbers, scores

    def candidates(self, vector: Vectors, plan: Plan) -> Numbers:
        """Return the numbers of the items that `plan` proposes for `vector` (dim,), ascending.

        Raises:
            ValueError: The plan is a scan, or it needs a structure that this index lacks or has not
                loaded.
        """
        if plan.kind == "trees" and not self.trees_are_reduced:
            return self._ask_trees(vector, plan)
        if self.reduced is None:
            raise ValueError(f"a build without a projection cannot be searched by {plan}")
        short = self.reduced.reduce(vector)
        if plan.kind == "trees":
            return self._ask_trees(short, plan)
        if plan.kind == "codes":
            if self.codes is None:
                raise ValueError("the codes are not loaded")
            return np.sort(self.codes.nearest(short, plan.candidates, plan.search_k))
        return np.sort(largest(self.reduced.vectors @ short, plan.candidates))

    def _ask_trees(self, vector: Vectors, plan: Plan) -> Numbers:
        if not self.trees:
            raise ValueError("the trees are not there yet")
        found = [trees.nearest(vector, plan.candidates, plan.search_k) for trees in self.trees]
        return np.sort(np.concatenate(found))


def rows_of(matrices: Sequence[Vectors], numbers: Numbers) -> Vectors:
    """Return these rows of all matrices, float32 (len(numbers), dim).

    Args:
        matrices: float32 (n, dim) each.
        numbers: In any order.
    """
    result = np.empty((len(numbers), matrices[0].shape[1]), np.float32)
    matrix, row = _places(matrices, numbers)
    for number in np.unique(matrix):
        here = matrix == number
        result[here] = matrices[number][row[here]]
    return result


def _places(matrices: Sequence[Vectors], numbers: Numbers) -> tuple[Numbers, Numbers]:
    """Return for each row of all matrices which matrix it lies in, and where."""
    starts = np.cumsum([0, *map(len, matrices)])
    matrix = np.searchsorted(starts, numbers, side="right") - 1
    return matrix, numbers - starts[matrix]


def evenly_spaced(items: int, count: int) -> Numbers:
    """Return up to `count` item numbers, evenly spaced from the first of `items` to the last."""
    return np.linspace(0, items - 1, min(items, count)).astype(np.int64)


def top(scores: Vectors, count: int) -> tuple[Numbers, Vectors]:
    """Return the positions of the `count` largest scores, and these scores, best first."""
    numbers = largest(scores, count)
    return numbers, scores[numbers]


def largest(scores: Vectors, count: int) -> Numbers:
    """Return the positions of the `count` largest scores (n,), best first; of equal ones the first.

    The result is that of a stable sort in descending order.
    """
    count = min(count, len(scores))
    if count == 0:
        return np.empty(0, np.int64)
    found = np.arange(len(scores))
    # A sample of the scores suggests a lower bound. Selecting among the scores above it is a tenth
    # of the work of selecting among all.
    sample = scores[::SAMPLE_STEP]
    rank = 2 * count // SAMPLE_STEP + 10
    if rank < len(sample) // 4:
        bound = np.partition(sample, len(sample) - rank)[len(sample) - rank]
        above = np.flatnonzero(scores >= bound)
        if len(above) >= count:
            found = above
    candidates = scores[found]
    least = np.partition(candidates, len(found) - count)[len(found) - count]
    found = found[candidates >= least]
    best: Numbers = found[np.lexsort((found, -scores[found]))[:count]]
    return best
