"""The vectors of a build: those of its segments, under the row numbers of the build."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from retrieval_pipeline.index.knn import Plan, VectorIndex, largest, scores_of_rows, top
from retrieval_pipeline.index.matrices import products, rows_of
from retrieval_pipeline.index.runs import RowMap
from retrieval_pipeline.vectors import Numbers, Vectors


@dataclass
class Part:
    """The vectors of one segment, and how they are searched.

    Attributes:
        index: The vectors.
        plan: The plan that was measured to be the fastest with enough recall.
    """

    index: VectorIndex
    plan: Plan

    @property
    def usable_plan(self) -> Plan:
        """The plan; without loaded codes, a scan instead of codes."""
        return self.index.usable_plan(self.plan)


class SegmentedIndex:
    """The vectors of all segments of a build.

    Rows are those of the build, whichever segment they lie in.

    Attributes:
        parts: The segments.
        matrices: The full vectors of all segments, also of rows that have gone: float16 or float32
            (n, dim) each.
    """

    def __init__(self, parts: Sequence[Part], row_map: RowMap) -> None:
        self.parts = parts
        self.matrices = [matrix for part in parts for matrix in part.index.matrices]
        self._map = row_map

    def __len__(self) -> int:
        return self._map.rows

    def load_codes(self) -> None:
        """Read the codes of the segments whose plans use them.

        Raises:
            BuildError: Codes cannot be read.
        """
        for part in self.parts:
            part.index.load_codes_for(part.plan)

    @property
    def is_scanned(self) -> bool:
        """Whether all segments are searched by an exact scan."""
        return all(part.plan.kind == "scan" for part in self.parts)

    @cached_property
    def _places(self) -> Numbers | None:
        """For each row its place among the rows of `matrices`; None if these are the same."""
        return None if self._map.is_identity else self._map.places

    def _place(self, rows: Numbers) -> Numbers:
        return rows if self._places is None else self._places[rows]

    @cached_property
    def _gone(self) -> list[Numbers]:
        """For each segment which of its rows have gone."""
        return [self._map.gone(number) for number in range(len(self.parts))]

    def vectors(self, rows: Numbers) -> Vectors:
        """Return the full vectors of these rows, float32 (len(rows), dim)."""
        return rows_of(self.matrices, self._place(np.asarray(rows)))

    def scan(self, vectors: Vectors) -> Vectors:
        """Return the exact scores of every row: (rows,) for (dim,), (rows, n) for (n, dim)."""
        found = [products(matrix, vectors) for matrix in self.matrices]
        scores = found[0] if len(found) == 1 else np.concatenate(found)
        return scores if self._places is None else scores[self._places]

    def scores_of(self, vectors: Vectors, rows: Numbers) -> Vectors:
        """Return the exact scores of these rows: (n,) for (dim,), (n, m) for (m, dim)."""
        return scores_of_rows(self.matrices, vectors, self._place(rows))

    def best(self, vector: Vectors, count: int) -> tuple[Numbers, Vectors]:
        """Return the `count` best rows for `vector` (dim,) and their scores, best first.

        Each segment is searched by its plan. Of equal scores the smaller row comes first. All
        candidates of the plans, in exact order, come before all other rows, so that a smaller
        `count` gives the first part of what a larger one gives.

        Raises:
            ValueError: A plan needs a structure that its segment lacks or has not loaded.
        """
        found = list(self._candidates_and_scores(vector))
        rows = np.concatenate([rows for rows, _ in found])
        scores = np.concatenate([scores for _, scores in found])
        order, best = top(scores, count, rows)
        numbers = rows[order]
        if count > len(rows) and len(rows) < len(self):
            rest = self.scan(vector)
            rest[rows] = -np.inf
            others, more = top(rest, min(count, len(rest)) - len(rows))
            numbers, best = np.concatenate([numbers, others]), np.concatenate([best, more])
        return numbers, best

    def _candidates_and_scores(self, vector: Vectors) -> Iterator[tuple[Numbers, Vectors]]:
        for numbers in self._pools:
            first = self.parts[numbers[0]]
            if first.usable_plan.kind == "scan":
                scores = first.index.scan(vector)
                rows = self._map.rows_of_build[numbers[0]]
                if len(self._gone[numbers[0]]):
                    scores, rows = scores[rows >= 0], rows[rows >= 0]
                yield rows.astype(np.int64), scores
            else:
                proposed = self._proposed(vector, numbers)
                yield proposed, self.scores_of(vector, proposed)

    @cached_property
    def _pools(self) -> list[list[int]]:
        """Which segments propose candidates together, the largest of them first.

        Those whose vectors are reduced along the same basis: what they propose can be compared
        before full vectors are, which takes most of the time for a small segment.
        """
        pools: list[list[int]] = []
        bases: dict[bytes, tuple[Vectors, list[int]]] = {}
        for number, part in enumerate(self.parts):
            reduced = part.index.reduced if part.index.proposes_reduced else None
            if part.plan.kind == "scan" or reduced is None:
                pools.append([number])
            else:
                key = reduced.basis.tobytes()
                if key not in bases:
                    bases[key] = reduced.basis, []
                    pools.append(bases[key][1])
                basis, pool = bases[key]
                pool.append(number)
                # One array for all of them stays in the processor's cache.
                part.index.reduced = replace(reduced, basis=basis)
        for pool in pools:
            pool.sort(key=lambda number: -len(self.parts[number].index))
        return pools

    def _proposed(self, vector: Vectors, numbers: Sequence[int]) -> Numbers:
        """Return the rows that these segments propose: as many as their largest plan says."""
        plans = [self.parts[number].usable_plan for number in numbers]
        most = max(plan.candidates for plan in plans)
        found, about, least = [], [], -math.inf
        for number, plan in zip(numbers, plans, strict=True):
            index, gone = self.parts[number].index, self._gone[number]
            rows, scores = index.propose(vector, plan, gone, least)
            found.append(self._map.rows_of_build[number][rows])
            about.append(scores)
            # What is worse than so many of the largest segment, is not among the best of all.
            if len(rows) >= most:
                least = max(least, float(scores.min()))
        rows = np.concatenate(found).astype(np.int64)
        if len(numbers) > 1:
            rows = rows[largest(np.concatenate(about), most, rows)]
        return np.sort(rows)

    def candidates(self, vectors: Vectors, plan: Plan) -> list[Numbers]:
        """Return for each vector (n, dim) the rows that every segment proposes, ascending.

        A segment that lacks what the plan needs proposes as many rows by an exact scan.
        """
        found: list[list[Numbers]] = [[] for _ in vectors]
        for number, part in enumerate(self.parts):
            rows, gone = self._map.rows_of_build[number], self._gone[number]
            usable = part.index.usable_plan(plan)
            if not part.index.supports(usable):
                scores = part.index.scan(vectors)
                scores[gone] = -np.inf
                count = min(plan.candidates or len(rows), len(rows) - len(gone))
                proposed = [largest(column, count, rows) for column in scores.T]
            else:
                proposed = [part.index.candidates(vector, usable, gone) for vector in vectors]
            for each, mine in zip(found, proposed, strict=True):
                each.append(rows[mine].astype(np.int64))
        return [np.sort(np.concatenate(each)) for each in found]
