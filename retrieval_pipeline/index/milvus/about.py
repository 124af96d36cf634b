"""What is told of the whole of a collection, in another one beside it: `schema.about_schema`."""

import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np
import pyarrow as pa

from retrieval_pipeline.index.item_values import counted, values_of_items
from retrieval_pipeline.index.milvus.client import Client
from retrieval_pipeline.index.milvus.schema import (
    JSON_BYTES,
    KEY,
    VECTOR,
    PublishedInfo,
    about_name,
    json_bytes,
)
from retrieval_pipeline.index.milvus.tables import TableRows
from retrieval_pipeline.vectors import Numbers, Vectors

# Rows of a call.
ROWS_AT_ONCE = 256
# Folders that are told of: a megabyte, which each server that answers keeps in memory.
MOST_FOLDERS = 20_000
# Seconds after which every reader of a server sees a deletion: twice Milvus's `gracefulTime`, by
# which answers of the consistency level "Bounded", the default, may lag behind.
SEEN_WITHIN = 10.0


def made_row(dim: int, token: str) -> dict[str, Any]:
    """Return the row by which a collection is known to be of a home."""
    return {KEY: "made", VECTOR: _first_axis(dim), "data": {"token": token}}


def tell(
    client: Client,
    collection: str,
    token: str,
    info: PublishedInfo,
    rows: TableRows,
    sample: tuple[Numbers, Vectors],
    texts: Vectors | None,
) -> None:
    """Write what is known of a whole collection, in the place of what was known before.

    Args:
        client: The engine.
        collection: Whose rows it is about.
        token: Tells whose the collection is.
        info: The publication.
        rows: What the collection holds.
        sample: Rows that stand for all, and their vectors.
        texts: The vectors of the vocabulary; None if there are none.

    Raises:
        EngineError: The engine cannot be asked, or refuses.
    """
    axis = _first_axis(info.dim)
    told: dict[str, tuple[Any, Any]] = {"info": (axis, info.model_dump(mode="json"))}
    for number, vector in enumerate([] if texts is None else texts):
        told[f"word/{number:05d}"] = (vector, {})
    ids = rows.keys.take(pa.array(sample[0])).to_pylist()
    for number, (vector, key) in enumerate(zip(sample[1], ids, strict=True)):
        told[f"sample/{number:04d}"] = (vector, {"id": key})
    for kind, values in values_of(rows).items():
        for number, some in enumerate(_chunks(values)):
            told[f"values/{kind}/{number:04d}"] = (axis, {"values": some})
    name = about_name(collection)
    client.load_collection(name)
    there = client.query(name, filter=f'{KEY} != ""', output_fields=[KEY], limit=16_384)
    if gone := [row[KEY] for row in there if row[KEY] not in told and row[KEY] != "made"]:
        client.delete(name, ids=gone)
    written = [made_row(info.dim, token)]
    written += [{KEY: key, VECTOR: vector, "data": data} for key, (vector, data) in told.items()]
    for start in range(0, len(written), ROWS_AT_ONCE):
        client.upsert(name, written[start : start + ROWS_AT_ONCE])


def retract(client: Client, collection: str) -> None:
    """Take back what is told of a publication, before its rows change.

    Who has kept it open sees that after each answer: see `MilvusIndex.check_unchanged`.

    Raises:
        EngineError: The engine cannot be asked, or refuses.
    """
    name = about_name(collection)
    client.load_collection(name)
    if not client.query(name, ids=["info"], output_fields=[KEY], consistency_level="Strong"):
        return
    client.delete(name, ids=["info"])
    if not client.is_lite:
        time.sleep(SEEN_WITHIN)


def values_of(rows: TableRows) -> dict[str, list[list[Any]]]:
    """Return the values that pictures have and how many have each: [value, count], by kind.

    Kinds are those of `item_values.values_of_items`, the most frequent value first; those of a
    place are [town, country code, count]. Folders are whole paths, each counting what lies in the
    folder itself. Of more than MOST_FOLDERS the deepest are joined to those that they lie in.
    """
    counts = {
        kind: counted(coded)
        for kind, coded in values_of_items(rows.tables.items, rows.tables.facts).items()
    }
    counts["folder"] = _shallower(counts["folder"])
    found: dict[str, list[list[Any]]] = {
        kind: [list(each) for each in values.most_common()] for kind, values in counts.items()
    }
    found["place"] = [[*value.rsplit(", ", 1), count] for value, count in found["place"]]
    return {kind: values for kind, values in found.items() if values}


def _shallower(folders: Counter[str]) -> Counter[str]:
    depth = max((path.count("/") + 1 for path in folders), default=0)
    while len(folders) > MOST_FOLDERS and depth > 1:
        depth -= 1
        joined: Counter[str] = Counter()
        for path, count in folders.items():
            joined["/".join(path.split("/")[:depth])] += count
        folders = joined
    return Counter(dict(folders.most_common(MOST_FOLDERS)))


def _chunks(values: list[list[Any]]) -> Iterator[list[list[Any]]]:
    """Yield values in lists that each fit into a JSON value."""
    some: list[list[Any]] = []
    size = 0
    for value in values:
        more = json_bytes(value) + 2
        if some and size + more > JSON_BYTES:
            yield some
            some, size = [], 0
        some.append(value)
        size += more
    yield some


def _first_axis(dim: int) -> Vectors:
    """Return a vector of rows that need none."""
    axis = np.zeros(dim, np.float32)
    axis[0] = 1.0
    return axis
