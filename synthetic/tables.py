"""Manifests and embeddings written as the pipeline writes them, of invented content."""

import re
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval_pipeline.facts.model import PictureFacts
from retrieval_pipeline.facts.table import FactsRow, to_table
from retrieval_pipeline.storage.schemas import (
    GROUPED,
    MANIFEST,
    SIDECARS,
    VIEW_COLUMNS,
    embedding_schema,
    views_schema,
)
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, write_table
from retrieval_pipeline.vectors import Vectors, VectorSpace, normalise
from retrieval_pipeline.views import View


def content(name: str) -> str:
    """A content id for tests: the same name gives the same id, and an id itself."""
    if re.fullmatch("[0-9a-f]{32}", name):
        return name
    return sha256(name.encode()).hexdigest()[:32]


def random_vectors(count: int, dim: int, seed: int = 0) -> Vectors:
    """Directions without any structure, float32 (count, dim), of unit length."""
    return normalise(np.random.default_rng(seed).standard_normal((count, dim)))


def clustered(count: int, dim: int, seed: int = 0) -> Vectors:
    """Vectors that lie in clumps and mostly in few directions, as pictures of a collection do."""
    rng = np.random.default_rng(seed)
    spectrum = np.arange(1, dim + 1) ** -1.0
    centres = rng.standard_normal((40, dim))
    rows = centres[rng.integers(len(centres), size=count)] + rng.standard_normal((count, dim))
    return normalise(rows * spectrum)


def write_manifest(
    store: Store, source: str, files: Mapping[str, str], *, grouped: bool = False
) -> None:
    """Write a manifest of {path: name of its content}.

    With `grouped`, files of one photograph are one item.
    """
    rows = [
        {"path": path, "size": 1, "mtime_ns": 1, "content_id": content(name), "status": "ok"}
        for path, name in files.items()
    ]
    more = {GROUPED: b"true"} if grouped else None
    write_table(store.manifest(source), pa.Table.from_pylist(rows, schema=MANIFEST), more=more)


def write_sidecars(store: Store, source: str, paths: Sequence[str]) -> None:
    """Write the table of the files that belong to pictures without being any."""
    rows = [{"path": path, "size": 1, "mtime_ns": 1} for path in paths]
    write_table(store.sidecars(source), pa.Table.from_pylist(rows, schema=SIDECARS))


def write_part(
    store: Store,
    space: VectorSpace,
    source: str,
    names: Sequence[str],
    vectors: Vectors,
    size: tuple[int, int] = (640, 480),
) -> Path:
    """Write one embedding part with these contents' vectors, float32 (n, space.dim).

    `size` is the width and height of all pictures.
    """
    flat = pa.array(np.ascontiguousarray(vectors, np.float32).reshape(-1))
    columns = [
        pa.array([content(name) for name in names]),
        pa.FixedSizeListArray.from_arrays(flat, space.dim),
        pa.array([size[0]] * len(names), pa.int32()),
        pa.array([size[1]] * len(names), pa.int32()),
        pa.array(["JPEG"] * len(names)),
    ]
    path = store.next_part(space, source)
    write_table(path, pa.table(columns, schema=embedding_schema(space.dim)), space)
    return path


def write_view_part(
    store: Store,
    space: VectorSpace,
    source: str,
    rows: Sequence[tuple[str, View]],
    vectors: Vectors,
) -> Path:
    """Write one part with vectors, float32 (n, space.dim), of views of contents."""
    table = pa.table(
        [
            pa.array([content(name) for name, _ in rows]),
            *(pa.array([getattr(view, name) for _, view in rows]) for name in VIEW_COLUMNS),
            pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), space.dim),
        ],
        schema=views_schema(space.dim),
    )
    path = store.next_view_part(space, source)
    write_table(path, table, space)
    return path


def write_facts(store: Store, source: str, files: Mapping[str, PictureFacts]) -> None:
    """Write the facts of a source: path -> facts of that file, whose content its manifest knows."""
    manifest = read_manifest(store, source)
    contents = dict(
        zip(manifest["path"].to_pylist(), manifest["content_id"].to_pylist(), strict=True)
    )
    rows = [FactsRow(contents[path], path, None, facts) for path, facts in sorted(files.items())]
    write_table(store.facts(source), to_table(rows))
