"""The ledger: which rows were sent to a collection, so that only differences are sent again.

A publication can be killed at any moment. What it is about to send or delete is written down before
the first call, and what has arrived after every few calls. The next one sends again only what may
not have arrived; a row that is sent twice is there once, since its primary key is the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from pydantic import BaseModel, ValidationError

from retrieval_pipeline.errors import StoreError
from retrieval_pipeline.index.arrow import no_rows, one_chunk
from retrieval_pipeline.index.blocks import Block
from retrieval_pipeline.index.milvus.schema import PublishedInfo
from retrieval_pipeline.storage.atomic import discard, replacing
from retrieval_pipeline.storage.content_id import DIGEST_BYTES
from retrieval_pipeline.storage.names import SENT_NAME
from retrieval_pipeline.storage.reading import is_there, listed, reading
from retrieval_pipeline.storage.schemas import LEDGER
from retrieval_pipeline.storage.stored_model import StoredModel
from retrieval_pipeline.storage.tables import read_table, write_table
from retrieval_pipeline.vectors import Flags, Numbers

REMEDY = "drop the collection of that name in the engine, and remove this directory"

# uint8 (n, DIGEST_BYTES).
Digests = npt.NDArray[np.uint8]

_Model = TypeVar("_Model", bound=BaseModel)

_IDS = pa.schema([LEDGER.field("id")])
_SENT = pa.schema([LEDGER.field("id"), LEDGER.field("digest")])


class Collection(StoredModel):
    """A collection as it was made.

    Attributes:
        token: A random text that the collection holds, too: it tells that it is ours.
        schema_version: What its rows mean.
        dim: Number of components of its vectors.
        index_type: The engine's kind of index.
        shards: How many parts are written at the same time.
        replicas: How many copies are kept in memory.
    """

    token: str
    schema_version: int
    dim: int
    index_type: str
    shards: int
    replicas: int


class _Blocks(StoredModel):
    blocks: tuple[Block, ...]


@dataclass(frozen=True)
class Sent:
    """The rows that a collection may hold.

    Attributes:
        ids: Their primary keys.
        digests: Hashes of what was sent.
        is_known: Whether it is known that the row arrived, bool (n,).
        blocks: Hashes of the blocks that they belong to; null where that is not known.
        first_published: When their pictures were first published, int64 (n,), in microseconds since
            1970; 0 where that is not known.
    """

    ids: pa.Array
    digests: Digests
    is_known: Flags
    blocks: pa.Array
    first_published: Numbers

    def __len__(self) -> int:
        return len(self.ids)

    def find(self, ids: pa.Array) -> Numbers:
        """Return the place of each id, int64 (n,); -1 for one that was never sent."""
        return np.array(pc.fill_null(pc.index_in(ids, self.ids), -1).to_numpy(), np.int64)

    @cached_property
    def rows_of_blocks(self) -> dict[bytes, int]:
        """How many rows of each block the collection holds."""
        counts = pc.value_counts(pc.drop_null(self.blocks)).to_pylist()
        return {each["values"]: each["counts"] for each in counts}


class Ledger:
    """What was sent to one collection, as files in a directory of home."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    @property
    def _base(self) -> Path:
        return self.directory / "ledger.parquet"

    @property
    def _pending(self) -> Path:
        return self.directory / "pending.parquet"

    @property
    def _parts(self) -> list[Path]:
        return listed(self.directory, SENT_NAME)

    def read(self) -> Sent:
        """Return what the collection may hold.

        Raises:
            StoreError: A file is damaged.
        """
        base = no_rows(LEDGER)
        if is_there(self._base):
            base = read_table(self._base, LEDGER, remedy=REMEDY)
        ids, digests = one_chunk(base["id"]), one_chunk(base["digest"])
        blocks, is_known = one_chunk(base["block"]), np.array(digests.is_valid())
        first = one_chunk(base["first_published"]).to_numpy()
        if is_there(self._pending):
            pending = one_chunk(read_table(self._pending, _IDS, remedy=REMEDY)["id"])
            at = pc.fill_null(pc.index_in(pending, ids), -1).to_numpy()
            is_known[at[at >= 0]] = False
            further = pending.filter(pa.array(at < 0))
            ids = pa.concat_arrays([ids, further])
            unknown = pa.nulls(len(further), pa.binary(DIGEST_BYTES))
            digests = pa.concat_arrays([digests, unknown])
            is_known = np.concatenate([is_known, np.zeros(len(further), np.bool_)])
            blocks = pa.concat_arrays([blocks, unknown])
            blocks = pc.if_else(pa.array(is_known), blocks, None)
            first = np.concatenate([first, np.zeros(len(further), np.int64)])
        rows = _as_bytes(digests)
        for part in self._parts:
            table = read_table(part, _SENT, remedy=REMEDY)
            at = pc.index_in(one_chunk(table["id"]), ids)
            there = np.asarray(at.is_valid())
            places = pc.drop_null(at).to_numpy()
            rows[places] = _as_bytes(one_chunk(table["digest"]))[there]
            is_known[places] = True
        return Sent(ids, rows, is_known, blocks, first)

    def first_published(self, ids: pa.Array) -> Numbers:
        """Return when pictures were first published, int64 (n,), as LEDGER has it; 0 if unknown.

        Raises:
            StoreError: The ledger is damaged.
        """
        found = np.zeros(len(ids), np.int64)
        if is_there(self._base):
            columns = ["id", "first_published"]
            known = read_table(self._base, LEDGER, columns, remedy=REMEDY)
            # The hash table is that of the few that are asked for.
            at = pc.index_in(one_chunk(known["id"]), ids)
            moments = one_chunk(known["first_published"]).filter(at.is_valid())
            found[at.drop_null().to_numpy()] = moments.to_numpy()
        return found

    @property
    def is_unfinished(self) -> bool:
        """Whether a run has begun to send rows, and not written down all of them."""
        return is_there(self._pending) or bool(self._parts)

    def begin(self, ids: pa.Array) -> None:
        """Write down which rows are about to be sent or deleted.

        Raises:
            StoreError: A file is damaged, or the file system refused.
        """
        if self.is_unfinished:
            sent = self.read()
            self.finish(sent.ids, sent.digests, sent.blocks, sent.first_published, sent.is_known)
        write_table(self._pending, pa.table([ids], schema=_IDS))

    def record(self, ids: Sequence[str], digests: Sequence[bytes]) -> None:
        """Write down that rows have arrived.

        Raises:
            StoreError: The file system refused.
        """
        number = int(self._parts[-1].stem.removeprefix("sent-")) + 1 if self._parts else 1
        columns = [pa.array(ids, pa.string()), pa.array(digests, pa.binary(DIGEST_BYTES))]
        write_table(self.directory / f"sent-{number:06d}.parquet", pa.table(columns, schema=_SENT))

    def finish(
        self,
        ids: pa.Array,
        digests: Digests,
        blocks: pa.Array,
        first_published: Numbers,
        is_known: Flags | None = None,
    ) -> None:
        """Write down all that the collection holds now; nothing is pending any more.

        Arguments are columns of LEDGER; `is_known` tells which rows have arrived, by default all.

        Raises:
            StoreError: The file system refused.
        """
        columns = [ids, _as_arrow(digests, is_known), blocks, pa.array(first_published)]
        write_table(self._base, pa.table(columns, schema=LEDGER))
        # In this order: without the list of what was pending, the parts say nothing new.
        for file in (self._pending, *self._parts):
            if is_there(file):
                discard(file)

    def made(self) -> Collection | None:
        """Return how the collection was made; None if it was not made from this home.

        Raises:
            StoreError: The file is damaged.
        """
        return _read(self.directory / "collection.json", Collection)

    def published(self) -> PublishedInfo | None:
        """Return the last publication that was finished; None if there is none.

        Raises:
            StoreError: The file is damaged.
        """
        return _read(self.directory / "published.json", PublishedInfo)

    def write_made(self, made: Collection) -> None:
        """Forget what was sent to a former collection of this name, and write down a new one.

        Raises:
            StoreError: The file system refused.
        """
        self.forget()
        _write(self.directory / "collection.json", made)

    def blocks(self) -> tuple[Block, ...]:
        """Return the blocks of the last publication; none if that is not known."""
        found = _read(self.directory / "blocks.json", _Blocks)
        return () if found is None else found.blocks

    def write_published(self, info: PublishedInfo, blocks: tuple[Block, ...]) -> None:
        """Write down a publication that has passed its checks, and the blocks it was made from.

        Raises:
            StoreError: The file system refused.
        """
        _write(self.directory / "blocks.json", _Blocks(blocks=blocks))
        _write(self.directory / "published.json", info)

    def retract(self) -> None:
        """Forget the last publication: the collection is about to become something else.

        Raises:
            StoreError: The file system refused.
        """
        if is_there(self.directory / "published.json"):
            discard(self.directory / "published.json")

    def forget(self) -> None:
        """Remove all files: the collection is gone.

        Raises:
            StoreError: The file system refused.
        """
        names = (
            *("published.json", "blocks.json", "ledger.parquet", "pending.parquet"),
            "collection.json",
        )
        for file in (*self._parts, *(self.directory / name for name in names)):
            if is_there(file):
                discard(file)


def _as_bytes(digests: pa.Array) -> Digests:
    """Return hashes as uint8 (n, DIGEST_BYTES), a copy; those of null mean nothing."""
    if not len(digests):
        return np.empty((0, DIGEST_BYTES), np.uint8)
    start = digests.offset * DIGEST_BYTES
    data = np.frombuffer(digests.buffers()[1], np.uint8)
    return data[start : start + len(digests) * DIGEST_BYTES].reshape(-1, DIGEST_BYTES).copy()


def _as_arrow(digests: Digests, is_known: Flags | None) -> pa.Array:
    data = pa.py_buffer(np.ascontiguousarray(digests))
    array = pa.Array.from_buffers(pa.binary(DIGEST_BYTES), len(digests), [None, data])
    return array if is_known is None else pc.if_else(pa.array(is_known), array, None)


def _read(file: Path, model: type[_Model]) -> _Model | None:
    if not is_there(file):
        return None
    try:
        with reading(file):
            return model.model_validate_json(file.read_bytes())
    except (OSError, ValidationError):
        raise StoreError(f"{file}: damaged: {REMEDY}") from None


def _write(file: Path, value: BaseModel) -> None:
    with replacing(file) as temporary:
        temporary.write_text(value.model_dump_json(indent=1), encoding="utf-8")
