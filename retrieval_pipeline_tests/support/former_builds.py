"""Builds as the version before segments wrote them: files of their own, float32, with trees."""

import json
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval_pipeline.index.ann import write_trees
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.index.hashed_files import FileFacts
from retrieval_pipeline.index.reduction import principal_components, write_reduced
from retrieval_pipeline.progress import Quiet
from retrieval_pipeline.storage.store import Store

# Rows that came after the trees had been grown.
DELTA = 20


def make_former(store: Store, build: Build, plan: dict[str, object]) -> Path:
    """Write a build of the former format with the items of `build`, and make it the current one.

    Its trees are over reduced vectors, its delta trees over the last DELTA rows, and its scan of
    reduced vectors finds enough.
    """
    path = build.path.with_name("20250101T000000.000000Z-00000000")
    path.mkdir()
    rows, dim = len(build.vector_index), build.info.dim
    vectors = build.vectors(np.arange(rows))
    embedding = pa.field("embedding", pa.list_(pa.float32(), dim), nullable=False)
    column = pa.FixedSizeListArray.from_arrays(pa.array(vectors.reshape(-1)), dim)
    with pa.ipc.new_file(str(path / "items.arrow"), build.items.schema.append(embedding)) as file:
        file.write_table(
            build.items.append_column(embedding, column).combine_chunks(), max_chunksize=100
        )
    np.save(path / "basis.npy", principal_components([vectors], 128))
    reduced = write_reduced(path / "basis.npy", path / "projected.f32", [vectors]).vectors
    np.save(path / "places.npy", np.arange(rows - DELTA, dtype=np.int32))
    trees = {
        name: write_trees(path / name, [some], Quiet()).model_dump()
        for name, some in (
            ("vectors.annoy", reduced[:-DELTA]),
            ("newcomers.annoy", reduced[-DELTA:]),
        )
    }
    measured = [
        {"plan": each, "recall_image": 0.999, "recall_text": None, "p50_ms": 1.0}
        for each in ({"kind": "projected", "candidates": rows // 2}, plan)
    ]
    info = json.loads(build.info.model_dump_json())
    for name in ("segments", "blocks", "vocabulary_vectors"):
        del info[name]
    info |= {"format": 4, "inputs": "former", "vocabulary": None}
    info |= {"trees": trees, "tree_components": 128}
    info["calibration"] |= {"plan": plan, "measured": measured}
    info["files"] = {file.name: FileFacts.of(file).model_dump() for file in sorted(path.iterdir())}
    (path / "build.json").write_text(json.dumps(info))
    store.publish(path)
    return path
