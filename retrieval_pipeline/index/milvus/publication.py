"""Publication to Milvus: incremental, and blue/green.

A vector space has two collections, blue and green. The one that does not answer is brought up to
date and checked; then the alias moves to it. Until that moment the other one answers as before, and
afterwards it is what people can go back to.
"""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.config.settings import IndexSettings
from retrieval_pipeline.errors import EngineError, StoreError, UnreadableError
from retrieval_pipeline.index.build_info import Check, vocabulary_digest
from retrieval_pipeline.index.builder import RefusedBuildError, passed
from retrieval_pipeline.index.knn import evenly_spaced
from retrieval_pipeline.index.milvus.checks import Measured, measure_recall, same_vectors
from retrieval_pipeline.index.milvus.client import Client
from retrieval_pipeline.index.milvus.collections import (
    STALL_SECONDS,
    answer_from,
    count,
    drop,
    ledgers,
    load,
    read_vocabulary,
    until_still,
)
from retrieval_pipeline.index.milvus.ledger import Collection, Digests, Ledger, Sent
from retrieval_pipeline.index.milvus.schema import (
    JSON_BYTES,
    KEY,
    METRIC,
    SCHEMA_VERSION,
    VECTOR,
    PublishedInfo,
    about_name,
    about_schema,
    collection_name,
    json_bytes,
    row_schema,
)
from retrieval_pipeline.index.milvus.tables import TableRows, read_rows
from retrieval_pipeline.index.score_statistics import SAMPLE_PICTURES, measure_background
from retrieval_pipeline.index.vocabulary import words
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.content_id import DIGEST_BYTES
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import EncodeTexts, Numbers, Vectors, VectorSpace, check_vectors
from retrieval_pipeline.views import Views

COLOURS = ("blue", "green")

# Bytes of a call that sends rows; Milvus takes 64 MB. And what a row takes beside its vector.
CALL_BYTES, ROW_BYTES = 8_000_000, 2_000
# Rows whose vectors are read together: 100 MB at 768 dimensions.
ROWS_IN_MEMORY = 32_768
# Rows of a call that deletes.
DELETED_AT_ONCE = 4_096
# What an index of Milvus is built with, where its defaults are those of small collections.
INDEX_PARAMS: Mapping[str, Mapping[str, int]] = {
    "HNSW": {"M": 32, "efConstruction": 256},
    "GPU_CAGRA": {"intermediate_graph_degree": 64, "graph_degree": 32},
}


@dataclass(frozen=True)
class PublicationReport:
    """The publication that answers after an update.

    Attributes:
        collection: The collection that answers.
        info: What is known of it.
        published: Whether this update made it answer.
        kept: Why it stayed although newer images are waiting; "" if none are.
    """

    collection: str
    info: PublishedInfo
    published: bool
    kept: str = ""

    @property
    def build(self) -> Path:
        """The name of the publication as a path of one part: that of its map begins with it."""
        return Path(self.info.build)


# Checks a collection before it answers, by its rows.
AcceptRows = Callable[[TableRows], Sequence[Check]]


def publish(
    store: Store,
    client: Client,
    space: VectorSpace,
    sources: Sequence[str],
    index: IndexSettings,
    *,
    views: Mapping[str, Views] | None = None,
    encode_texts: EncodeTexts | None = None,
    accept: AcceptRows | None = None,
    move: bool = True,
    progress: Progress | None = None,
) -> PublicationReport:
    """Bring a collection up to date with the tables of `sources`, check it and let it answer.

    The caller holds the store's lock. It can be killed at any moment: the next call goes on.

    Args:
        store: Where the tables and the ledgers are.
        client: The engine.
        space: The vector space whose embeddings to publish.
        sources: The names of the sources whose manifests to publish.
        index: The settings of the engine.
        views: Which of the stored views of its pictures each source has; default "whole".
        encode_texts: Encodes the vocabulary if no collection of this space has it yet.
        accept: Checks the tables, beside the checks of the engine itself.
        move: False leaves the alias where it is.
        progress: Told about stages and rows.

    Raises:
        BuildError: There is nothing to index.
        EngineError: The engine is away, slow, full or refuses; a collection of the name is not of
            this home.
        RefusedBuildError: A check failed; what answered before answers on.
        StoreError: A table is damaged or a ledger cannot be written.
    """
    progress = progress or Quiet()
    index = as_engine_takes_it(client, index)
    answering = client.collection_of(index.collection)
    earlier = ledgers(store, index.collection)
    if answering is not None and answering not in [each.directory.name for each in earlier]:
        raise EngineError(
            f'{client.where}: "{index.collection}" is answered by "{answering}", which was not '
            "made from this home: give index.collection another name, or drop that alias"
        )
    name = _target(store, index, space, answering)
    known_blocks = [block for ledger in earlier for block in ledger.blocks()]
    rows = read_rows(store, space, sources, views or {}, index.vectors, known_blocks)
    inputs = inputs_of(rows, index)
    if answering is not None:
        known = Ledger(store.engine(answering)).published()
        if known is not None and known.inputs == inputs:
            load(client, answering, known.replicas)
            if count(client, answering) == len(rows):
                return PublicationReport(answering, known, published=False)
    target = _Target(store, client, index, rows, inputs, name, progress)
    try:
        info = target.as_before() or target.fill(encode_texts, accept)
    except RefusedBuildError as refused:
        if target.is_new:
            raise
        # What the ledger says may be wrong: somebody has written into the collection, or it was
        # set back to an older state.
        failed = "; ".join(check.found for check in refused.checks if not check.passed)
        progress.note(f"{name} is not as its ledger says ({failed}): filling it anew")
        target.drop()
        info = target.fill(encode_texts, accept)
    if not move:
        return PublicationReport(name, info, published=False)
    answer_from(client, index.collection, name, info.replicas)
    return PublicationReport(name, info, published=True)


def as_engine_takes_it(client: Client, index: IndexSettings) -> IndexSettings:
    """Return the settings with the kind of index that the engine is asked for.

    What Milvus Lite takes for AUTOINDEX finds less and less as rows are deleted (0.96 of the ten
    nearest after 1 % of 5,000); comparing all of the rows that it is good for takes milliseconds.
    """
    is_auto = index.index_type == "AUTOINDEX" and client.is_lite
    return index.model_copy(update={"index_type": "FLAT"}) if is_auto else index


def inputs_of(rows: TableRows, index: IndexSettings) -> str:
    """Return a hash of rows and of every setting that decides what is published of them."""
    return rows.digest(
        *(rows.space.key, index.vectors, index.index_type, index.shards, index.replicas),
        vocabulary_digest(),
    )


def _target(store: Store, index: IndexSettings, space: VectorSpace, answering: str | None) -> str:
    """Return the collection to bring up to date: of the two, that which does not answer.

    If neither does, the one that was published last, since it needs least.
    """
    names = [collection_name(index.collection, space, colour) for colour in COLOURS]
    if answering in names:
        return names[1 - names.index(answering)]
    published = {name: Ledger(store.engine(name)).published() for name in names}
    return max(names, key=lambda name: ((each := published[name]) and each.build) or "")


@dataclass
class _Target:
    """A collection that is brought up to date."""

    store: Store
    client: Client
    index: IndexSettings
    rows: TableRows
    inputs: str
    name: str
    progress: Progress
    # Whether it was made, and so everything sent, by this publication.
    is_new: bool = False

    @property
    def ledger(self) -> Ledger:
        return Ledger(self.store.engine(self.name))

    @property
    def about(self) -> str:
        return about_name(self.name)

    def fill(self, encode_texts: EncodeTexts | None, accept: AcceptRows | None) -> PublishedInfo:
        """Send what has changed, check the collection, and write down what it holds.

        Raises:
            RefusedBuildError: A check failed.
        """
        started, created_at = time.monotonic(), datetime.now(UTC)
        self._make()
        known = self.ledger.read()
        sent, deleted = self._send(known)
        texts = self._vocabulary(encode_texts)
        self._settle()
        seconds = round(time.monotonic() - started, 3)
        sample_rows = evenly_spaced(self.rows.items, SAMPLE_PICTURES)
        sample = self.rows.vectors(sample_rows)
        self.progress.start("checking the index", None, "")
        measured = measure_recall(self.client, self.name, self.index, self.rows, texts)
        checks = [
            *([] if accept is None else accept(self.rows)),
            self._check_count(),
            same_vectors(self.client, self.name, self.rows),
            measured.check(self.index.recall),
        ]
        self.progress.finish()
        passed(checks)
        info = self._info(created_at, measured, sent, deleted, seconds, sample, texts, checks)
        self._tell(info, sample_rows, sample, texts)
        self.ledger.write_published(info, self.rows.inputs.blocks)
        return info

    def as_before(self) -> PublishedInfo | None:
        """Return what was published in the collection, if that is what the tables say again."""
        known = self.ledger.published()
        if known is None or known.inputs != self.inputs or self.ledger.is_unfinished:
            return None
        if not self.client.has_collection(self.name) or not self._is_ours():
            return None
        load(self.client, self.name, known.replicas)
        return known if count(self.client, self.name) == len(self.rows) else None

    def drop(self) -> None:
        """Remove the collection from the engine, and forget it."""
        drop(self.client, self.ledger, self.name)

    def _make(self) -> None:
        """Make the collection, unless it is there as the settings want it.

        Raises:
            EngineError: There is one of this name that was not made from this home.
        """
        made, there = self.ledger.made(), self.client.has_collection(self.name)
        if there and not self._is_ours():
            raise EngineError(
                f'{self.client.where}: the collection "{self.name}" was made from another home: '
                "give index.collection another name, or drop that one"
            )
        wanted = Collection(
            token=secrets.token_hex(16) if made is None else made.token,
            schema_version=SCHEMA_VERSION,
            dim=self.rows.space.dim,
            index_type=self.index.index_type,
            shards=self.index.shards,
            replicas=self.index.replicas,
        )
        if there and made == wanted and self._token() is not None:
            try:
                self.ledger.read()
            except UnreadableError:
                raise
            except StoreError as error:
                self.progress.note(f"{error}. Filling {self.name} anew")
            else:
                return
        if made is not None:
            self.drop()
        wanted = wanted.model_copy(update={"token": secrets.token_hex(16)})
        self.ledger.write_made(wanted)
        dim = self.rows.space.dim
        self._create(self.name, row_schema(dim), self.index.index_type, self.index.shards)
        self._create(self.about, about_schema(dim), "FLAT", 1)
        self.client.upsert(
            self.about, [{KEY: "made", VECTOR: _first_axis(dim), "data": {"token": wanted.token}}]
        )
        self.is_new = True

    def _is_ours(self) -> bool:
        """Tell whether a collection that is there was made from this home."""
        made = self.ledger.made()
        return made is not None and self._token() in (None, made.token)

    def _token(self) -> str | None:
        """Return the token that tells whose the collection is; None if it was not finished."""
        if not self.client.has_collection(self.about):
            return None
        self.client.load_collection(self.about)
        found = self.client.query(
            self.about,
            filter=f'{KEY} == "made"',
            output_fields=["data"],
            consistency_level="Strong",
        )
        return str(found[0]["data"]["token"]) if found else None

    def _create(self, name: str, schema: Any, index_type: str, shards: int) -> None:
        from pymilvus import MilvusClient

        params = MilvusClient.prepare_index_params()
        params.add_index(
            VECTOR,
            index_type=index_type,
            metric_type=METRIC,
            params=dict(INDEX_PARAMS.get(index_type, {})),
        )
        self.client.create_collection(name, schema=schema, index_params=params, num_shards=shards)

    def _send(self, known: Sent) -> tuple[int, int]:
        """Send the rows that differ, delete those that have gone, and return how many."""
        rows = self.rows
        digests, blocks, changed = self._compare(known)
        at = pc.index_in(known.ids, rows.keys)
        gone = known.ids.filter(pc.is_null(at))
        if len(changed) or len(gone):
            self.ledger.retract()
            self.ledger.begin(pa.concat_arrays([rows.keys.take(pa.array(changed)), gone]))
            self._upsert(changed, digests)
            self._delete(gone)
        self.ledger.finish(rows.keys, digests, blocks)
        return len(changed), len(gone)

    def _compare(self, known: Sent) -> tuple[Digests, pa.Array, Numbers]:
        """Return the hash and the block of each row, and which rows must be sent."""
        rows = self.rows
        at = known.find(rows.keys)
        digests = np.zeros((len(rows), DIGEST_BYTES), np.uint8)
        blocks = np.zeros((len(rows), DIGEST_BYTES), np.uint8)
        must = np.zeros(len(rows), np.bool_)
        self.progress.start("comparing with the engine", rows.items, "images")
        for block in rows.stretches:
            these = rows.rows_of(block.start, block.end)
            blocks[these] = np.frombuffer(block.digest, np.uint8)
            if known.rows_of_blocks.get(block.digest) == len(these):
                digests[these] = known.digests[at[these]]
            else:
                these, found = rows.digests(block.start, block.end)
                digests[these] = np.frombuffer(b"".join(found), np.uint8).reshape(-1, DIGEST_BYTES)
                places = at[these]
                same = (digests[these] == known.digests[places]).all(axis=1) if len(known) else must
                is_known = known.is_known[places] if len(known) else must
                must[these] = ~((places >= 0) & is_known & same) if len(known) else True
            self.progress.advance(block.end - block.start)
        self.progress.finish()
        as_arrow = pa.Array.from_buffers(
            pa.binary(DIGEST_BYTES), len(blocks), [None, pa.py_buffer(blocks)]
        )
        return digests, as_arrow, rows.as_stored(np.flatnonzero(must))

    def _upsert(self, changed: Numbers, digests: Digests) -> None:
        per_call = max(1, CALL_BYTES // (4 * self.rows.space.dim + ROW_BYTES))
        self.progress.start("sending", len(changed), "rows")
        for start in range(0, len(changed), ROWS_IN_MEMORY):
            some = changed[start : start + ROWS_IN_MEMORY]
            keys: list[str] = []
            for call in _batches(self.rows.read(some), per_call):
                self.client.upsert(self.name, call)
                keys += [row[KEY] for row in call]
                self.progress.advance(len(call))
            self.ledger.record(keys, [digests[row].tobytes() for row in some])
        self.progress.finish()

    def _delete(self, gone: pa.Array) -> None:
        self.progress.start("deleting", len(gone), "rows")
        for start in range(0, len(gone), DELETED_AT_ONCE):
            ids = gone.slice(start, DELETED_AT_ONCE).to_pylist()
            self.client.delete(self.name, ids=ids)
            self.progress.advance(len(ids))
        self.progress.finish()

    def _settle(self) -> None:
        """Wait until all rows are stored and indexed, and the collection is ready to answer."""
        self.client.flush(self.name, timeout=STALL_SECONDS)
        self.progress.start("indexing in the engine", None, "")
        for state in until_still(lambda: self.client.describe_index(self.name, VECTOR)):
            if not int(state.get("pending_index_rows") or 0):
                break
        load(self.client, self.name, self.index.replicas)
        self.progress.finish()

    def _vocabulary(self, encode_texts: EncodeTexts | None) -> Vectors | None:
        """Return the vectors of `vocabulary.words()`; None if nobody can make them."""
        space = self.rows.space
        for colour in COLOURS:
            name = collection_name(self.index.collection, space, colour)
            known = Ledger(self.store.engine(name)).published()
            if (
                known is not None
                and (found := read_vocabulary(self.client, name, known)) is not None
            ):
                return found
        if encode_texts is None:
            return None
        return check_vectors(encode_texts(words()), space.dim, "vocabulary")

    def _check_count(self) -> Check:
        """Check that the engine holds as many rows as the tables."""
        found = count(self.client, self.name)
        return Check(
            name="engine_is_complete",
            passed=found == len(self.rows),
            found=f"the engine holds {found:,} rows, the tables {len(self.rows):,}",
        )

    def _info(
        self,
        created_at: datetime,
        measured: Measured,
        sent: int,
        deleted: int,
        seconds: float,
        sample: Vectors,
        texts: Vectors | None,
        checks: Sequence[Check],
    ) -> PublishedInfo:
        rows, space = self.rows, self.rows.space
        return PublishedInfo(
            schema_version=SCHEMA_VERSION,
            build=f"{created_at:%Y%m%dT%H%M%S.%f}Z-{self.inputs[:8]}",
            created_at=created_at,
            inputs=self.inputs,
            model=space.model,
            revision=space.revision,
            dim=space.dim,
            preprocessing=space.preprocessing,
            items=rows.items,
            views=rows.views,
            locations=sum(rows.inputs.sources.values()),
            sources=rows.inputs.sources,
            background=measure_background(sample, texts),
            vocabulary=None if texts is None else vocabulary_digest(),
            has_facts=rows.tables.facts is not None,
            index_type=self.index.index_type,
            shards=self.index.shards,
            replicas=self.index.replicas,
            recall_at_10=measured.recall,
            sent=sent,
            deleted=deleted,
            seconds=seconds,
            checks=tuple(checks),
        )

    def _tell(
        self, info: PublishedInfo, sample_rows: Numbers, sample: Vectors, texts: Vectors | None
    ) -> None:
        """Write what is known of the whole into the collection beside this one."""
        axis = _first_axis(info.dim)
        made = self.ledger.made()
        token = "" if made is None else made.token
        told: dict[str, tuple[Any, Any]] = {
            "made": (axis, {"token": token}),
            "info": (axis, info.model_dump(mode="json")),
        }
        for number, vector in enumerate([] if texts is None else texts):
            told[f"word/{number:05d}"] = (vector, {})
        ids = self.rows.keys.take(pa.array(sample_rows)).to_pylist()
        for number, (vector, key) in enumerate(zip(sample, ids, strict=True)):
            told[f"sample/{number:04d}"] = (vector, {"id": key})
        for kind, values in values_of(self.rows).items():
            for number, some in enumerate(_chunks(values)):
                told[f"values/{kind}/{number:04d}"] = (axis, {"values": some})
        self.client.load_collection(self.about)
        there = self.client.query(
            self.about, filter=f'{KEY} != ""', output_fields=[KEY], limit=16_384
        )
        if gone := [row[KEY] for row in there if row[KEY] not in told]:
            self.client.delete(self.about, ids=gone)
        rows = ({KEY: key, VECTOR: vector, "data": data} for key, (vector, data) in told.items())
        for call in _batches(rows, 256):
            self.client.upsert(self.about, call)


def values_of(rows: TableRows) -> dict[str, list[Any]]:
    """Return the values of some facts: of camera and lens, of year, and of place with counts."""
    if rows.tables.facts is None:
        return {}
    facts = rows.tables.facts
    taken = facts["taken_at"].drop_null().to_numpy().astype("datetime64[us]")
    years = 1970 + np.unique(taken.astype("datetime64[Y]").astype(np.int64))
    found: dict[str, list[Any]] = {"year": years.tolist()}
    for name in ("camera", "lens"):
        found[name] = sorted(pc.unique(facts[name].cast(pa.string()).drop_null()).to_pylist())
    places = pa.table({name: facts[name].cast(pa.string()) for name in ("place", "country")})
    counts = places.group_by(["place", "country"]).aggregate([([], "count_all")]).to_pylist()
    found["place"] = sorted(
        [row["place"], row["country"], row["count_all"]] for row in counts if row["place"]
    )
    return {kind: values for kind, values in found.items() if values}


def _chunks(values: list[Any]) -> Iterator[list[Any]]:
    """Yield values in lists that each fit into a JSON value."""
    some: list[Any] = []
    size = 0
    for value in values:
        more = json_bytes(value) + 2
        if some and size + more > JSON_BYTES:
            yield some
            some, size = [], 0
        some.append(value)
        size += more
    yield some


def _batches(rows: Iterable[dict[str, Any]], count: int) -> Iterator[list[dict[str, Any]]]:
    rows = iter(rows)
    while some := list(islice(rows, count)):
        yield some


def _first_axis(dim: int) -> Vectors:
    """Return a vector of rows that need none."""
    axis = np.zeros(dim, np.float32)
    axis[0] = 1.0
    return axis
