"""A build as a collection of Milvus Lite: what publishing makes of the same pictures."""

from typing import Any

import numpy as np

from retrieval_pipeline.index.build import Build
from retrieval_pipeline.index.milvus.client import Client
from retrieval_pipeline.index.milvus.schema import (
    METRIC,
    SCHEMA_VERSION,
    VECTOR,
    PublishedInfo,
    about_name,
    about_schema,
    fields_of,
    row_schema,
)

# Fields of build.json that a publication tells as well.
TOLD = (
    *("created_at", "inputs", "model", "revision", "dim", "preprocessing", "items", "views"),
    *("locations", "sources", "background", "vocabulary"),
)


def fill(client: Client, name: str, build: Build, index_type: str = "FLAT") -> None:
    """Make the collection `name`, and the one that tells of it, with what a build holds."""
    for collection, schema in (
        (name, row_schema(build.info.dim)),
        (about_name(name), about_schema(build.info.dim)),
    ):
        indexes = client.prepare_index_params()
        indexes.add_index(VECTOR, index_type=index_type, metric_type=METRIC)
        client.create_collection(collection, schema=schema, index_params=indexes)
    rows, about = rows_of(build), about_of(build, index_type)
    for start in range(0, len(rows), 2_000):
        client.upsert(name, rows[start : start + 2_000])
    client.upsert(about_name(name), about)


def rows_of(build: Build) -> list[dict[str, Any]]:
    items = build.items.to_pylist()
    facts = None if build.facts is None else build.facts.to_pylist()
    companions: dict[int, list[dict[str, Any]]] = {}
    for companion in build.companions.to_pylist():
        companions.setdefault(companion["item"], []).append(companion)
    fields = [
        fields_of(item, facts and facts[number], companions.get(number, []))
        for number, item in enumerate(items)
    ]
    vectors = build.vectors(np.arange(len(build.rows)))
    rows = []
    for row, item in enumerate(build.rows.items_of(np.arange(len(build.rows))).tolist()):
        known = dict(fields[item])
        number = int(np.flatnonzero(build.rows.of_item(item) == row)[0])
        view = build.view_of(row)
        if view is not None:
            known["shown"] = known["shown"] | {"view": [view.x, view.y, view.width, view.height]}
        key = known["content_id"] + (f"#{number}" if number else "")
        rows.append(known | {"id": key, "view": number, VECTOR: vectors[row]})
    return rows


def about_of(build: Build, index_type: str) -> list[dict[str, Any]]:
    axis = np.eye(1, build.info.dim, dtype=np.float32)[0]
    info = PublishedInfo(
        **{name: getattr(build.info, name) for name in TOLD},
        schema_version=SCHEMA_VERSION,
        build=build.path.name,
        has_facts=build.facts is not None,
        index_type=index_type,
        shards=1,
        replicas=1,
        recall_at_10=1.0,
        sent=len(build.rows),
        deleted=0,
        seconds=0.0,
        checks=(),
    )
    rows = [{"id": "info", "data": info.model_dump(mode="json"), VECTOR: axis}]
    words = [] if build.vocabulary is None else build.vocabulary
    rows += [{"id": f"word/{n:05d}", "data": {}, VECTOR: word} for n, word in enumerate(words)]
    ids = build.items["content_id"].take(build.sample_numbers.tolist()).to_pylist()
    rows += [
        {"id": f"sample/{n:04d}", "data": {"id": content}, VECTOR: vector}
        for n, (content, vector) in enumerate(zip(ids, build.sample, strict=True))
    ]
    for kind, values in _values(build).items():
        if values:
            rows.append({"id": f"values/{kind}/0000", "data": {"values": values}, VECTOR: axis})
    return rows


def _values(build: Build) -> dict[str, list[Any]]:
    if build.facts is None:
        return {}
    facts = build.facts
    found: dict[str, list[Any]] = {
        kind: [each for each in facts[kind].unique().to_pylist() if each is not None]
        for kind in ("camera", "lens")
    }
    years = facts["taken_at"].drop_null().to_numpy().astype("datetime64[us]")
    found["year"] = np.unique(years.astype("datetime64[Y]").astype(int) + 1970).tolist()
    pairs: dict[tuple[str, str], int] = {}
    for place, country in zip(
        facts["place"].to_pylist(), facts["country"].to_pylist(), strict=True
    ):
        if place is not None and country is not None:
            pairs[place, country] = pairs.get((place, country), 0) + 1
    found["place"] = [[*pair, count] for pair, count in sorted(pairs.items())]
    return found
