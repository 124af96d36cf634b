"""One open build and everything the pages derive from it; thread-safe, and never another build."""

import contextlib
import functools
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from cachetools import LRUCache

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import EncoderError, MapError, StoreError
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.index.records import IndexedFile, ItemRecord
from retrieval_pipeline.latent_map.coordinates import (
    ClusterInfo,
    MapInfo,
    read_coordinates,
    read_map_info,
    read_neighbours,
)
from retrieval_pipeline.paths import printable, to_text
from retrieval_pipeline.recommend.recommender import Recommender
from retrieval_pipeline.search.box import BoxRead, read_box
from retrieval_pipeline.search.facets import Facets
from retrieval_pipeline.search.fact_filters import microseconds
from retrieval_pipeline.search.filters import file_test
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.query_vectors import QueryVectors
from retrieval_pipeline.search.results import Hit, rounded
from retrieval_pipeline.search.searcher import Searcher, listing_sort
from retrieval_pipeline.search.sorting import months
from retrieval_pipeline.search.vector_index import UNKNOWN_TIME, Items, Selection
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors
from retrieval_pipeline.web.api_models import IdsOf
from retrieval_pipeline.web.files import GoneError, file_of
from retrieval_pipeline.web.parameters import Search, SearchPage
from retrieval_pipeline.web.pictures import (
    AnswerPage,
    Companion,
    Details,
    Facts,
    File,
    FileLocation,
    Picture,
    WordsRead,
    shapes,
)
from retrieval_pipeline.web.problems import FieldProblem, RequestError, wrong

# Queries whose vectors are remembered, some KB each: all pages of an answer need one encoding.
REMEMBERED_QUERIES = 1_000
# The formats that every browser shows, upright and in their own colours.
MEDIA_TYPES = {
    "JPEG": "image/jpeg",
    "PNG": "image/png",
    "WEBP": "image/webp",
    "GIF": "image/gif",
}
# Hits of a search whose shapes are told at once: some 200 rows of a grid.
SHAPES = 1_200
# Recommenders that are kept trained.
SESSIONS = 16
# Seconds before a model that could not be loaded is tried again.
ENCODER_PAUSE = 15.0


@dataclass(frozen=True)
class Coordinates:
    """Where the items of a build lie on its map.

    Attributes:
        info: The facts about the map.
        x: float32 (items,).
        y: float32 (items,).
        clusters: int32 (items,), the cluster of each.
        neighbours: float32 (items, 2), where they lie in the layout by UMAP; None without one.
    """

    info: MapInfo
    x: Vectors
    y: Vectors
    clusters: npt.NDArray[np.int32]
    neighbours: Vectors | None

    @property
    def names(self) -> tuple[ClusterInfo, ...]:
        """The clusters."""
        return self.info.clusters


@dataclass(frozen=True)
class Layout:
    """What a grid must know of pictures to make room for them.

    Attributes:
        shapes: Width over height of the cards in hundredths, uint16 (n,).
        more: Whether there may be further pictures.
        likely: How many of these are likely, the first ones; None where that does not apply.
        months: The months that they were taken in, in their order, and how many of each; empty if
            the order is another.
    """

    shapes: npt.NDArray[np.uint16]
    more: bool
    likely: int | None
    months: list[tuple[str, int]]


class Snapshot:
    """A searcher, and what is computed once from its index.

    Attributes:
        index: What is searched.
        coordinates: Where the items lie on the map; None as long as there is none.
    """

    coordinates: Coordinates | None = None

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.index = searcher.index
        self.name = searcher.index.name
        self.store = Store(searcher.settings.home)
        self._query_vectors: LRUCache[Query, QueryVectors] = LRUCache(REMEMBERED_QUERIES)
        self._votings: LRUCache[str, Voting] = LRUCache(SESSIONS)
        self._lock = threading.Lock()
        self._no_encoder: tuple[float, EncoderError] | None = None

    @property
    def settings(self) -> Settings:
        """The settings under which the build was opened."""
        return self.searcher.settings

    @property
    def corpus(self) -> Corpus:
        """All items of the index; raises what `Searcher.corpus` does."""
        return self.searcher.corpus

    @property
    def model(self) -> str:
        """The model of the index."""
        return self.index.info.model

    def warm_up(self) -> None:
        """Compute what the first request would wait for, but for the encoder.

        Raises:
            BuildError: The codes of the build cannot be read.
            EngineError: The engine cannot be reached.
        """
        self.index.warm_up()
        self.index.find([""])
        self.index.listing(None, "newest", 0, 1)
        _ = self.index.fact_words
        self.look_for_map()

    # Queries

    def query(self, search: Search) -> BoxRead:
        """Return what a search asks, its uploads as the files that were kept of them.

        Also which of its words were read as signs, names or facts: in the query they are parts and
        filters.

        Raises:
            RequestError: An upload is not there any more, or a picture is not in the index; 404.
            QueryError: There is a crop, and not one picture.
        """
        for content_id in search.like:
            self.item(content_id)
        uploads = [self.store.upload(content_id) for content_id in search.upload]
        if not all(path.exists() for path in uploads):
            detail = "the picture that was uploaded is not kept any more: drop it again"
            raise RequestError(HTTPStatus.NOT_FOUND, detail)
        query = replace(search.query(), images=tuple(uploads), crop=search.crop)
        read = read_box(query, self.index.file_names)
        query, facts = self.searcher.understand(read.query)
        return replace(read, query=query, understood=(*read.understood, *facts))

    @property
    def cluster_names(self) -> list[str]:
        """Words for what there is much of; empty without a map or a vocabulary."""
        at = self.coordinates
        return [each.name for each in at.names] if at and self.index.info.vocabulary else []

    def known_vectors(self, query: Query) -> QueryVectors | None:
        """Return the vectors of a query that was asked before."""
        with self._lock:
            return self._query_vectors.get(query.terms)

    def encode(self, query: Query) -> tuple[QueryVectors, float]:
        """Return the vectors of a query and the milliseconds that it took to encode.

        Only the thread that encodes may call this.

        Raises:
            EncoderError: The model cannot be had; it is not tried again at once.
            QueryError: The query is empty of meaning.
        """
        if (known := self.known_vectors(query)) is not None:
            return known, 0.0
        # Pictures of the index have their vectors.
        needed = query.wanted or query.unwanted or query.images or query.crop
        if needed and self._no_encoder is not None and time.monotonic() < self._no_encoder[0]:
            raise self._no_encoder[1]
        started = time.perf_counter()
        try:
            query_vectors = self.searcher.query_vectors([query])[0]
        except EncoderError as error:
            self._no_encoder = time.monotonic() + ENCODER_PAUSE, error
            raise
        with self._lock:
            self._query_vectors[query.terms] = query_vectors
        return query_vectors, round(1000 * (time.perf_counter() - started), 3)

    # Answers

    def answer(self, page: SearchPage, read: BoxRead, query_vectors: QueryVectors) -> AnswerPage:
        """Return the hits of a query whose vectors are known.

        Args:
            page: What the client asked.
            read: What `query` made of it.
            query_vectors: Of the query.

        Raises:
            QueryError: A filter names a source or place that is not there.
            MapError: A region is asked for, and there is no map.
        """
        query = read.query
        found = self.searcher.answer(
            query, page.k, page.offset, query_vectors=query_vectors, among=self.within(page)
        )
        return AnswerPage(
            query=str(search_text(page)),
            model=found.model,
            build=found.build,
            likely=found.likely,
            verdict=found.verdict,
            hits=[self._hit(hit) for hit in found.hits],
            more=len(found.hits) == page.k,
            hints=list(found.hints),
            timings_ms=found.timings_ms,
            understood=[WordsRead.of(each) for each in read.understood],
            notes=[*read.notes, *found.notes],
            by_date=self.is_by_date(query),
        )

    def answer_layout(
        self, search: Search, offset: int, query: Query, query_vectors: QueryVectors
    ) -> Layout:
        """Return what a grid makes room for of the next hits of a query; raises as `answer`."""
        among = self.within(search)
        found = self.searcher.answer(
            query, SHAPES, offset, query_vectors=query_vectors, among=among
        ).hits
        times = (hit.facts.taken_at for hit in found)
        taken = [UNKNOWN_TIME if at is None else microseconds(at) for at in times]
        return Layout(
            shapes=shapes([hit.width for hit in found], [hit.height for hit in found]),
            more=len(found) == SHAPES,
            likely=sum(hit.likely for hit in found) if query.sort == "relevance" else None,
            months=months(np.array(taken, np.int64)) if self.is_by_date(query) else [],
        )

    def browse_layout(self, search: Search, offset: int, query: Query) -> Layout:
        """Return what a grid makes room for of what `browse` lists from `offset` on.

        That is everything, or as much as the index lists in one go.
        """
        selection = self._selection(search, query)
        items = self.index.listing(selection, listing_sort(query), offset)
        return Layout(
            shapes=shapes(*self.index.sizes(items)),
            more=offset + len(items) < self.index.count(selection),
            likely=None,
            months=months(self.index.times(items)) if self.is_by_date(query) else [],
        )

    def is_by_date(self, query: Query) -> bool:
        """Tell whether what a query finds is in the order of the dates taken."""
        by_date = query.sort in ("newest", "oldest")
        return self.index.knows_facts and (
            by_date or (query.sort == "relevance" and not query.asks)
        )

    def ids(self, asked: IdsOf, query: Query, query_vectors: QueryVectors | None) -> list[str]:
        """Return the content ids of a part of what a search finds; raises as `answer` does.

        Args:
            asked: What the client asked.
            query: What `query` made of it.
            query_vectors: Of the query; None if it asks for nothing, and all is listed.
        """
        if query_vectors is None:
            selection = self._selection(asked, query)
            items = self.index.listing(selection, listing_sort(query), asked.offset, asked.k)
            return [item.content_id for item in self.index.records(items)]
        among = self.within(asked)
        found = self.searcher.answer(
            query, asked.k, asked.offset, query_vectors=query_vectors, among=among
        )
        return [hit.content_id for hit in found.hits]

    def facets(self, search: Search, folder: str) -> Facets:
        """Count what passes the filters of a search by source, folder, year, place and camera.

        Args:
            search: What the client asked.
            folder: The folder whose folders are counted.

        Raises:
            QueryError: A filter names something that is not there.
            MapError: A region is asked for, and there is no map.
        """
        return self.index.facets(self._selection(search, self.query(search).query), folder)

    def _selection(self, search: Search, query: Query) -> Selection | None:
        """Return which items pass the filters, those of the page included; None for all."""
        return self.index.both(self.searcher.allowed(query), self.within(search))

    def browse(self, page: SearchPage, read: BoxRead) -> AnswerPage:
        """Return the pictures that pass the filters, the newest first or as the query sorts.

        Takes and raises what `answer` does.
        """
        query = read.query
        started = time.perf_counter()
        selection = self._selection(page, query)
        items = self.index.listing(selection, listing_sort(query), page.offset, page.k)
        passes = file_test(query, knows_facts=self.index.knows_facts)
        pictures = self.pictures(items, passes)
        return AnswerPage(
            query=str(search_text(page)),
            model=self.model,
            build=self.name,
            hits=pictures,
            more=page.offset + page.k < self.index.count(selection),
            timings_ms={"read": round(1000 * (time.perf_counter() - started), 3)},
            understood=[WordsRead.of(each) for each in read.understood],
            notes=[*read.notes, *self.index.notes(query)],
            by_date=self.is_by_date(query),
        )

    def within(self, search: Search) -> Selection | None:
        """Return which items pass the filters that only pages have; None for all.

        Raises:
            BuildError: The build that new pictures are asked since is damaged.
            MapError: A region is asked for, and there is no map.
            RequestError: That build is gone; 404.
        """
        selection = None
        if search.region is not None:
            at = self.mapped()
            x, y = at.x, at.y
            if search.region.layout == "neighbours":
                if at.neighbours is None:
                    raise MapError("this map has no layout by neighbours: choose the region anew")
                x, y = at.neighbours.T
            selection = search.region.contains(x, y)
        if search.since is None:
            return selection
        new = self.index.added_since(self.settings, search.since)
        if new is None:
            detail = f"the index {search.since} is not kept any more: look without it"
            raise RequestError(HTTPStatus.NOT_FOUND, detail)
        return self.index.both(selection, new)

    def scores(self, query_vectors: QueryVectors) -> Vectors:
        """Return the score of every item, float32 (items,)."""
        return query_vectors.scores(self.corpus.scan(query_vectors.vectors))

    # Pictures

    def pictures(
        self, items: Items, passes: Callable[[IndexedFile], bool] | None = None
    ) -> list[Picture]:
        """Return what is told of these items; the first file that `passes` is the one shown."""
        pictures = []
        for item, record, facts in zip(
            items.tolist(),
            self.index.records(items),
            self.index.item_facts(items),
            strict=True,
        ):
            shown = record.first(passes) if passes else record.locations[0]
            pictures.append(
                Picture(
                    content_id=record.content_id,
                    source=shown.source,
                    path=shown.path,
                    width=record.width,
                    height=record.height,
                    cluster=self.cluster_of(item),
                    locations=[FileLocation.of(location) for location in record.locations],
                    facts=Facts.of(facts),
                    companions=[Companion.of_file(each) for each in record.companions],
                )
            )
        return pictures

    def _hit(self, hit: Hit) -> Picture:
        # Only a map has clusters, and then the item is there.
        is_mapped = self.coordinates is not None
        cluster = self.cluster_of(self.item(hit.content_id).item()) if is_mapped else None
        return Picture(
            content_id=hit.content_id,
            source=hit.source,
            path=hit.location.path,
            score=rounded(hit.score),
            relevance=rounded(hit.relevance),
            likely=hit.likely,
            width=hit.width,
            height=hit.height,
            alike=hit.alike,
            region=hit.region,
            cluster=cluster,
            locations=[FileLocation.of(location) for location in hit.locations],
            facts=Facts.of(hit.facts),
            companions=[Companion.of_file(each) for each in hit.companions],
        )

    def details(self, content_id: str, query: Query = Query()) -> Details:  # noqa: B008
        """Return everything about a picture; it looks at the picture's files.

        Files that pass the filters of the query come first: they are the ones that it found.

        Raises:
            RequestError: There is no such picture; 404.
        """
        passes = file_test(query, knows_facts=self.index.knows_facts)
        items = self.item(content_id)
        item = self.index.records(items)[0]
        return Details(
            content_id=content_id,
            width=item.width,
            height=item.height,
            format=item.format,
            cluster=self.cluster_of(items.item()),
            model=self.model,
            build=self.name,
            files=[
                self._file(file) for file in sorted(item.files, key=lambda file: not passes(file))
            ],
            facts=Facts.of(self.index.item_facts(items)[0]),
            companions=[Companion.of_file(each) for each in item.companions],
        )

    def _file(self, file: IndexedFile) -> File:
        location = file.location
        try:
            file_of(self.settings, location)
            problem = None
        except GoneError as error:
            problem = str(error)
        return File(
            source=location.source,
            path=location.path,
            absolute=self.absolute(location),
            size=file.size,
            modified=datetime.fromtimestamp(file.mtime_ns / 1e9, UTC),
            problem=problem,
        )

    def absolute(self, location: Location) -> str:
        """Return the whole path of a file, on one line."""
        return printable(to_text(str(self.searcher.path_of(location))))

    def records(self, content_ids: Sequence[str]) -> list[ItemRecord]:
        """Return the items with these content ids; those that are not in the index are left out."""
        records = self.index.records(self.index.find(content_ids))
        of_id = {record.content_id: record for record in records}
        return [of_id[content_id] for content_id in content_ids if content_id in of_id]

    def media_type(self, content_id: str) -> str | None:
        """Return the media type of a picture's files; None if browsers do not show it.

        Raises:
            RequestError: There is no such picture; 404.
        """
        item = self.index.records(self.item(content_id))[0]
        return MEDIA_TYPES.get(item.format)

    def locations(self, content_id: str) -> list[Location]:
        """Return every file that holds a picture.

        Raises:
            RequestError: There is no such picture; 404.
        """
        return list(self.index.records(self.item(content_id))[0].locations)

    def item(self, content_id: str) -> Items:
        """Return an indexed picture, as an array of one item.

        Raises:
            RequestError: There is no such picture; 404.
        """
        found = self.index.find([content_id])
        if not len(found):
            raise not_indexed(content_id)
        return found

    def has(self, content_id: str) -> bool:
        """Tell whether a picture is in the index."""
        return len(self.index.find([content_id])) > 0

    @functools.cached_property
    def first_sources(self) -> tuple[list[str], npt.NDArray[np.int32]]:
        """The sources of the items' first files: their names, and the number of each item's."""
        firsts = [
            pc.list_element(chunk, 0).field("source")
            for chunk in self.corpus.items["locations"].chunks
        ]
        encoded = pa.concat_arrays(firsts).dictionary_encode()
        return encoded.dictionary.to_pylist(), encoded.indices.to_numpy()

    # The map

    def look_for_map(self) -> None:
        """Read the map of this build, which is drawn after the build was published."""
        directory = self.store.map(self.name)
        files = self.searcher.files
        if self.coordinates is not None or files is None or not directory.is_dir():
            return
        try:
            info, table = read_map_info(directory), read_coordinates(directory)
            layout = read_neighbours(directory)
        except (MapError, StoreError):
            return
        if table["content_id"].equals(files.items["content_id"]):
            x, y, clusters = (table[name].to_numpy() for name in ("x", "y", "cluster"))
            neighbours = None
            if layout is not None and layout["content_id"].equals(table["content_id"]):
                neighbours = np.stack([layout[axis].to_numpy() for axis in "xy"], axis=1)
            self.coordinates = Coordinates(info, x, y, clusters, neighbours)

    def mapped(self) -> Coordinates:
        """Return `coordinates`.

        Raises:
            MapError: There are none.
        """
        if self.coordinates is None:
            raise MapError("this index has no map: `retrieval index` draws it")
        return self.coordinates

    def cluster_of(self, item: Any) -> str | None:
        """Return the name of an item's cluster, if there is a map."""
        at = self.coordinates
        return None if at is None else at.names[int(at.clusters[item])].name

    # Votes

    @contextlib.contextmanager
    def voting(self, name: str) -> Iterator[Recommender]:
        """Give the session of a recommender to one thread at a time.

        Raises:
            StoreError: Its votes are damaged.
        """
        with self._lock:
            voting = self._votings.setdefault(name, Voting(self.searcher, name))
        with voting.session() as session:
            yield session


class Voting:
    """The session of a recommender, which is not thread-safe, and its votes' last change."""

    def __init__(self, searcher: Searcher, name: str) -> None:
        self._searcher = searcher
        self._name = name
        self._lock = threading.Lock()
        self._session: Recommender | None = None
        self._changed = 0

    @contextlib.contextmanager
    def session(self) -> Iterator[Recommender]:
        """Give the session, with the votes that others stored; raises StoreError."""
        with self._lock:
            if self._session is None:
                self._session = Recommender(self._searcher, self._name)
            elif self._last_change() != self._changed:
                self._session.refresh()
            try:
                yield self._session
            finally:
                self._changed = self._last_change()

    def _last_change(self) -> int:
        path = Store(self._searcher.settings.home).judgements(self._name)
        return path.stat().st_mtime_ns if path.exists() else 0


def not_indexed(content_id: str) -> RequestError:
    """Return what is said of a picture that is not in the index."""
    return RequestError(
        HTTPStatus.NOT_FOUND,
        "This picture is not in the index, maybe not any more: its file was changed, moved out of "
        f"the sources or deleted since. (Its content id is {content_id}.)",
        title="The picture is not here",
    )


def search_text(search: Search) -> str:
    """Return what a search asks, in one line."""
    parts = [search.text.strip()]
    parts += ["like a picture"] * len([*search.like, *search.upload])
    parts += [f"+ {text}" for text in search.plus] + [f"- {text}" for text in search.minus]
    return " ".join(part for part in parts if part)


def check_sources(snapshot: Snapshot, sources: Sequence[str]) -> None:
    """Refuse a filter by a source that is not in the index, naming the parameter.

    Raises:
        RequestError: 400.
    """
    known = snapshot.index.info.sources
    for source in sources:
        if source not in known:
            message = f'there is no source "{source}" in the index (sources: {", ".join(known)})'
            raise wrong([FieldProblem(field="source", message=message)])
