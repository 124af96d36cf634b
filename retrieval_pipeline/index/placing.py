"""Which segments a build has: those of the build before, merged ones, and one for what is new."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property, partial

import numpy as np

from retrieval_pipeline.errors import BuildError, UnreadableError
from retrieval_pipeline.index.build_info import BuildInfo
from retrieval_pipeline.index.inputs import Inputs
from retrieval_pipeline.index.items import read_vectors
from retrieval_pipeline.index.matrices import Matrix
from retrieval_pipeline.index.row_keys import RowKeys, find, no_keys
from retrieval_pipeline.index.runs import RowsOfBuild
from retrieval_pipeline.index.segment import (
    Segment,
    SegmentSettings,
    open_segment,
    write_segment,
)
from retrieval_pipeline.index.tiers import largest_segment, to_merge
from retrieval_pipeline.progress import Progress
from retrieval_pipeline.storage.schemas import embedding_schema, views_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Numbers, Vectors


@dataclass(frozen=True)
class Placed:
    """Segments, and which rows of a build theirs are.

    Attributes:
        segments: The segments.
        rows: For each segment the rows of the build that its rows are; -1 for others.
    """

    segments: list[Segment]
    rows: list[RowsOfBuild]

    @cached_property
    def alive(self) -> list[int]:
        """How many rows of each segment are rows of the build."""
        return [int((rows >= 0).sum()) for rows in self.rows]


def place(segments: Sequence[Segment], keys: RowKeys) -> Placed:
    """Find the rows of segments in a build; segments without any of its rows are left out.

    Of a row that several segments have, that of the first counts.

    Args:
        segments: The segments.
        keys: What identifies each row of the build.
    """
    everywhere = find(np.concatenate([no_keys(), *(segment.keys for segment in segments)]), keys)
    taken = np.zeros(len(keys), np.bool_)
    useful, rows, start = [], [], 0
    for segment in segments:
        found = everywhere[start : start + len(segment)]
        start += len(segment)
        found[(found >= 0) & taken[found]] = -1
        taken[found[found >= 0]] = True
        if found.max(initial=-1) >= 0:
            useful.append(segment)
            rows.append(found)
    return Placed(useful, rows)


def open_segments(store: Store, settings: SegmentSettings, info: BuildInfo) -> list[Segment]:
    """Open the segments of an earlier build that one with these settings may share.

    Vectors that are left out are read from the tables again.
    """
    found = []
    for entry in info.segments:
        with contextlib.suppress(BuildError, UnreadableError):
            segment = open_segment(store.segments(settings.space) / entry.name, settings.space.key)
            if segment.info.precision == settings.precision and len(segment.keys):
                found.append(segment)
    return found


def write_segments(
    store: Store,
    settings: SegmentSettings,
    tables: Inputs,
    placed: Placed,
    texts: Vectors | None,
    progress: Progress,
    *,
    anew: bool = False,
) -> Placed:
    """Write segments for the rows that are in none, and merge others with them.

    Args:
        store: Where segments are.
        settings: What segments are made with.
        tables: What the build is made from.
        placed: Segments of the build before.
        texts: Vectors of the vocabulary, float32 (n, dim); None if they are not known.
        progress: Told about stages and items.
        anew: Write new segments even if there are sound ones of the same names.

    Returns:
        All segments of the build.

    Raises:
        StoreError: A table is damaged, or the file system refused.
        VectorError: A stored vector is not of unit length.
    """
    largest = largest_segment(settings.space.dim * np.dtype(settings.precision).itemsize)
    again = to_merge(
        [len(segment) for segment in placed.segments],
        placed.alive,
        len(tables.keys) - sum(placed.alive),
        largest,
    ) | {
        number
        for number, segment in enumerate(placed.segments)
        if segment.info.settings != settings.digest(len(segment))
    }
    kept = [number for number, alive in enumerate(placed.alive) if alive and number not in again]
    source = RowSource(settings, tables, placed)
    missing = np.ones(len(tables.keys), np.bool_)
    for number in kept:
        rows = placed.rows[number]
        missing[rows[rows >= 0]] = False
    segments = [placed.segments[number] for number in kept]
    rows_of = [placed.rows[number] for number in kept]
    for wanted in source.divided(np.flatnonzero(missing), largest):
        keys = tables.keys[wanted]
        path = store.segments(settings.space) / settings.name(keys)
        read = partial(source.read, wanted, progress)
        basis = _common_basis(segments)
        write_segment(path, settings, keys, read, basis, texts, progress, anew=anew)
        segments.append(open_segment(path, settings.space.key))
        rows_of.append(wanted.astype(np.int32))
    return Placed(segments, rows_of)


def _common_basis(segments: Sequence[Segment]) -> Vectors | None:
    """Return the basis of the largest segment that has one; None if none has."""
    for segment in sorted(segments, key=len, reverse=True):
        if (reduced := segment.vector_index.reduced) is not None:
            return reduced.basis
    return None


@dataclass(frozen=True)
class RowSource:
    """Where the vectors of a build's rows are now.

    Attributes:
        settings: What segments are made with.
        tables: What the build is made from: the tables hold all vectors.
        placed: Segments that hold some of them.
    """

    settings: SegmentSettings
    tables: Inputs
    placed: Placed

    @cached_property
    def _places(self) -> Numbers:
        """For each row its place in the segments, one after the other; -1 for none."""
        places = np.full(len(self.tables.keys), -1, np.int64)
        start = 0
        for rows in self.placed.rows:
            here = np.flatnonzero(rows >= 0)
            places[rows[here]] = start + here
            start += len(rows)
        return places

    def divided(self, rows: Numbers, largest: int) -> Iterator[Numbers]:
        """Divide rows into segments, and yield the rows of each, ascending.

        Where one segment cannot hold them, each has such as are stored together, so that every
        table is read about once.
        """
        count = -(-len(rows) // largest)
        if count > 1:
            items = self.tables.items
            stored = np.concatenate([items.rows, self.tables.views.rows])
            is_view = rows >= len(items)
            order = np.lexsort((stored[rows], is_view, self._places[rows]))
            rows = rows[order]
        for some in np.array_split(rows, count) if count else ():
            yield np.sort(some)

    def read(self, rows: Numbers, progress: Progress) -> Matrix:
        """Return the vectors of rows, ascending, in the precision of the segments."""
        dim, items = self.settings.space.dim, self.tables.items
        progress.start("writing the index", len(rows), "images")
        vectors = np.empty((len(rows), dim), np.dtype(self.settings.precision))
        places, start = self._places[rows], 0
        for segment in self.placed.segments:
            here = np.flatnonzero((places >= start) & (places < start + len(segment)))
            (matrix,) = segment.vector_index.matrices
            vectors[here] = matrix[places[here] - start]
            start += len(segment)
            progress.advance(len(here))
        own = np.flatnonzero((places < 0) & (rows < len(items)))
        read_vectors(items, embedding_schema(dim), rows[own], vectors, own)
        further = np.flatnonzero((places < 0) & (rows >= len(items)))
        views, schema = self.tables.views, views_schema(dim)
        read_vectors(views, schema, rows[further] - len(items), vectors, further)
        progress.advance(len(own) + len(further))
        progress.finish()
        return vectors
