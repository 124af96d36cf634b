"""Ways to the items nearest to a vector: scan all, scan less of each, or ask Annoy's trees.

All but the first propose candidates, which whoever asks puts into exact order by their full
vectors.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from annoy import AnnoyIndex
from pydantic import BaseModel, ConfigDict

from retrieval_pipeline.index.items import BATCH_ROWS
from retrieval_pipeline.index.quantization import Codes
from retrieval_pipeline.vectors import Numbers, Vectors

# The principal components that stand for a vector: at a million items a scan reads a sixth of
# what 768 dimensions take, and Annoy's file is a sixth as large.
COMPONENTS = 128
# Rows from which the components are computed: their directions settle well below it.
COMPONENT_ROWS = 100_000
# One of so many scores is looked at to guess which are among the largest.
SAMPLE_STEP = 16
# Rows are gathered so many bytes at a time: the allocator takes fresh pages from the system for
# anything from 128 KiB on, and those cost more than the copy.
GATHERED_BYTES = 96 * 1024


class Plan(BaseModel):
    """How to find the best items of a query.

    Attributes:
        kind: "scan" compares all full vectors, "projected" all projected ones, "codes" their
            codes; "trees" asks Annoy.
        candidates: How many items the others than "scan" propose for exact ordering.
        search_k: How many nodes Annoy looks at, or how many codes get a second look.
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


@dataclass(frozen=True)
class Projection:
    """Vectors seen along the principal components of their collection.

    Attributes:
        basis: Orthonormal columns, float32 (dim, components).
        vectors: The projected items, each scaled to unit length, float32 (items, components).
    """

    basis: Vectors
    vectors: Vectors


@dataclass(frozen=True)
class Trees:
    """Annoy's trees over some of the items.

    Attributes:
        annoy: They are open.
        numbers: The item of each vector in them, int (n,); -1 for one that is gone.
    """

    annoy: AnnoyIndex
    numbers: Numbers

    def nearest(self, vector: Vectors, plan: Plan) -> Numbers:
        """Return the items that they propose for `vector`."""
        found = self.annoy.get_nns_by_vector(vector.tolist(), plan.candidates, plan.search_k)
        numbers = self.numbers[found]
        return numbers[numbers >= 0]


@dataclass(frozen=True)
class Nearest:
    """The vectors of a collection and what speeds up the search in them.

    Attributes:
        matrices: The full vectors, BATCH_ROWS in each matrix but the last.
        projection: What "projected" scans; None where the full vectors are few or short.
        trees: Over the projected vectors, or over the full ones; of different items. None at all
            while they are not grown.
        projected_trees: Which of the two.
        codes: Of the projected vectors; None if there are none.
    """

    matrices: Sequence[Vectors]
    projection: Projection | None = None
    trees: Sequence[Trees] = ()
    projected_trees: bool = False
    codes: Codes | None = None

    def usable(self, plan: Plan) -> Plan:
        """Return the plan; while the codes are not loaded, the scan that they stand for."""
        if plan.kind == "codes" and not (self.codes and self.codes.loaded):
            return Plan(kind="projected", candidates=plan.candidates)
        return plan

    def load_for(self, plan: Plan) -> None:
        """Read the codes if the plan asks them, so that it is usable; see `Codes.load`."""
        if plan.kind == "codes" and self.codes is not None:
            self.codes.load()

    def vectors(self, numbers: Numbers) -> Vectors:
        """Return the full vectors of these items, float32 (len(numbers), dim)."""
        return rows_of(self.matrices, numbers)

    def scan(self, vectors: Vectors) -> Vectors:
        """Return the exact scores of every item: (items,) for (dim,), (items, n) for (n, dim)."""
        return np.concatenate([matrix @ vectors.T for matrix in self.matrices])

    def scores_of(self, vectors: Vectors, numbers: Numbers) -> Vectors:
        """Return the exact scores of these items: (n,) for (dim,), (n, m) for (m, dim)."""
        # Few rows are gathered; of many, copying would take longer than the product.
        if 4 * len(numbers) >= sum(map(len, self.matrices)):
            return self.scan(vectors)[numbers]
        scores = np.empty((len(numbers), *vectors.shape[:-1]), np.float32)
        chunk, row = np.divmod(numbers, BATCH_ROWS)
        step = max(GATHERED_BYTES // (4 * vectors.shape[-1]), 1)
        for number in np.unique(chunk):
            here = np.flatnonzero(chunk == number)
            for start in range(0, len(here), step):
                some = here[start : start + step]
                scores[some] = self.matrices[number][row[some]] @ vectors.T
        return scores

    def best(self, vector: Vectors, count: int, plan: Plan) -> tuple[Numbers, Vectors]:
        """Return the `count` best items for `vector` (dim,) and their scores.

        Of equal scores the first item comes first, and a smaller `count` gives the head of what a
        larger one gives: what the plan proposed, in exact order, then all others.
        """
        if plan.kind == "scan":
            return top(self.scan(vector), count)
        proposed = self.candidates(vector, plan)
        order, scores = top(self.scores_of(vector, proposed), count)
        numbers = proposed[order]
        if count > len(numbers):
            rest = self.scan(vector)
            rest[proposed] = -np.inf
            others, more = top(rest, min(count, len(rest)) - len(numbers))
            numbers, scores = np.concatenate([numbers, others]), np.concatenate([scores, more])
        return numbers, scores

    def candidates(self, vector: Vectors, plan: Plan) -> Numbers:
        """Return the items that `plan` proposes for `vector` (dim,), ascending."""
        if plan.kind == "trees" and not self.projected_trees:
            return self._ask_trees(vector, plan)
        if self.projection is None:
            raise ValueError(f"a build without a projection cannot be searched by {plan}")
        short = vector @ self.projection.basis
        if plan.kind == "trees":
            return self._ask_trees(short, plan)
        if plan.kind == "codes":
            if self.codes is None or not self.codes.loaded:
                raise ValueError("the codes are not loaded")
            return np.sort(self.codes.nearest(short, plan.candidates, plan.search_k))
        return np.sort(largest(self.projection.vectors @ short, plan.candidates))

    def _ask_trees(self, vector: Vectors, plan: Plan) -> Numbers:
        if not self.trees:
            raise ValueError("the trees are not there yet")
        return np.sort(np.concatenate([trees.nearest(vector, plan) for trees in self.trees]))


def rows_of(matrices: Sequence[Vectors], numbers: Numbers) -> Vectors:
    """Return these rows of matrices of BATCH_ROWS rows each, float32 (len(numbers), dim)."""
    result = np.empty((len(numbers), matrices[0].shape[1]), np.float32)
    chunk, row = np.divmod(numbers, BATCH_ROWS)
    for number in np.unique(chunk):
        here = chunk == number
        result[here] = matrices[number][row[here]]
    return result


def spread(items: int, count: int) -> Numbers:
    """Return up to `count` of so many items, evenly spread."""
    return np.linspace(0, items - 1, min(items, count)).astype(np.int64)


def top(scores: Vectors, count: int) -> tuple[Numbers, Vectors]:
    """Return where the `count` largest scores are and what they are, best first."""
    numbers = largest(scores, count)
    return numbers, scores[numbers]


def largest(scores: Vectors, count: int) -> Numbers:
    """Return where the `count` largest scores are, best first; of equal ones the first."""
    count = min(count, len(scores))
    if count == 0:
        return np.empty(0, np.int64)
    found = np.arange(len(scores))
    # Of many scores, those above a bound that a sample suggests are a tenth of the work to select.
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


def principal_components(matrices: Sequence[Vectors], count: int) -> Vectors:
    """Return the directions that hold most of the vectors' length, float32 (dim, count).

    The eigenvectors of the second moment, not of the covariance: keeping inner products matters
    here, not keeping differences (Eckart and Young, 1936).
    """
    step = -(-sum(map(len, matrices)) // COMPONENT_ROWS)
    dim = matrices[0].shape[1]
    moment = np.zeros((dim, dim))
    for matrix in matrices:
        rows = matrix[::step]
        moment += rows.T @ rows
    directions = np.linalg.eigh(moment)[1]
    return np.ascontiguousarray(directions[:, : -count - 1 : -1], np.float32)
