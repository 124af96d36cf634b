"""Embeddings -> build -> candidates: write an immutable index, check it, open it.

A build is one directory: `items.arrow` (what each item is, with its full vector), `vectors.annoy`
(the search trees) and `build.json` (what the two must be). Annoy crashes the process on a file
that is not what it expects, so nothing is loaded before it agrees with build.json.
"""

import functools
import json
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from annoy import AnnoyIndex
from blake3 import blake3
from pydantic import BaseModel, ConfigDict, ValidationError

from retrieval_pipeline.content import content_id_of_file
from retrieval_pipeline.errors import BuildError, StoreError
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.store import (
    Store,
    embedding_schema,
    new_directory,
    read_manifest,
    read_table,
)
from retrieval_pipeline.vectors import Vectors, VectorSpace, check_vectors

FORMAT = 1
METRIC = "dot"  # On unit vectors the dot product is the cosine.
TREES = 64
SEED = 20  # Any fixed number: the same vectors give the same file.
# Rows of one Arrow record batch: 200 MB at 768 dimensions, scanned as one matrix product.
BATCH_ROWS = 65_536
# Candidates that Annoy proposes for exact ordering, and the nodes it looks at for them.
CANDIDATES = 300
SEARCH_K = 16_000
# Items whose scores stand for the scores of all: a median to within 3 %.
SAMPLE_ITEMS = 2_000

LOCATION = pa.struct(
    [
        pa.field("source", pa.string(), nullable=False),
        pa.field("path", pa.string(), nullable=False),
        pa.field("size", pa.int64(), nullable=False),
        pa.field("mtime_ns", pa.int64(), nullable=False),
    ]
)


def items_schema(dim: int) -> pa.Schema:
    """Columns of items.arrow, in the order of the items."""
    return pa.schema(
        [
            pa.field("content_id", pa.string(), nullable=False),
            pa.field("locations", pa.list_(LOCATION), nullable=False),
            pa.field("width", pa.int32(), nullable=False),
            pa.field("height", pa.int32(), nullable=False),
            pa.field("format", pa.string(), nullable=False),
            pa.field("embedding", pa.list_(pa.float32(), dim), nullable=False),
        ]
    )


class FileFacts(BaseModel):
    """What a file of a build must be."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    size: int
    blake3: str


class BuildInfo(BaseModel):
    """The contents of build.json."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    format: int
    created_at: datetime
    inputs: str
    model: str
    revision: str
    dim: int
    preprocessing: str
    metric: str
    trees: int
    items: int
    locations: int
    sources: dict[str, int]
    build_seconds: float
    files: dict[str, FileFacts]

    @property
    def space(self) -> VectorSpace:
        """The vector space of the build: queries must be encoded in it."""
        return VectorSpace(self.model, self.revision, self.dim, self.preprocessing)


@dataclass(frozen=True)
class Joined:
    """The join of manifests and embeddings on content id, without the vectors.

    Attributes:
        table: content_id, locations, width, height, format; a row an item, sorted by source and
            path of the first location.
        places: (part, row in the part) of each item's vector, int64 (n, 2).
        parts: The embedding parts that `places` counts.
        inputs: Hash of everything a build is made from.
    """

    table: pa.Table
    places: npt.NDArray[np.int64]
    parts: list[Path]
    inputs: str


def join(store: Store, space: VectorSpace, sources: Sequence[str]) -> Joined:
    """Join the manifests of `sources` with all embeddings of `space`; copies become one item.

    Raises:
        StoreError: A table is damaged.
    """
    located = _locations(store, sources)
    parts = store.parts(space)
    schema = embedding_schema(space.dim)
    columns = ["content_id", "width", "height", "format"]
    tables = [read_table(part, schema, columns) for part in parts]
    facts = (
        pa.concat_tables(tables)
        if tables
        else pa.schema([schema.field(name) for name in columns]).empty_table()
    )
    places = np.concatenate(
        [np.empty((0, 2), np.int64)]
        + [
            np.stack([np.full(len(table), number), np.arange(len(table))], axis=1)
            for number, table in enumerate(tables)
        ]
    )
    # index_in gives the first row of an id, so that an id embedded twice counts once.
    rows = pc.index_in(located["content_id"], facts["content_id"].combine_chunks())
    known = pc.is_valid(rows)
    located, rows = located.filter(known), rows.filter(known).to_numpy(zero_copy_only=False)
    table = located
    for name in columns[1:]:
        table = table.append_column(name, facts[name].take(pa.array(rows)))
    digest = blake3(json.dumps([FORMAT, TREES, space.key]).encode())
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    digest.update(sink.getvalue())
    return Joined(table, places[rows.astype(np.int64)], parts, digest.hexdigest(length=16))


def _locations(store: Store, sources: Sequence[str]) -> pa.Table:
    """Return content_id and locations, a row a content id, in the order of first locations."""
    manifests = []
    for source in sorted(sources):
        rows = read_manifest(store, source)
        rows = rows.filter(pc.is_valid(rows["content_id"])).select(
            ["content_id", "path", "size", "mtime_ns"]
        )
        manifests.append(rows.append_column("source", pa.array([source] * len(rows), pa.string())))
    if not manifests:
        return pa.table(
            {"content_id": pa.array([], pa.string()), "locations": pa.array([], pa.list_(LOCATION))}
        )
    files = pa.concat_tables(manifests).sort_by([("source", "ascending"), ("path", "ascending")])
    encoded = files["content_id"].combine_chunks().dictionary_encode()
    # Codes count the ids in the order of their first file.
    codes = encoded.indices.to_numpy()
    order = np.argsort(codes, kind="stable")
    offsets = np.concatenate(
        [[0], np.cumsum(np.bincount(codes, minlength=len(encoded.dictionary)))]
    )
    files = files.take(pa.array(order)).combine_chunks()
    places = pa.StructArray.from_arrays(
        [_one_chunk(files[field.name]) for field in LOCATION], fields=list(LOCATION)
    )
    locations = pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), places)
    return pa.table({"content_id": encoded.dictionary, "locations": locations})


def _one_chunk(column: pa.ChunkedArray) -> pa.Array:
    combined = column.combine_chunks()
    return combined if isinstance(combined, pa.Array) else combined.chunk(0)


@dataclass(frozen=True)
class BuildReport:
    """What `build_index` did: `published` is False when nothing had changed."""

    build: Path
    info: BuildInfo
    published: bool


def build_index(
    store: Store,
    space: VectorSpace,
    sources: Sequence[str],
    *,
    progress: Progress | None = None,
) -> BuildReport:
    """Write and publish a build of `sources`, unless the current one has the same inputs.

    Raises:
        BuildError: There is nothing to index.
        StoreError: A table is damaged or the build cannot be written.
        VectorError: A stored vector is not of unit length.
    """
    progress = progress or Quiet()
    started = time.monotonic()
    joined = join(store, space, sources)
    if not len(joined.table):
        raise BuildError(
            "there is nothing to index: no source has an image that could be embedded. "
            "`retrieval status` shows what was found"
        )
    if (current := _same_build(store, space, joined.inputs)) is not None:
        return BuildReport(current, read_info(current), published=False)
    created_at = datetime.now(UTC).replace(microsecond=0)
    build = store.new_build(space, f"{created_at:%Y%m%dT%H%M%SZ}-{joined.inputs[:8]}")
    with new_directory(build) as directory:
        progress.start("building the index", len(joined.table), "images")
        annoy = AnnoyIndex(space.dim, METRIC)
        annoy.set_seed(SEED)
        with pa.ipc.new_file(str(directory / "items.arrow"), items_schema(space.dim)) as writer:
            for start, vectors in _vectors_in_order(joined, space):
                rows = joined.table.slice(start, len(vectors)).combine_chunks()
                flat = pa.array(vectors.reshape(-1), pa.float32())
                embedding = pa.FixedSizeListArray.from_arrays(flat, space.dim)
                rows = rows.append_column("embedding", embedding).cast(items_schema(space.dim))
                writer.write_table(rows)
                for number, vector in enumerate(vectors.tolist(), start):
                    annoy.add_item(number, vector)
                progress.advance(len(vectors))
        annoy.build(TREES, n_jobs=1)
        if not annoy.save(str(directory / "vectors.annoy")):
            raise StoreError(f"{build}: Annoy could not write its file")
        # A fresh load says what every later one must see; of a handful of items Annoy counts
        # other trees than it was asked for.
        annoy.unload()
        annoy.load(str(directory / "vectors.annoy"))
        trees = annoy.get_n_trees()
        annoy.unload()
        flat_sources = pc.list_flatten(joined.table["locations"]).combine_chunks().field("source")
        info = BuildInfo(
            format=FORMAT,
            created_at=created_at,
            inputs=joined.inputs,
            model=space.model,
            revision=space.revision,
            dim=space.dim,
            preprocessing=space.preprocessing,
            metric=METRIC,
            trees=trees,
            items=len(joined.table),
            locations=len(flat_sources),
            sources={
                entry["values"]: entry["counts"]
                for entry in pc.value_counts(flat_sources).to_pylist()
            },
            build_seconds=round(time.monotonic() - started, 3),
            files={
                file.name: FileFacts(size=file.stat().st_size, blake3=content_id_of_file(file))
                for file in sorted(directory.iterdir())
            },
        )
        (directory / "build.json").write_text(info.model_dump_json(indent=2), encoding="utf-8")
        progress.finish()
    store.publish(build)
    return BuildReport(build, info, published=True)


def _same_build(store: Store, space: VectorSpace, inputs: str) -> Path | None:
    """Return the current build if it was made from the same inputs and is whole."""
    try:
        current = store.current_build()
        if current is None or current.parent.name != space.key:
            return None
        info = read_info(current)
        _check_files(current, info)
    except (BuildError, StoreError):
        return None
    return current if info.inputs == inputs else None


def _vectors_in_order(joined: Joined, space: VectorSpace) -> Iterator[tuple[int, Vectors]]:
    """Yield (first item, vectors) in the order of the items, BATCH_ROWS at a time."""
    schema = embedding_schema(space.dim)
    vectors = np.empty((len(joined.places), space.dim), np.float32)
    for number, part in enumerate(joined.parts):
        wanted = np.flatnonzero(joined.places[:, 0] == number)
        if not len(wanted):
            continue
        table = read_table(part, schema, ["embedding"])
        stored = as_matrix(table["embedding"].combine_chunks(), space.dim)
        vectors[wanted] = check_vectors(
            stored[joined.places[wanted, 1]], space.dim, f"{part}: vector"
        )
    for start in range(0, len(vectors), BATCH_ROWS):
        yield start, vectors[start : start + BATCH_ROWS]


def as_matrix(column: pa.Array | pa.ChunkedArray, dim: int) -> Vectors:
    """View a fixed-size-list column as float32 (n, dim), without a copy."""
    array = _one_chunk(column) if isinstance(column, pa.ChunkedArray) else column
    flat: Vectors = array.flatten().to_numpy(zero_copy_only=True)
    return flat.reshape(-1, dim)


def read_info(build: Path) -> BuildInfo:
    """Read build.json.

    Raises:
        BuildError: It is missing, damaged or of another version.
    """
    try:
        info = BuildInfo.model_validate_json((build / "build.json").read_bytes())
    except OSError as error:
        raise BuildError(f"{build}: {error.strerror}: run `retrieval index`") from None
    except ValidationError as error:
        first = error.errors()[0]
        raise BuildError(
            f"{build / 'build.json'}: damaged ({first['msg']}): run `retrieval index`"
        ) from None
    if info.format != FORMAT or info.metric != METRIC:
        raise BuildError(f"{build}: made by another version: run `retrieval index`")
    return info


def _check_files(build: Path, info: BuildInfo) -> None:
    for name in ("items.arrow", "vectors.annoy"):
        facts = info.files.get(name)
        file = build / name
        try:
            whole = (
                facts is not None
                and file.stat().st_size == facts.size
                and content_id_of_file(file) == facts.blake3
            )
        except OSError as error:
            raise BuildError(f"{file}: {error.strerror}: run `retrieval index`") from None
        if not whole:
            raise BuildError(
                f"{file}: not as build.json says, so not loaded: run `retrieval index`"
            )


class Build:
    """An open build. Its files are memory-mapped and never change."""

    def __init__(self, path: Path, info: BuildInfo, items: pa.Table, annoy: AnnoyIndex) -> None:
        self.path = path
        self.info = info
        self.items = items
        self._annoy = annoy
        self._matrices = [as_matrix(chunk, info.dim) for chunk in items.column("embedding").chunks]

    @classmethod
    def open(cls, path: Path) -> "Build":
        """Check every file of the build against build.json, then map it.

        Raises:
            BuildError: The build is missing, damaged or of another version.
        """
        info = read_info(path)
        _check_files(path, info)
        try:
            items = pa.ipc.open_file(pa.memory_map(str(path / "items.arrow"))).read_all()
        except (pa.ArrowException, OSError) as error:
            raise BuildError(f"{path / 'items.arrow'}: {error}: run `retrieval index`") from None
        if items.schema != items_schema(info.dim) or len(items) != info.items:
            raise BuildError(
                f"{path / 'items.arrow'}: not as build.json says: run `retrieval index`"
            )
        annoy = AnnoyIndex(info.dim, METRIC)
        annoy.load(str(path / "vectors.annoy"))
        if annoy.get_n_items() != info.items or annoy.get_n_trees() != info.trees:
            raise BuildError(
                f"{path / 'vectors.annoy'}: not as build.json says: run `retrieval index`"
            )
        return cls(path, info, items, annoy)

    def __len__(self) -> int:
        """Return the number of items."""
        return self.info.items

    def vectors(self, numbers: npt.NDArray[np.int64]) -> Vectors:
        """Return the full vectors of these items, float32 (len(numbers), dim)."""
        result = np.empty((len(numbers), self.info.dim), np.float32)
        chunk, row = np.divmod(numbers, BATCH_ROWS)
        for number, matrix in enumerate(self._matrices):
            here = chunk == number
            result[here] = matrix[row[here]]
        return result

    @functools.cached_property
    def sample(self) -> Vectors:
        """Vectors of items spread evenly over the build, float32 (n, dim), n <= SAMPLE_ITEMS."""
        count = min(len(self), SAMPLE_ITEMS)
        return self.vectors(np.linspace(0, len(self) - 1, count).astype(np.int64))

    def scan(self, vector: Vectors) -> Vectors:
        """Return the exact score of every item, float32 (items,)."""
        return np.concatenate([matrix @ vector for matrix in self._matrices])

    def candidates(self, vector: Vectors) -> npt.NDArray[np.int64]:
        """Return the items that Annoy finds near `vector`, in no particular order."""
        found = self._annoy.get_nns_by_vector(vector.tolist(), CANDIDATES, SEARCH_K)
        return np.array(sorted(found), dtype=np.int64)


def open_current(store: Store) -> Build:
    """Open the build that CURRENT names.

    Raises:
        BuildError: Nothing was indexed yet, or the build is damaged.
        StoreError: CURRENT is damaged.
    """
    path = store.current_build()
    if path is None:
        raise BuildError(f"nothing is indexed yet in {store.home}: run `retrieval index` first")
    return Build.open(path)
