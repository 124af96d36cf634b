"""What was published, read from the tables of the home that published it.

An engine finds what is near, and does not give all of what it holds: labels, exports, duplicates,
maps and evaluations read the blocks that the ledger names, and the vectors of the Parquet tables.
"""

import functools
import tempfile
import threading
from collections.abc import Callable, Collection, Iterator
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa

from retrieval_pipeline.errors import BuildError, StoreError
from retrieval_pipeline.index.arrow import one_chunk
from retrieval_pipeline.index.blocks import ItemTables, open_blocks
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.index.items import JoinedRows, read_pictures, read_vectors
from retrieval_pipeline.index.knn import Plan, VectorIndex, evenly_spaced
from retrieval_pipeline.index.matrices import Matrix
from retrieval_pipeline.index.milvus.ledger import Ledger
from retrieval_pipeline.index.milvus.schema import PublishedInfo
from retrieval_pipeline.index.row_keys import RowKeys, find, keys_of, view_keys
from retrieval_pipeline.index.runs import RowMap, to_runs
from retrieval_pipeline.index.segment import Precision
from retrieval_pipeline.index.segmented_index import Part, SegmentedIndex
from retrieval_pipeline.storage.schemas import VIEW_COLUMNS, embedding_schema, views_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_table
from retrieval_pipeline.vectors import Numbers, Vectors

# Rows whose vectors are read from the tables together: 400 MB at 768 dimensions.
ROWS_AT_A_TIME = 131_072

# Returns for each vector, (n, dim), the content ids of so many items that the engine finds nearest.
Nearest = Callable[[Vectors, int], list[list[str]]]


class PublishedCorpus(Corpus):
    """All items of a publication, with every vector compared exactly.

    What is told of items is mapped into memory. The vectors lie in Parquet files in the order in
    which they were embedded: when the first one is asked for, they are copied into a file without a
    name in the directory for temporary files, which ends with this object.
    """

    info: PublishedInfo

    def __init__(
        self,
        store: Store,
        collection: str,
        info: PublishedInfo,
        precision: Precision,
        vocabulary: Callable[[], Vectors | None],
        nearest: Nearest | None = None,
        tables: ItemTables | None = None,
    ) -> None:
        """Open the items of a publication.

        Args:
            store: Has the tables and the ledger.
            collection: Name of the collection that holds the publication.
            info: Of the publication.
            precision: What its vectors are rounded to.
            vocabulary: Returns the vectors of the words of the vocabulary.
            nearest: Asks the engine; without it, `proposed` compares with all.
            tables: Of some of the items; None opens the tables of all.

        Raises:
            BuildError: What is told of the items is damaged.
            StoreError: The ledger is damaged.
        """
        if tables is None:
            blocks = Ledger(store.engine(collection)).blocks()
            tables = open_blocks(store.blocks(info.space), blocks, set())
        super().__init__(info.build, info, tables)
        self._collection = collection
        self._store = store
        self._precision: Precision = precision
        self._vocabulary = vocabulary
        self._nearest = nearest
        self._lock = threading.Lock()
        self._copied: SegmentedIndex | None = None

    def _read_vocabulary(self) -> Vectors | None:
        return self._vocabulary()

    def _open_vectors(self) -> SegmentedIndex:
        # Threads that ask at the same time wait for one copy.
        with self._lock:
            if self._copied is None:
                self._copied = self._copy_vectors()
            return self._copied

    def _copy_vectors(self) -> SegmentedIndex:
        rows, dim, order = len(self.rows), self.info.dim, []
        try:
            # The array keeps the file, and the file its space, until nobody refers to the array.
            with tempfile.TemporaryFile() as file:
                for some, vectors in self._as_stored():
                    order.append(some)
                    file.write(vectors.data)
                file.flush()
                matrix = np.memmap(file, self._precision, "r", shape=(rows, dim))
        except OSError as error:
            raise StoreError(
                f"{tempfile.gettempdir()}: {error.strerror}: the vectors are copied there to be "
                "compared; $TMPDIR names another directory"
            ) from None
        runs = to_runs([np.concatenate(order).astype(np.int32)])
        part = Part(VectorIndex([matrix]), Plan(kind="scan"))
        return SegmentedIndex([part], RowMap(runs, (rows,), rows))

    def _as_stored(self) -> Iterator[tuple[Numbers, Matrix]]:
        """Yield all rows in the order in which their vectors are stored, and these vectors."""
        dim, start = self.info.dim, 0
        for joined, schema in zip(
            self._stored, (embedding_schema(dim), views_schema(dim)), strict=True
        ):
            order = np.argsort(joined.rows, kind="stable")
            for first in range(0, len(order), ROWS_AT_A_TIME):
                some = order[first : first + ROWS_AT_A_TIME]
                vectors = np.empty((len(some), dim), self._precision)
                read_vectors(joined, schema, some, vectors, np.arange(len(some)))
                yield start + some, vectors
            start += len(joined)

    @property
    def _stored(self) -> tuple[JoinedRows, JoinedRows]:
        """Where the vectors of the items are, and those of their further views."""
        space = self.info.space
        keys = self._keys
        pictures = read_pictures(self._store, space)
        own = self._found(keys, pictures.keys, pictures.parts)
        if not len(self.views):
            return own, JoinedRows(keys[:0], np.empty(0, np.int64), [])
        paths, schema = self._store.view_parts(space), views_schema(space.dim)
        tables = [read_table(path, schema, ["content_id", *VIEW_COLUMNS]) for path in paths]
        stored = pa.concat_tables(tables)
        numbered = stored.append_column("item", pa.array(np.arange(len(stored))))
        known = view_keys(keys_of(stored["content_id"]), numbered)
        parts = [(path, len(table)) for path, table in zip(paths, tables, strict=True)]
        return own, self._found(view_keys(keys, self.views), known, parts)

    def _found(self, keys: RowKeys, stored: RowKeys, parts: list[tuple[Path, int]]) -> JoinedRows:
        """Return where the rows with these keys are among the stored ones."""
        rows = find(keys, stored)
        if missing := int((rows < 0).sum()):
            raise BuildError(
                f"{self._store.home}: the tables lack {missing:,} vectors of what was published: "
                "run `retrieval index`"
            )
        return JoinedRows(keys, rows.astype(np.int64), parts)

    def proposed(self, vectors: Vectors, count: int) -> list[Numbers]:
        """Return for each vector the items that the engine finds nearest, ascending."""
        if self._nearest is None:
            return super().proposed(vectors, count)
        ids = self._nearest(vectors, count)
        numbers = find(keys_of(pa.array(chain.from_iterable(ids), pa.string())), self._keys)
        found = np.split(numbers.astype(np.int64), np.cumsum([len(each) for each in ids])[:-1])
        return [np.sort(each[each >= 0]) for each in found]

    def sampled(self, most: int, also: Collection[str] = ()) -> Corpus:
        """Return this corpus, or one of `most` evenly spaced items and those that must be there."""
        if len(self) <= most:
            return self
        further = [number for each in also if (number := self.number_of(each)) is not None]
        numbers = np.union1d(evenly_spaced(len(self), most), np.array(further, np.int64))
        rows = pa.array(numbers)
        owners = one_chunk(self.companions["item"]).to_numpy()
        kept = np.isin(owners, numbers)
        companions = self.companions.filter(pa.array(kept))
        at = companions.schema.get_field_index("item")
        field = companions.schema.field("item")
        items = pa.array(np.searchsorted(numbers, owners[kept]), field.type)
        tables = ItemTables(
            items=self.items.take(rows),
            facts=None if self._facts is None else self._facts.take(rows),
            companions=companions.set_column(at, field, items),
            views=self.views.slice(0, 0),
        )
        return PublishedCorpus(
            self._store,
            self._collection,
            self.info.model_copy(update={"items": len(rows), "views": 0}),
            self._precision,
            self._vocabulary,
            tables=tables,
        )

    @functools.cached_property
    def _keys(self) -> RowKeys:
        return keys_of(self.items["content_id"])


def is_from_here(store: Store, collection: str, info: PublishedInfo) -> bool:
    """Tell whether a publication was made from this home, which then has its tables.

    Raises:
        StoreError: The ledger is damaged.
    """
    known = Ledger(store.engine(collection)).published()
    return known is not None and known.build == info.build
