"""All that is known of pictures as one table: paths, facts, vectors, map, labels, votes, albums.

The table comes in batches, so that a million pictures need no more memory than some thousands.
"""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline import __version__
from retrieval_pipeline.errors import MapError, StoreError
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.index.facts_table import FACTS_COLUMNS
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.latent_map.coordinates import read_coordinates, read_map_info
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.recommend.votes import (
    read_judgements,
    recommender_names,
    votes_that_count,
)
from retrieval_pipeline.search.filters import file_test
from retrieval_pipeline.search.labels import read_labels
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.relevance import LIKELY
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.albums import album_names, read_album
from retrieval_pipeline.storage.reading import is_there
from retrieval_pipeline.storage.schemas import LABELS
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Numbers, Values

# Pictures that are in memory at a time: 25 MB of vectors at 768 dimensions.
BATCH = 8_192

# Column -> what it holds. It goes into the metadata of a file, and into docs/export.md.
COLUMNS = {
    "content_id": "first 128 bits of the BLAKE3 of the file's bytes, as hex",
    "path": "absolute path or URL of the first file; bytes that are not UTF-8 as \\xNN",
    "source": "name of the source that the file is in",
    "path_in_source": "path below the source's directory",
    "copies": "absolute paths of all files that hold the same bytes",
    "width": "pixels of the upright picture",
    "height": "pixels of the upright picture",
    "format": "file format, as Pillow names it",
    "rank": "place among the hits of the query, from 1; null without one",
    "relevance": "0 to 1: how sure it is that the picture has to do with the query; null without",
    "taken_at": "when it was taken, by the clock on the wall there",
    "utc_offset_minutes": "of that clock, east of UTC positive",
    "taken_from": "where the date was found: exif, xmp, ..., file_time",
    "camera": "make and model",
    "lens": "model of the lens",
    "iso": "sensitivity",
    "exposure_seconds": "exposure time",
    "f_number": "focal length divided by aperture",
    "focal_length_mm": "as it is, not as on 35 mm film",
    "latitude": "WGS 84 degrees, north positive",
    "longitude": "WGS 84 degrees, east positive",
    "altitude_m": "metres above the sea",
    "orientation": "EXIF orientation of the stored pixels",
    "title": "a short name",
    "caption": "a description",
    "keywords": "tags of the file",
    "rating": "stars, 0 to 5; -1 is rejected",
    "place": "the nearest town",
    "region": "its region",
    "country": "ISO 3166-1 alpha-2",
    "map_x": "along the first principal component of the map; null if the map is not drawn",
    "map_y": "along the second principal component",
    "map_z": "along the third principal component",
    "cluster": "the word that fits its cluster of the map best",
    "labels": "words of `retrieval label` that fit it",
    "label_relevance": "how sure each of them is, 0 to 1",
    "liked_by": "recommenders in which it was liked last",
    "disliked_by": "recommenders in which it was disliked last",
    "albums": "albums that it is in",
    "embedding": "unit vector, float32",
}

_STRINGS = pa.list_(pa.string())
_TYPES = {
    **dict.fromkeys(
        ("copies", "keywords", "labels", "liked_by", "disliked_by", "albums"), _STRINGS
    ),
    **dict.fromkeys(("width", "height"), pa.int32()),
    **dict.fromkeys(("relevance", "map_x", "map_y", "map_z"), pa.float32()),
    "rank": pa.int64(),
    "label_relevance": pa.list_(pa.float32()),
    "taken_at": pa.timestamp("us"),
}


@dataclass(frozen=True)
class Selection:
    """The pictures of an export.

    Attributes:
        query: What was asked.
        numbers: Of the items, int64 (n,): best first, or in the order of the index.
        relevance: float64 (n,); None if nothing was looked for.
    """

    query: Query
    numbers: Numbers
    relevance: Values | None


def select(searcher: Searcher, query: Query, most: int | None = None) -> Selection:
    """Return which pictures a query chooses, compared with all: all without one.

    Args:
        searcher: Of the index.
        query: Words and filters. With words and neither `most` nor a least relevance, the likely
            pictures are chosen.
        most: Choose no more than these, the best ones.

    Raises:
        QueryError: As `Searcher.search` does.
        EncoderError: The model cannot be had.
        NotOnEngineError: An engine keeps the index, and it was not published from this home.
    """
    searcher = searcher.whole
    asked, _ = searcher.understand(query)
    if asked.asks:
        if most is None and not asked.min_relevance:
            asked = replace(asked, min_relevance=LIKELY)
        numbers, relevance = searcher.relevant_items(asked, most)
        return Selection(asked, numbers, relevance)
    allowed = searcher.allowed(asked)
    numbers = np.arange(len(searcher.corpus)) if allowed is None else np.flatnonzero(allowed)
    return Selection(asked, numbers[:most], None)


def picture_table(
    searcher: Searcher, query: Query | None = None, most: int | None = None, *, vectors: bool = True
) -> pa.Table:
    """Return the columns of COLUMNS for the hits of a query, or for all pictures.

    `.to_pandas()` makes a data frame of it. Arguments and errors are those of `select`.

    Args:
        searcher: Of the index.
        query: Words and filters; None for all pictures.
        most: No more than these, the best ones.
        vectors: False leaves out the column of the vectors.
    """
    export = PictureRows(searcher, select(searcher, query or Query(), most), vectors=vectors)
    return pa.Table.from_batches(list(export.batches()), export.schema)


class PictureRows:
    """The rows of an export, batch by batch.

    Attributes:
        schema: Of the batches: a column's metadata has its `description`, the schema's have
            `retrieval`, the JSON of what was exported from which index of which model.
        selection: Which pictures.
        searcher: Of the index.
    """

    def __init__(self, searcher: Searcher, selection: Selection, *, vectors: bool = True) -> None:
        """Read what is kept beside the index.

        Raises:
            StoreError: A table of votes, albums, labels or the map is damaged.
        """
        self.searcher, self.selection = searcher, selection
        corpus, store = searcher.corpus, Store(searcher.settings.home)
        self.schema = _schema(corpus, selection.query, vectors=vectors)
        ids = corpus.items["content_id"]
        self._known = corpus.facts
        self._map = _Map(corpus, store)
        labels = read_labels(store)
        marks = LABELS.empty_table() if labels is None else labels.table
        contents, *marked = (marks[field.name].combine_chunks() for field in LABELS)
        self._labels = _Lists.of_ids(ids, contents, marked)
        albums = {
            name: [picture.content_id for picture in read_album(store, name)]
            for name in album_names(store)
        }
        votes = {
            name: votes_that_count(read_judgements(store, name))
            for name in recommender_names(store)
        }
        self._members = {"albums": _Lists.of(ids, albums)}
        for column, liked in (("liked_by", True), ("disliked_by", False)):
            chosen = {
                name: [content for content, vote in given.items() if vote is liked]
                for name, given in votes.items()
            }
            self._members[column] = _Lists.of(ids, chosen)

    def __len__(self) -> int:
        """Return the number of pictures."""
        return len(self.selection.numbers)

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield the rows, some thousands at a time."""
        for start in range(0, len(self), BATCH):
            yield self._batch(start, self.selection.numbers[start : start + BATCH])

    def _batch(self, start: int, numbers: Numbers) -> pa.RecordBatch:
        corpus, count = self.searcher.corpus, len(numbers)
        relevance = self.selection.relevance
        columns = {
            **self._files(numbers),
            "rank": None if relevance is None else np.arange(start + 1, start + 1 + count),
            "relevance": None if relevance is None else relevance[start : start + count],
            **_facts(self._known, numbers),
            **self._map.of(numbers),
            **dict(zip(("labels", "label_relevance"), self._labels.columns(numbers), strict=True)),
            **{name: lists.columns(numbers)[0] for name, lists in self._members.items()},
        }
        if "embedding" in self.schema.names:
            flat = pa.array(corpus.vectors(numbers).reshape(-1), pa.float32())
            columns["embedding"] = pa.FixedSizeListArray.from_arrays(flat, corpus.info.dim)
        arrays = [
            pa.nulls(count, field.type)
            if (column := columns[field.name]) is None
            else column
            if isinstance(column, pa.Array)
            else pa.array(column, field.type)
            for field in self.schema
        ]
        return pa.RecordBatch.from_arrays(arrays, schema=self.schema)

    def _files(self, numbers: Numbers) -> dict[str, object]:
        corpus = self.searcher.corpus
        passes = file_test(self.selection.query, knows_facts=corpus.facts is not None)
        records = corpus.records(numbers)
        first = [record.first(passes) for record in records]
        return {
            "content_id": [record.content_id for record in records],
            "path": [self._path(location) for location in first],
            "source": [location.source for location in first],
            "path_in_source": [location.path for location in first],
            "copies": [[self._path(place) for place in record.locations] for record in records],
            "width": [record.width for record in records],
            "height": [record.height for record in records],
            "format": [record.format for record in records],
        }

    def _path(self, location: Location) -> str:
        path = str(self.searcher.path_of(location))
        # Other tools open what is text as it is.
        return path if _is_text(path) else to_text(path)


def _is_text(path: str) -> bool:
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True


def _schema(corpus: Corpus, query: Query, *, vectors: bool) -> pa.Schema:
    facts = {field.name: field.type for field in FACTS_COLUMNS}
    fields = []
    for name, description in COLUMNS.items():
        kind = _TYPES.get(name, facts.get(name, pa.string()))
        if pa.types.is_dictionary(kind):
            kind = kind.value_type
        if name == "embedding":
            kind = pa.list_(pa.float32(), corpus.info.dim)
        if name != "embedding" or vectors:
            fields.append(pa.field(name, kind, metadata={"description": description}))
    about = {
        "made_by": f"retrieval-pipeline {__version__}",
        "made_at": datetime.now(UTC).isoformat(timespec="seconds"),
        "model": corpus.info.model,
        "build": corpus.name,
        "query": str(query),
    }
    return pa.schema(fields, metadata={"retrieval": json.dumps(about)})


def _facts(facts: pa.Table | None, numbers: Numbers) -> dict[str, pa.Array | None]:
    if facts is None:
        return dict.fromkeys(FACTS_COLUMNS.names)
    rows = facts.take(pa.array(numbers))
    columns = {}
    for field in FACTS_COLUMNS:
        column = rows[field.name].combine_chunks()
        if pa.types.is_dictionary(field.type):
            column = column.cast(pa.string())
        columns[field.name] = column
    columns["taken_at"] = columns["taken_at"].cast(pa.timestamp("us"))
    return columns


class _Map:
    """Where the items lie on the map of their index, if it is drawn."""

    def __init__(self, corpus: Corpus, store: Store) -> None:
        self._table: pa.Table | None = None
        directory = store.map(corpus.name)
        if is_there(directory):
            try:
                self._table, info = read_coordinates(directory), read_map_info(directory)
            except MapError as error:
                raise StoreError(*error.args) from None
            self._words = pa.array([cluster.name for cluster in info.clusters], pa.string())
            ids = corpus.items["content_id"]
            self._rows = pc.index_in(ids, value_set=self._table["content_id"].combine_chunks())

    def of(self, numbers: Numbers) -> dict[str, pa.Array | None]:
        if self._table is None:
            return dict.fromkeys(("map_x", "map_y", "map_z", "cluster"))
        rows = self._rows.take(pa.array(numbers)).combine_chunks()
        found = {
            f"map_{axis}": self._table[axis].take(rows).combine_chunks() for axis in ("x", "y", "z")
        }
        return found | {
            "cluster": self._words.take(self._table["cluster"].take(rows).combine_chunks())
        }


class _Lists:
    """A list of values for some of the items."""

    def __init__(self, items: Numbers, values: Sequence[pa.Array]) -> None:
        """Take the items of the values, int64 (n,), and columns of values (n,) each."""
        order = np.argsort(items, kind="stable")
        self._items = items[order]
        self._values = [column.take(pa.array(order)) for column in values]

    @classmethod
    def of_ids(
        cls, ids: pa.ChunkedArray, contents: pa.Array, values: Sequence[pa.Array]
    ) -> "_Lists":
        """Take the content ids of the values; those of no item are left out."""
        found = pc.index_in(contents, value_set=ids.combine_chunks())
        kept = pc.is_valid(found)
        items = found.filter(kept).to_numpy().astype(np.int64)
        return cls(items, [column.filter(kept) for column in values])

    @classmethod
    def of(cls, ids: pa.ChunkedArray, named: dict[str, list[str]]) -> "_Lists":
        """Take name -> content ids: the values are the names."""
        contents = pa.array(list(chain.from_iterable(named.values())), pa.string())
        names = [name for name, members in named.items() for _ in members]
        return cls.of_ids(ids, contents, [pa.array(names, pa.string())])

    def columns(self, numbers: Numbers) -> list[pa.ListArray]:
        """Return for each column of values a list for each of these items."""
        starts = np.searchsorted(self._items, numbers, side="left")
        ends = np.searchsorted(self._items, numbers, side="right")
        offsets = np.concatenate([[0], np.cumsum(ends - starts)])
        rows = np.arange(offsets[-1]) + np.repeat(starts - offsets[:-1], ends - starts)
        return [
            pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), column.take(pa.array(rows)))
            for column in self._values
        ]
