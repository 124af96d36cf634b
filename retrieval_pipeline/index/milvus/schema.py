"""What a collection of Milvus holds: a row for each vector, and what a reader must know of all.

A picture has one row for its own vector and one for each further view of it. The rows of a picture
tell the same of it, so that one filter finds all of them. What is only shown is one JSON value.

Beside each collection is another of a few rows, `about`: what is known of the whole of it.
"""

import json
import re
import unicodedata
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from retrieval_pipeline.config.extensions import DAMAGED, format_named
from retrieval_pipeline.index.build_info import Check
from retrieval_pipeline.index.score_statistics import Background
from retrieval_pipeline.storage.stored_model import StoredModel
from retrieval_pipeline.vectors import VectorSpace

# Raised when rows change their meaning: collections of another version are filled anew.
SCHEMA_VERSION = 4

# Names of the fields of the primary key and of the vector, in both collections.
KEY, VECTOR = "id", "vector"
# Unit vectors: their inner product is the cosine.
METRIC = "IP"

# Milvus's limits: bytes of a text and of a JSON value, values of an array.
LONGEST_TEXT, LONGEST_JSON, MOST_VALUES = 65_535, 65_536, 4_096
# Bytes of a value in an array, such as a keyword; longer ones are cut.
LONGEST_VALUE = 1_024
# Bytes of JSON that are kept below the limit, which also counts Milvus's own encoding.
JSON_BYTES = 60_000

# The fields of facts, and what each holds where nothing is known: a value that no fact has. Nulls
# would be clearer, but Milvus before 2.5 has none. The date is the latest of all, and degrees are
# beyond those of the Earth.
UNKNOWN: Mapping[str, int | float | str] = {
    "taken_at": 2**63 - 1,
    **dict.fromkeys(("camera", "lens", "country", "place"), ""),
    **dict.fromkeys(("latitude", "longitude"), 1_000.0),
    "rating": -128,
}

# How the moment is written that the name of a publication begins with.
_BUILD_TIME = "%Y%m%dT%H%M%S.%fZ"

# The facts that are shown, and not only filtered by: the fields of `item_facts.ItemFacts`.
SHOWN_FACTS = (
    *("taken_at", "utc_offset_minutes", "taken_from", "camera", "lens", "iso"),
    *("exposure_seconds", "f_number", "focal_length_mm", "latitude", "longitude", "altitude_m"),
    *("title", "caption", "keywords", "rating", "place", "region", "country"),
)


class PublishedInfo(StoredModel):
    """What is known of a publication: what a reader needs, and what people are shown.

    Attributes:
        schema_version: SCHEMA_VERSION of the program that published it.
        build: Its name: time, and the beginning of `inputs`.
        created_at: When it was begun, in UTC.
        inputs: Hash of the items, of all that is told of them, and of every setting that matters.
        model: With `revision`, `dim` and `preprocessing`, the vector space (see VectorSpace).
        items: How many images there are, copies counted once.
        views: How many further views of the images there are.
        locations: How many files hold them.
        sources: How many of these files each source has.
        background: How unrelated texts and pictures score.
        vocabulary: Hash of the words whose vectors are there; None if there are none.
        has_facts: Whether facts of the pictures were read.
        index_type: The engine's kind of index.
        shards: How many parts of the collection are written at the same time.
        replicas: How many copies of it are in memory.
        recall_at_10: Share of a query's true ten nearest rows that the engine found.
        sent: How many rows this publication sent.
        deleted: How many rows it deleted.
        seconds: How long it took, without the checks.
        checks: What it was checked for.
    """

    schema_version: int
    build: str
    created_at: datetime
    inputs: str
    model: str
    revision: str
    dim: int
    preprocessing: str
    items: int
    views: int
    locations: int
    sources: dict[str, int]
    background: Background
    vocabulary: str | None
    has_facts: bool
    index_type: str
    shards: int
    replicas: int
    recall_at_10: float
    sent: int
    deleted: int
    seconds: float
    checks: tuple[Check, ...]

    @property
    def space(self) -> VectorSpace:
        """The vector space of the vectors; queries must be encoded in the same one."""
        return VectorSpace(self.model, self.revision, self.dim, self.preprocessing)


def build_name(created_at: datetime, inputs: str) -> str:
    """Return the name of the publication that was begun at a moment, in UTC."""
    return f"{created_at:{_BUILD_TIME}}-{inputs[:8]}"


def moment_of(build: str) -> int | None:
    """Return when a publication was begun, by its name: microseconds since 1970.

    None if it is the name of something else.
    """
    try:
        created_at = datetime.strptime(build.rpartition("-")[0], _BUILD_TIME)
    except ValueError:
        return None
    return microseconds(created_at.replace(tzinfo=UTC))


def microseconds(moment: datetime) -> int:
    """Return a moment in microseconds since 1970-01-01 00:00 UTC."""
    return (moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def collection_name(prefix: str, space: VectorSpace, colour: str) -> str:
    """Return the name of one of the two collections of a vector space, "blue" or "green"."""
    return f"{prefix}_{space.key.rpartition('@')[2]}_{colour}"


def about_name(collection: str) -> str:
    """Return the name of the collection that tells of the whole of another one."""
    return f"{collection}_about"


def row_schema(dim: int) -> Any:
    """Return the fields of a collection of vectors with `dim` components.

    Fields:
        id: The content id, and "#" and a number after it for a further view.
        content_id: Of the picture.
        view: 0 for the picture's own vector, n for its n-th further view.
        vector: Of unit length.
        files: How many files the picture has, companions included.
        source, path, name, mtime_ns: Of its first file: the name of its source; the path, in the
            form NFC of Unicode, and the part after the last "/"; when it was last changed, in
            nanoseconds since 1970.
        folded_name: The name in lower case: names are sorted and looked for by it.
        sources: All sources that have a file of it.
        width, height: Pixels of the upright picture.
        formats: Those of all its files, in upper case.
        format: As in `items.ITEM_COLUMNS`.
        taken_at: Microseconds from 1970-01-01 00:00 to what the clock on the wall said.
        camera, lens, country, place, latitude, longitude, rating: As in
            `facts_table.FACTS_COLUMNS`. All facts: `UNKNOWN` where they are null there.
        keywords: Without regard to case (`str.casefold`).
        first_published: When the publication was begun that had the picture first, in microseconds
            since 1970; so pages tell what is new since an earlier one.
        shown: See `shown_of`.
    """
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(KEY, DataType.VARCHAR, is_primary=True, max_length=48)
    schema.add_field("content_id", DataType.VARCHAR, max_length=32)
    schema.add_field("view", DataType.INT16)
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dim)
    schema.add_field("files", DataType.INT32)
    schema.add_field("source", DataType.VARCHAR, max_length=64)
    for name in ("path", "name", "folded_name"):
        schema.add_field(name, DataType.VARCHAR, max_length=LONGEST_TEXT)
    schema.add_field("mtime_ns", DataType.INT64)
    for name in ("width", "height"):
        schema.add_field(name, DataType.INT32)
    for name in ("sources", "formats", "keywords"):
        schema.add_field(
            name,
            DataType.ARRAY,
            element_type=DataType.VARCHAR,
            max_capacity=MOST_VALUES,
            max_length=LONGEST_VALUE,
        )
    schema.add_field("taken_at", DataType.INT64)
    schema.add_field("format", DataType.VARCHAR, max_length=LONGEST_VALUE)
    for name in ("camera", "lens", "country", "place"):
        schema.add_field(name, DataType.VARCHAR, max_length=LONGEST_TEXT)
    for name in ("latitude", "longitude"):
        schema.add_field(name, DataType.DOUBLE)
    schema.add_field("rating", DataType.INT8)
    schema.add_field("first_published", DataType.INT64)
    schema.add_field("shown", DataType.JSON)
    return schema


def about_schema(dim: int) -> Any:
    """Return the fields of the collection that tells of the whole of another one.

    Rows, by their ids, and what is in `data`:
        info: A PublishedInfo.
        word/00000 ...: The vectors of the vocabulary, in its order; empty.
        sample/0000 ...: The vectors of `knn.evenly_spaced` items, SAMPLE_PICTURES at most, in the
            order of source and path: {"id": content id}.
        values/KIND/0000 ...: {"values": [[value, number of pictures], ...]}, a part of the values
            that pictures have: see `about.values_of`.
    Rows without a vector of their own have that of the first axis.
    """
    from pymilvus import DataType, MilvusClient

    schema = MilvusClient.create_schema(auto_id=False, enable_dynamic_field=False)
    schema.add_field(KEY, DataType.VARCHAR, is_primary=True, max_length=64)
    schema.add_field(VECTOR, DataType.FLOAT_VECTOR, dim=dim)
    schema.add_field("data", DataType.JSON)
    return schema


def fields_of(
    item: dict[str, Any], facts: dict[str, Any] | None, companions: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return the fields of a picture's rows, without those that differ between its views.

    Args:
        item: A row with the columns of `items.ITEM_COLUMNS`.
        facts: Its row with the columns of `facts_table.FACTS_COLUMNS`; None if none were read.
        companions: Its rows with the columns of `companions.COMPANION_COLUMNS`.
    """
    known = facts or {}
    files = item["locations"]
    path = unicodedata.normalize("NFC", files[0]["path"])
    name = path.rpartition("/")[2]
    formats = [item["format"].replace(DAMAGED, "").upper()]
    for companion in companions:
        ending = re.search(r"\.([^./]+)$", companion["path"])
        formats += [format_named(ending[1])] if ending else []
    return {
        "content_id": item["content_id"],
        "files": len(files) + len(companions),
        "source": files[0]["source"],
        "path": path,
        "name": name,
        "folded_name": name.lower(),
        "mtime_ns": files[0]["mtime_ns"],
        "sources": sorted({file["source"] for file in (*files, *companions)})[:MOST_VALUES],
        "width": item["width"],
        "height": item["height"],
        "format": item["format"],
        "formats": sorted({_cut(name) for name in formats})[:MOST_VALUES],
        "keywords": sorted({_cut(word.casefold()) for word in known.get("keywords") or ()})[
            :MOST_VALUES
        ],
        **{
            name: unknown if (value := known.get(name)) is None else value
            for name, unknown in UNKNOWN.items()
        },
        "shown": shown_of(item, known, companions),
    }


def shown_of(
    item: dict[str, Any], facts: dict[str, Any], companions: list[dict[str, Any]]
) -> dict[str, Any]:
    """Return what is told of a picture beside what is filtered by.

    "locations": [source, path, size, mtime_ns] of each file, sorted by source and path;
    "companions": the same after their kind; "format"; and "facts": those of SHOWN_FACTS that are
    known. Of a picture with hundreds of copies the last ones are left out, and of a long caption
    the end, since Milvus takes 64 kB. Further views have "view", too: x, y, width and height.
    """
    shown = {
        "format": item["format"],
        "facts": {name: facts[name] for name in SHOWN_FACTS if facts.get(name) not in (None, [])},
        "companions": [
            [each[name] for name in ("kind", "source", "path", "size", "mtime_ns")]
            for each in companions
        ],
        "locations": [
            [each[name] for name in ("source", "path", "size", "mtime_ns")]
            for each in item["locations"]
        ],
    }
    if json_bytes(shown) <= JSON_BYTES:
        return shown
    for name in ("caption", "title"):
        if name in shown["facts"]:
            shown["facts"][name] = shown["facts"][name][: JSON_BYTES // 24]
    for name, least in (("locations", 1), ("companions", 0)):
        while len(shown[name]) > least and json_bytes(shown) > JSON_BYTES:
            shown[name] = shown[name][: max(least, len(shown[name]) * 3 // 4)]
    if json_bytes(shown) > JSON_BYTES:
        shown["facts"].pop("keywords", None)
    return shown


def json_bytes(value: object) -> int:
    """Return how many bytes the JSON of a value takes, as pymilvus sends it."""
    return len(json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass"))


def _cut(text: str) -> str:
    """Return the beginning of a text, as far as an array takes it."""
    return text.encode()[:LONGEST_VALUE].decode(errors="ignore")


def search_params(index_type: str, count: int) -> dict[str, Any]:
    """Return how hard a search for the `count` nearest rows tries, by the kind of index.

    It is part of what the recall of a publication was measured with.
    """
    params = {
        "HNSW": {"ef": max(256, 2 * count)},
        "DISKANN": {"search_list": max(200, 2 * count)},
        "GPU_CAGRA": {"itopk_size": max(256, 2 * count)},
    }
    return {"metric_type": METRIC, "params": params.get(index_type, {})}
