"""Finding the rows nearest to a vector: an exact scan, or candidates that are re-ranked.

A plan names the way. All but the exact scan propose candidates from something smaller than the full
vectors (reduced vectors, codes or trees), and the full vectors put them into exact order.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from retrieval_pipeline.index.ann import Trees
from retrieval_pipeline.index.matrices import Matrix, placed, products, products_of_rows
from retrieval_pipeline.index.quantization import Codes, read_codes
from retrieval_pipeline.index.reduction import ReducedVectors
from retrieval_pipeline.storage.stored_model import StoredModel
from retrieval_pipeline.vectors import Numbers, Vectors

# To guess which of many scores are among the largest, one of so many is looked at.
SAMPLE_STEP = 16


class Plan(StoredModel):
    """How to find the best items for a query.

    Attributes:
        kind: What proposes the candidates. "projected" is a scan of all reduced vectors, "codes" a
            scan of their codes, "trees" a query of Annoy's trees; "scan" compares all full vectors,
            without candidates.
        candidates: How many items are proposed and then re-ranked; 0 for "scan".
        search_k: For "trees", how many nodes Annoy looks at; for "codes", how many items are
            compared by 8-bit codes; otherwise 0.
    """

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
    """Vectors and the structures that speed up the search in them, such as those of a segment.

    Attributes:
        matrices: The full vectors, float16 or float32 (n, dim), with rows numbered from 0.
        reduced: The reduced vectors; None if the full ones are few or short.
        trees: Over all vectors; None if there are none.
        trees_are_reduced: True if the trees index reduced vectors, False if full ones.
        codes_file: Codes of the reduced vectors; None if there are none.
        codes: What `codes_file` holds; None until `load_codes_for` has read it.
    """

    matrices: Sequence[Matrix]
    reduced: ReducedVectors | None = None
    trees: Trees | None = None
    trees_are_reduced: bool = False
    codes_file: Path | None = None
    codes: Codes | None = field(default=None, init=False)

    def __len__(self) -> int:
        return sum(map(len, self.matrices))

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

    @property
    def proposes_reduced(self) -> bool:
        """Whether every plan compares reduced vectors before it proposes rows."""
        return self.reduced is not None and (self.trees is None or self.trees_are_reduced)

    def supports(self, plan: Plan) -> bool:
        """Tell whether candidates can be proposed by a plan."""
        structures = {"trees": self.trees, "projected": self.reduced, "codes": self.codes}
        return structures.get(plan.kind) is not None

    def scan(self, vectors: Vectors) -> Vectors:
        """Return the exact scores of every row: (rows,) for (dim,), (rows, n) for (n, dim)."""
        found = [products(matrix, vectors) for matrix in self.matrices]
        return found[0] if len(found) == 1 else np.concatenate(found)

    def scores_of(self, vectors: Vectors, rows: Numbers) -> Vectors:
        """Return the exact scores of these rows: (n,) for (dim,), (n, m) for (m, dim)."""
        return scores_of_rows(self.matrices, vectors, rows)

    def candidates(self, vector: Vectors, plan: Plan, gone: Numbers | None = None) -> Numbers:
        """Return the rows that `plan` proposes for `vector` (dim,), ascending; as `propose`."""
        return np.sort(self.propose(vector, plan, gone)[0])

    def propose(
        self,
        vector: Vectors,
        plan: Plan,
        gone: Numbers | None = None,
        least: float = -math.inf,
    ) -> tuple[Numbers, Vectors]:
        """Return the rows that `plan` proposes for `vector` (dim,), and about how they score.

        Scores are products with reduced vectors or their codes. They can be compared with those of
        other vectors that are reduced along the same basis.

        Args:
            vector: The query.
            plan: How to look. As many rows as it says are proposed, if there are as many.
            gone: Rows that are not proposed, ascending; None for none.
            least: Rows with smaller scores are not proposed.

        Raises:
            ValueError: The plan is a scan, or it needs a structure that this index lacks or has not
                loaded.
        """
        rows, scores = self._proposed(vector, plan, gone, least)
        enough = scores >= least
        return rows[enough], scores[enough]

    def _proposed(
        self, vector: Vectors, plan: Plan, gone: Numbers | None, least: float
    ) -> tuple[Numbers, Vectors]:
        gone = np.empty(0, np.int64) if gone is None else gone
        if plan.kind == "projected":
            scores = self._reduced(plan).vectors @ self._reduced(plan).reduce(vector)
            scores[gone] = -np.inf
            # Selecting the best takes longer than finding those that are good enough.
            good = np.flatnonzero(scores >= least) if least > -math.inf else None
            if good is not None and len(good) <= plan.candidates:
                return good, scores[good]
            return top(scores, min(plan.candidates, len(scores) - len(gone)))
        if not len(gone):
            return self._nearest(vector, plan)
        wanted = min(plan.candidates, len(self) - len(gone))
        # In proportion at first: mostly as many are gone among the nearest as among all.
        factor = len(self) / max(len(self) - len(gone), 1)
        while True:
            asked = Plan(
                kind=plan.kind,
                candidates=min(math.ceil(plan.candidates * factor), len(self)),
                search_k=math.ceil(plan.search_k * factor),
            )
            rows, scores = self._nearest(vector, asked)
            stays = ~np.isin(rows, gone, assume_unique=True)
            if stays.sum() >= wanted or asked.candidates == len(self):
                return rows[stays], scores[stays]
            factor *= 2

    def _nearest(self, vector: Vectors, plan: Plan) -> tuple[Numbers, Vectors]:
        if plan.kind == "codes":
            if self.codes is None:
                raise ValueError("the codes are not loaded")
            short = self._reduced(plan).reduce(vector)
            return self.codes.nearest(short, plan.candidates, plan.search_k)
        if plan.kind == "scan" or self.trees is None:
            raise ValueError(f"there is nothing to search by: {plan}")
        asked = self._reduced(plan).reduce(vector) if self.trees_are_reduced else vector
        return self.trees.nearest(asked, plan.candidates, plan.search_k)

    def _reduced(self, plan: Plan) -> ReducedVectors:
        if self.reduced is None:
            raise ValueError(f"vectors without a projection cannot be searched by {plan}")
        return self.reduced


def scores_of_rows(matrices: Sequence[Matrix], vectors: Vectors, rows: Numbers) -> Vectors:
    """Return the exact scores of some rows of all matrices: (n,) for (dim,), (n, m) for (m, dim).

    Args:
        matrices: float16 or float32 (n, dim) each; their rows are numbered one after the other.
        vectors: float32 (dim,) or (m, dim).
        rows: In any order.
    """
    scores = np.empty((len(rows), *vectors.shape[:-1]), np.float32)
    for number, here, within in placed(matrices, rows):
        # Gathering a large share of the rows would take longer than the product with all of them.
        if 4 * len(within) >= len(matrices[number]):
            scores[here] = products(matrices[number], vectors)[within]
        else:
            scores[here] = products_of_rows(matrices[number], within, vectors)
    return scores


def evenly_spaced(items: int, count: int) -> Numbers:
    """Return up to `count` item numbers, evenly spaced from the first of `items` to the last."""
    return np.linspace(0, items - 1, min(items, count)).astype(np.int64)


def top(
    scores: Vectors, count: int, rank: npt.NDArray[np.integer] | None = None
) -> tuple[Numbers, Vectors]:
    """Return the positions of the `count` largest scores, and these scores, best first.

    Of equal scores that of the smaller `rank`, int (n,), comes first; by default the first.
    """
    numbers = largest(scores, count, rank)
    return numbers, scores[numbers]


def largest(scores: Vectors, count: int, rank: npt.NDArray[np.integer] | None = None) -> Numbers:
    """Return the positions of the `count` largest scores (n,), best first.

    The result is that of a stable sort in descending order; of equal scores that of the smaller
    `rank`, int (n,), comes first, by default the first.
    """
    count = min(count, len(scores))
    if count == 0:
        return np.empty(0, np.int64)
    found = np.arange(len(scores))
    # A sample of the scores suggests a lower bound. Selecting among the scores above it is a tenth
    # of the work of selecting among all.
    sample = scores[::SAMPLE_STEP]
    place = 2 * count // SAMPLE_STEP + 10
    if place < len(sample) // 4:
        bound = np.partition(sample, len(sample) - place)[len(sample) - place]
        above = np.flatnonzero(scores >= bound)
        if len(above) >= count:
            found = above
    candidates = scores[found]
    least = np.partition(candidates, len(found) - count)[len(found) - count]
    found = found[candidates >= least]
    order = np.lexsort((found if rank is None else rank[found], -scores[found]))
    best: Numbers = found[order[:count]]
    return best
