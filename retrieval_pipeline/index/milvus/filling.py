"""One collection of the engine, brought up to date: made, filled by differences, checked."""

import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.config.settings import IndexSettings
from retrieval_pipeline.errors import EngineError, StoreError, UnreadableError
from retrieval_pipeline.index.build_info import Check, vocabulary_digest
from retrieval_pipeline.index.builder import passed
from retrieval_pipeline.index.knn import evenly_spaced
from retrieval_pipeline.index.milvus.about import made_row, retract, tell
from retrieval_pipeline.index.milvus.checks import (
    Measured,
    how_to_fill_anew,
    measure_recall,
    same_vectors,
)
from retrieval_pipeline.index.milvus.client import Client
from retrieval_pipeline.index.milvus.collections import (
    STALL_SECONDS,
    count,
    drop,
    load,
    read_vocabulary,
    until_still,
)
from retrieval_pipeline.index.milvus.ledger import Collection, Digests, Ledger, Sent
from retrieval_pipeline.index.milvus.schema import (
    KEY,
    METRIC,
    SCHEMA_VERSION,
    VECTOR,
    PublishedInfo,
    about_name,
    about_schema,
    build_name,
    collection_name,
    microseconds,
    row_schema,
)
from retrieval_pipeline.index.milvus.tables import TableRows
from retrieval_pipeline.index.score_statistics import SAMPLE_PICTURES, measure_background
from retrieval_pipeline.index.vocabulary import words
from retrieval_pipeline.progress import Progress
from retrieval_pipeline.storage.content_id import DIGEST_BYTES
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import EncodeTexts, Numbers, Vectors, check_vectors

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

# Checks a collection before it answers, by its rows.
AcceptRows = Callable[[TableRows], Sequence[Check]]


@dataclass
class Filling:
    """A collection that is brought up to date with the tables.

    Attributes:
        store: Where the ledgers are.
        client: The engine.
        index: The settings of the engine, as it takes them.
        rows: What the collection is to hold.
        inputs: Hash of them, and of the settings that decide what is published.
        name: Of the collection.
        answering: The collection that answers; None if there is none.
        progress: Told about stages and rows.
        is_new: Whether the collection was made, and so everything sent, by this publication.
    """

    store: Store
    client: Client
    index: IndexSettings
    rows: TableRows
    inputs: str
    name: str
    answering: str | None
    progress: Progress
    is_new: bool = False

    @property
    def ledger(self) -> Ledger:
        """What was sent to it."""
        return Ledger(self.store.engine(self.name))

    def fill(self, encode_texts: EncodeTexts | None, accept: AcceptRows | None) -> PublishedInfo:
        """Send what has changed, check the collection, and write down what it holds.

        Raises:
            RefusedBuildError: A check failed.
        """
        started, created_at = time.monotonic(), datetime.now(UTC)
        self._make()
        known = self.ledger.read()
        sent, deleted = self._send(known, created_at)
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
        made = self.ledger.made()
        token = "" if made is None else made.token
        tell(self.client, self.name, token, info, self.rows, (sample_rows, sample), texts)
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
        self._create(about_name(self.name), about_schema(dim), "FLAT", 1)
        self.client.upsert(about_name(self.name), [made_row(dim, wanted.token)])
        # Empty: whether there are nodes for so many replicas is known before anything is sent.
        load(self.client, self.name, self.index.replicas)
        self.is_new = True

    def _is_ours(self) -> bool:
        """Tell whether a collection that is there was made from this home."""
        made = self.ledger.made()
        return made is not None and self._token() in (None, made.token)

    def _token(self) -> str | None:
        """Return the token that tells whose the collection is; None if it was not finished."""
        if not self.client.has_collection(about_name(self.name)):
            return None
        self.client.load_collection(about_name(self.name))
        found = self.client.query(
            about_name(self.name),
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
        # With the index in one call, it would be loaded as well, with one replica for good.
        self.client.create_collection(name, schema=schema, num_shards=shards)
        self.client.create_index(name, params)

    def _send(self, known: Sent, created_at: datetime) -> tuple[int, int]:
        """Send the rows that differ, delete those that have gone, and return how many."""
        rows = self.rows
        digests, blocks, changed = self._compare(known)
        first_published = self._first_published(known, microseconds(created_at))
        at = pc.index_in(known.ids, rows.keys)
        gone = known.ids.filter(pc.is_null(at))
        if len(changed) or len(gone):
            self.ledger.retract()
            retract(self.client, self.name)
            self.ledger.begin(pa.concat_arrays([rows.keys.take(pa.array(changed)), gone]))
            self._upsert(changed, digests, first_published)
            self._delete(gone)
        self.ledger.finish(rows.keys, digests, blocks, first_published)
        return len(changed), len(gone)

    def _first_published(self, known: Sent, now: int) -> Numbers:
        """Return when the picture of each row was first published, int64 (rows,).

        That is what the ledger of the collection knows, or of the one that answers.
        """
        rows = self.rows
        pictures = rows.keys.slice(0, rows.items)
        found = np.zeros(rows.items, np.int64)
        if len(known):
            at = known.find(pictures)
            found = np.where(at >= 0, known.first_published[at], 0)
        new = np.flatnonzero(found == 0)
        if len(new) and self.answering is not None:
            answering = Ledger(self.store.engine(self.answering))
            found[new] = answering.first_published(pictures.take(pa.array(new)))
        return np.where(found > 0, found, now)[rows.owners]

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

    def _upsert(self, changed: Numbers, digests: Digests, first_published: Numbers) -> None:
        per_call = max(1, CALL_BYTES // (4 * self.rows.space.dim + ROW_BYTES))
        self.progress.start("sending", len(changed), "rows")
        for start in range(0, len(changed), ROWS_IN_MEMORY):
            some = changed[start : start + ROWS_IN_MEMORY]
            keys: list[str] = []
            rows = (
                {**row, "first_published": moment}
                for row, moment in zip(
                    self.rows.read(some), first_published[some].tolist(), strict=True
                )
            )
            for call in _batches(rows, per_call):
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
        found, wanted = count(self.client, self.name), len(self.rows)
        return Check(
            name="engine_is_complete",
            passed=found == wanted,
            found=f"the engine holds {found:,} rows, the tables {wanted:,}"
            + ("" if found == wanted else how_to_fill_anew(self.name)),
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
            build=build_name(created_at, self.inputs),
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


def _batches(rows: Iterable[dict[str, Any]], count: int) -> Iterator[list[dict[str, Any]]]:
    rows = iter(rows)
    while some := list(islice(rows, count)):
        yield some
