"""Builds of the version before segments: they are opened until the next run makes segments.

Such a build has all it tells of its items in files of its own, the vectors as float32 among them.
Its trees are not asked any more: a scan of the reduced vectors finds what they found, and an exact
scan where these find too little.
"""

import contextlib
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval_pipeline.errors import BuildError, StoreError
from retrieval_pipeline.index.arrow import as_matrix, no_rows
from retrieval_pipeline.index.autotune import Calibration
from retrieval_pipeline.index.blocks import ItemTables, map_table
from retrieval_pipeline.index.build_info import INFO_FILE, BuildInfo
from retrieval_pipeline.index.companions import COMPANION_COLUMNS, check_companions
from retrieval_pipeline.index.facts_table import FACTS_COLUMNS, check_facts
from retrieval_pipeline.index.hashed_files import check_files, remember_hashed
from retrieval_pipeline.index.items import ITEM_COLUMNS, check_items
from retrieval_pipeline.index.knn import SCAN, Plan, VectorIndex
from retrieval_pipeline.index.reduction import open_reduced
from retrieval_pipeline.index.runs import RowMap
from retrieval_pipeline.index.search_structures import BASIS_FILE, CODES_FILE, REDUCED_FILE
from retrieval_pipeline.index.segmented_index import Part, SegmentedIndex
from retrieval_pipeline.index.views import VIEW_ROW_COLUMNS, check_views
from retrieval_pipeline.vectors import Vectors

ITEMS_FILE = "items.arrow"
VIEWS_FILE = "views.arrow"
FACTS_FILE = "facts.arrow"
COMPANIONS_FILE = "companions.arrow"
VOCABULARY_FILE = "vocabulary.npy"


def open_former(
    path: Path, info: BuildInfo, *, rehash: bool = False
) -> tuple[ItemTables, SegmentedIndex]:
    """Check every file of a build against its build.json, then map the files into memory.

    Raises:
        BuildError: A file is missing or damaged.
        UnreadableError: A file cannot be read, which says nothing about its content.
    """
    if missing := {ITEMS_FILE, *([VIEWS_FILE] if info.views else [])} - set(info.files):
        raise BuildError(f"{path / INFO_FILE}: does not name {min(missing)}: run `retrieval index`")
    hashed = check_files(path, info.files, rehash=rehash)
    items, matrices = _with_vectors(path / ITEMS_FILE, ITEM_COLUMNS, info.dim)
    views = no_rows(VIEW_ROW_COLUMNS)
    if info.views:
        views, more = _with_vectors(path / VIEWS_FILE, VIEW_ROW_COLUMNS, info.dim)
        matrices += more
    tables = ItemTables(
        items,
        _table(path / FACTS_FILE, FACTS_COLUMNS) if FACTS_FILE in info.files else None,
        _table(path / COMPANIONS_FILE, COMPANION_COLUMNS)
        if COMPANIONS_FILE in info.files
        else no_rows(COMPANION_COLUMNS),
        views,
    )
    facts = tables.facts
    if (len(items), len(views)) != (info.items, info.views) or (
        facts is not None and len(facts) != info.items
    ):
        raise _other(path / ITEMS_FILE)
    if hashed:
        check_items(items, path / ITEMS_FILE)
        check_views(views, len(items), path / VIEWS_FILE)
        check_companions(tables.companions, len(items), path / COMPANIONS_FILE)
        if facts is not None:
            check_facts(facts, path / FACTS_FILE)
        # On a read-only disk every reader has to hash again.
        with contextlib.suppress(StoreError):
            remember_hashed(path, info.files)
    index = _vector_index(path, info, matrices)
    rows = len(index)
    runs = np.array([[0, 0, 0, rows]], np.int32)
    part = Part(index, _plan(index, info.calibration))
    return tables, SegmentedIndex([part], RowMap(runs, (rows,), rows))


def _with_vectors(file: Path, columns: pa.Schema, dim: int) -> tuple[pa.Table, list[Vectors]]:
    """Map a table with a column of vectors; return the other columns, and the vectors."""
    table = map_table(file)
    vectors = pa.field("embedding", pa.list_(pa.float32(), dim), nullable=False)
    if table.schema != columns.append(vectors):
        raise _other(file)
    matrices = [as_matrix(chunk, dim) for chunk in table["embedding"].chunks if len(chunk)]
    return table.drop_columns("embedding"), matrices


def _table(file: Path, columns: pa.Schema) -> pa.Table:
    table = map_table(file)
    if table.schema != columns:
        raise _other(file)
    return table


def _vector_index(path: Path, info: BuildInfo, matrices: list[Vectors]) -> VectorIndex:
    if not {BASIS_FILE, REDUCED_FILE} <= set(info.files):
        return VectorIndex(matrices)
    rows = info.items + info.views
    reduced = open_reduced(path / BASIS_FILE, path / REDUCED_FILE, rows)
    if len(reduced.basis) != info.dim:
        raise _other(path / BASIS_FILE)
    codes = path / CODES_FILE if CODES_FILE in info.files else None
    return VectorIndex(matrices, reduced, codes_file=codes)


def _plan(index: VectorIndex, calibration: Calibration) -> Plan:
    if index.reduced is None:
        return SCAN
    if calibration.plan.kind != "trees":
        return calibration.plan
    scans = [each for each in calibration.measured if each.plan.kind == "projected"]
    enough = [each.plan for each in scans if each.recall >= calibration.target]
    return enough[0] if enough else SCAN


def _other(file: Path) -> BuildError:
    return BuildError(f"{file}: not as build.json says: run `retrieval index`")
