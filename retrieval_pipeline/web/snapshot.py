"""One open build and everything the pages derive from it; thread-safe, and never another build."""

import functools
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus

import numpy as np
import numpy.typing as npt
from cachetools import LRUCache

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import (
    BuildError,
    EncoderError,
    MapError,
    NotOnEngineError,
    StoreError,
)
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.search.box import BoxRead, read_box
from retrieval_pipeline.search.facets import Facets
from retrieval_pipeline.search.fact_filters import microseconds
from retrieval_pipeline.search.filters import file_test
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.query_vectors import QueryVectors
from retrieval_pipeline.search.searcher import Searcher, listing_sort
from retrieval_pipeline.search.sorting import months
from retrieval_pipeline.search.vector_index import UNKNOWN_TIME, Selection
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.web.api_models import IdsOf
from retrieval_pipeline.web.index_map import IndexMap, read_map
from retrieval_pipeline.web.indexed_pictures import IndexedPictures
from retrieval_pipeline.web.parameters import Region, Search, SearchPage
from retrieval_pipeline.web.pictures import AnswerPage, WordsRead, shapes
from retrieval_pipeline.web.problems import FieldProblem, RequestError, wrong
from retrieval_pipeline.web.vote_sessions import VoteSessions

# Queries whose vectors are remembered, some KB each: all pages of an answer need one encoding.
REMEMBERED_QUERIES = 1_000
# Hits of a search whose shapes are told at once: some 200 rows of a grid.
SHAPES = 1_200
# Regions of the map whose pictures are remembered: a megabyte each for a million pictures.
REGIONS = 8
# Seconds before a model that could not be loaded is tried again.
ENCODER_PAUSE = 15.0


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
        pictures: What is told of its pictures.
        votes: The sessions that take votes on them.
        map: Where they lie on the map; None as long as there is none.
    """

    map: IndexMap | None = None

    def __init__(self, searcher: Searcher) -> None:
        self.searcher = searcher
        self.index = searcher.index
        self.name = searcher.index.name
        self.store = Store(searcher.settings.home)
        self.pictures = IndexedPictures(searcher, self.cluster_of)
        self.votes = VoteSessions(searcher)
        self._query_vectors: LRUCache[Query, QueryVectors] = LRUCache(REMEMBERED_QUERIES)
        self._lock = threading.Lock()
        self._in_region = functools.lru_cache(REGIONS)(self._select_region)
        self._no_encoder: tuple[float, EncoderError] | None = None

    @property
    def settings(self) -> Settings:
        """The settings under which the build was opened."""
        return self.searcher.settings

    @functools.cached_property
    def corpus(self) -> Corpus | None:
        """All items of the index, which the map and the search for duplicates need.

        None if an engine keeps it, and the tables that it was published from are elsewhere, or
        damaged: then it answers on without them.
        """
        try:
            return self.searcher.corpus
        except (NotOnEngineError, BuildError, StoreError):
            return None

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
            self.pictures.item(content_id)
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
        if self.map is None or not self.index.info.vocabulary:
            return []
        return [each.name for each in self.map.info.clusters]

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
            hits=[self.pictures.of_hit(hit) for hit in found.hits],
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
        pictures = self.pictures.of(items, passes)
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
        selection = None if search.region is None else self._in_region(search.region)
        if search.since is None:
            return selection
        new = self.index.added_since(self.settings, search.since)
        if new is None:
            detail = f"the index {search.since} is not kept any more: look without it"
            raise RequestError(HTTPStatus.NOT_FOUND, detail)
        return self.index.both(selection, new)

    # The map

    def look_for_map(self) -> None:
        """Read the map of this index, which is drawn after the index was published."""
        if self.map is None and (corpus := self.corpus) is not None:
            self.map = read_map(self.store.map(self.name), corpus)

    def mapped(self) -> IndexMap:
        """Return `map`.

        Raises:
            MapError: There is none.
        """
        if self.map is None:
            raise MapError(
                "this index has no map here: `retrieval index` draws it in the home that it is run "
                "in"
            )
        return self.map

    def _select_region(self, region: Region) -> Selection:
        return self.index.having(self.mapped().inside(region))

    def cluster_of(self, content_id: str) -> str | None:
        """Return the name of a picture's cluster, if there is a map that shows the picture."""
        return None if self.map is None else self.map.cluster_of(content_id)


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
