"""Query -> hits: encodes, filters, ranks, judges and reads, by the modules beside this one."""

import functools
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval_pipeline.concurrency import one_blas_thread
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import (
    BuildError,
    EngineError,
    NotOnEngineError,
    QueryError,
    StoreError,
)
from retrieval_pipeline.facts.query_words import Understood
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.paths import to_path
from retrieval_pipeline.search.albums import album_ids
from retrieval_pipeline.search.embedded_index import EmbeddedIndex
from retrieval_pipeline.search.labels import label_ids, label_notes, labels_version
from retrieval_pipeline.search.look_alike import Looks
from retrieval_pipeline.search.near_duplicates import NEAR_DUPLICATE, fold
from retrieval_pipeline.search.query import Query, Sort
from retrieval_pipeline.search.query_encoder import QueryEncoder
from retrieval_pipeline.search.query_vectors import QueryVectors
from retrieval_pipeline.search.relevance import LIKELY, RankingJudge, ranks_to_judge, relevant_ranks
from retrieval_pipeline.search.results import Answer, FoundItem, Hits, read_hits
from retrieval_pipeline.search.understanding import understand
from retrieval_pipeline.search.vector_index import Items, Ranking, Selection, VectorIndex
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Values

if TYPE_CHECKING:
    from retrieval_pipeline.encoders.base import Encoder

# Queries whose scores are computed as one product: 256 MB of scores for a million items.
BATCH = 64
# Filters whose items are remembered: a megabyte each for a million items.
FILTERS = 16
# Only likely hits are sorted by date or name if the query has no least relevance: a sorted list of
# everything would mean nothing. And so many of them at most, the most relevant ones.
SORTED_HITS = 10_000


class Searcher:
    """Answers queries from an index, with the encoder that the index names.

    Attributes:
        settings: Under which it was opened.
        index: What is searched.
    """

    def __init__(
        self, settings: Settings, index: VectorIndex, encoder: "Encoder | None" = None
    ) -> None:
        self.settings = settings
        self.index = index
        self._query_encoder = QueryEncoder(settings, index, self.path_of, encoder)
        self._judge = RankingJudge(index)
        self._passing = functools.lru_cache(FILTERS)(index.passing)
        # A table of labels is remembered until it changes: a million pictures take a second.
        self._labelled = functools.lru_cache(FILTERS)(
            lambda words, version: index.having(
                label_ids(index.info.space, Store(settings.home), words)
            )
        )

    @classmethod
    def open(cls, settings: Settings) -> "Searcher":
        """Open the index that the settings name; the encoder is loaded by the first query.

        Raises:
            BuildError: Nothing is indexed yet, or the build is damaged.
            EngineError: The engine cannot be reached, or serves no index yet.
        """
        return cls(settings, open_index(settings))

    @functools.cached_property
    def corpus(self) -> Corpus:
        """All items of the index, for what no search answers.

        Raises:
            BuildError: What is told of the items is damaged.
            NotOnEngineError: An engine keeps the index, and it was not published from this home.
            StoreError: The ledger of the publication is damaged.
        """
        found = self.index.corpus(self.settings)
        if found is None:
            raise NotOnEngineError(
                f"{self.settings.home}: the tables that the index was published from are not "
                "here, and this needs all of them: run it where `retrieval index` runs"
            )
        return found

    @functools.cached_property
    def whole(self) -> "Searcher":
        """A searcher of the same items by number, which compares with all of them.

        It is this one, but for an index that an engine keeps. Raises what `corpus` raises.
        """
        if isinstance(self.index, EmbeddedIndex):
            return self
        whole = Searcher(self.settings, EmbeddedIndex(self.corpus))
        whole._query_encoder.use_models_of(self._query_encoder)
        return whole

    def reopened(self, settings: Settings) -> "Searcher":
        """Open the current index, with the encoder of this one if it is of the same space.

        Raises:
            BuildError: The build is damaged.
            EngineError: The engine cannot be reached.
            StoreError: The pointer to the current build is damaged.
        """
        searcher = Searcher.open(settings)
        if searcher.index.info.space == self.index.info.space:
            searcher._query_encoder.use_models_of(self._query_encoder)
        return searcher

    def latest(self) -> "Searcher":
        """Return this searcher, or one of the index that has taken over since it was opened.

        If that one cannot be opened now, this one goes on answering.
        """
        try:
            is_current = self.index.is_current(self.settings)
            return self if is_current else self.reopened(self.settings)
        except (BuildError, EngineError, StoreError):
            return self

    @property
    def encoder(self) -> "Encoder":
        """The encoder of the index's vector space; texts alone may not need it.

        Raises:
            EncoderError: It cannot be had.
        """
        return self._query_encoder.encoder

    @functools.cached_property
    def looks(self) -> Looks:
        """Tells which items look the same."""
        return Looks(self.index, self.path_of, Limits.of(self.settings.images))

    def warm_up(self) -> None:
        """Load what queries by text need, so that the first one is as fast as the next.

        Raises:
            BuildError: Files of the build cannot be read.
            EncoderError: The model cannot be had.
        """
        self.index.warm_up()
        self._query_encoder.encode_texts(["a photo"])

    def search(self, query: Query, k: int = 8, offset: int = 0) -> Hits:
        """Return the `k` best hits after the first `offset`, best first; fewer if there are fewer.

        Raises:
            EngineError: An engine keeps the index and cannot answer, or has overwritten it:
                `latest` opens the one that has taken over.
            QueryError: The query is empty, names something that does not exist, or its image
                cannot be used.
        """
        return Hits(self.answer(query, k, offset).hits)

    def search_many(self, queries: Sequence[Query], k: int = 8) -> list[Hits]:
        """Return the hits of each query; texts are encoded together; raises as `search` does."""
        return [Hits(answer.hits) for answer in self.answer_many(queries, k)]

    def answer(
        self,
        query: Query,
        k: int = 8,
        offset: int = 0,
        *,
        query_vectors: QueryVectors | None = None,
        among: Selection | None = None,
    ) -> Answer:
        """Return the hits of `query` with timings; raises as `search` does.

        Args:
            query: What to look for.
            k: How many hits.
            offset: Leave out so many of the best.
            query_vectors: What `query_vectors` gave for this query, if somebody asked before.
            among: Items to choose from besides the query's filters; default all.
        """
        known = None if query_vectors is None else [query_vectors]
        return self._answer_batch([query], k, offset, known, among)[0]

    def answer_many(self, queries: Sequence[Query], k: int = 8, offset: int = 0) -> list[Answer]:
        """Return the hits of each query; raises as `search` does.

        The timings of a query that was answered with others are its share of theirs.
        """
        return [
            answer
            for start in range(0, len(queries), BATCH)
            for answer in self._answer_batch(queries[start : start + BATCH], k, offset)
        ]

    def allowed(self, query: Query) -> Selection | None:
        """Return which items pass the filters, or None without filters.

        They are remembered: all pages of an answer have the same. Do not change them. Albums and
        labels are read each time, since people change them.

        Raises:
            QueryError: A filter names a source that is not in the index, or an album or a label
                that there is not.
            StoreError: An album or the table of labels is damaged.
        """
        allowed = self._passing(replace(query.filters, albums=(), labels=()))
        store, index = Store(self.settings.home), self.index
        if query.albums:
            allowed = index.both(allowed, index.having(album_ids(store, query.albums)))
        if query.labels:
            allowed = index.both(allowed, self._labelled(query.labels, labels_version(store)))
        if query.like_albums:
            allowed = index.both(allowed, index.lacking(album_ids(store, query.like_albums)))
        return allowed

    @one_blas_thread()
    def relevant_items(self, query: Query, most: int | None = None) -> tuple[Items, Values]:
        """Return every item that is relevant enough, compared with all, and how relevant it is.

        Args:
            query: Its `min_relevance` says what is enough; what it collapses or sorts by is not
                looked at.
            most: Return no more than these, the best ones.

        Returns:
            The items, best first, (n,), and their relevance, float64 (n,). A list that
            ends where hundreds of items in a row are irrelevant.

        Raises:
            QueryError: As `search` does.
            EncoderError: The model cannot be had.
        """
        (query_vectors,) = self.query_vectors([query])
        allowed = self.allowed(query)
        # With a filter, though one that all pass, nothing is left to approximate plans.
        every = self.index.lacking(()) if allowed is None else allowed
        count = ranks_to_judge(most or 0)
        while True:
            ranking = self._ranking(query, query_vectors, every, count)
            relevance = self._judge.relevance(query_vectors, ranking, allowed)
            ranks, more = relevant_ranks(relevance, query.min_relevance)
            enough = most is not None and len(ranks) >= most
            if enough or not (more and ranking.is_partial):
                self.index.check_unchanged()
                return ranking.items[ranks][:most], relevance[ranks][:most]
            count *= 2

    def understand(self, query: Query) -> tuple[Query, tuple[Understood, ...]]:
        """Return a query whose words that mean facts are filters, and what was understood."""
        return understand(query, self.index.fact_words)

    def query_vectors(self, queries: Sequence[Query]) -> list[QueryVectors]:
        """Return the vectors of each query as it is; all their texts are encoded together.

        Raises:
            EncoderError: The model cannot be had.
            QueryError: A query is empty, its parts cancel each other out, or its image cannot be
                used.
        """
        return self._query_encoder.encode(queries)

    def path_of(self, location: Location) -> Place:
        """Return the absolute path of a location, under its source's present directory."""
        for source in self.settings.sources:
            if source.name == location.source:
                return source.path / to_path(location.path)
        return Path(to_path(location.path))

    @one_blas_thread()
    def _answer_batch(
        self,
        queries: Sequence[Query],
        k: int,
        offset: int,
        query_vectors: list[QueryVectors] | None = None,
        among: Selection | None = None,
    ) -> list[Answer]:
        if k < 1:
            raise QueryError(f"k is {k}: ask for at least one hit")
        if offset < 0:
            raise QueryError(f"the offset is {offset}: it cannot be negative")
        index = self.index
        clock = _Clock(len(queries))
        asked, understood = zip(*map(self.understand, queries), strict=True)
        allowed = [index.both(self.allowed(query), among) for query in asked]
        clock.lap("filter")
        ranked = [
            number
            for number, query in enumerate(asked)
            if not _only_lists(query, understood[number])
        ]
        vectors = dict(
            zip(
                ranked,
                query_vectors or self.query_vectors([asked[number] for number in ranked]),
                strict=True,
            )
        )
        clock.lap("encode")
        by_relevance = [number for number in ranked if asked[number].sort == "relevance"]
        rankings = index.rank(
            [asked[number] for number in by_relevance],
            [vectors[number] for number in by_relevance],
            [allowed[number] for number in by_relevance],
            ranks_to_judge(offset + k),
        )
        ranking_of = dict(zip(by_relevance, rankings, strict=True))
        clock.lap("search")
        pages = [
            self._page(
                query, vectors.get(number), allowed[number], ranking_of.get(number), k, offset
            )
            for number, query in enumerate(asked)
        ]
        hits = [
            read_hits(index, query, found, self.path_of)
            for query, (found, _) in zip(asked, pages, strict=True)
        ]
        index.check_unchanged()
        clock.lap("read")
        return [
            Answer(
                query=queries[number],
                hits=hits[number],
                model=index.info.model,
                build=index.name,
                timings_ms=clock.laps,
                plan=pages[number][1],
                hints=_hints(index.info.model, asked[number]),
                offset=offset,
                understood=understood[number],
                notes=(*index.notes(asked[number]), *self._label_notes(asked[number])),
                filtered_out=allowed[number] is not None and not index.count(allowed[number]),
            )
            for number in range(len(queries))
        ]

    def _label_notes(self, query: Query) -> tuple[str, ...]:
        return label_notes(self.index.name, Store(self.settings.home)) if query.labels else ()

    def _page(
        self,
        query: Query,
        query_vectors: QueryVectors | None,
        allowed: Selection | None,
        ranking: Ranking | None,
        k: int,
        offset: int,
    ) -> tuple[list[FoundItem], str]:
        """Return the items of a page, and how they were found.

        Args:
            query: What is asked.
            query_vectors: Its vectors; None lists what passes the filters.
            allowed: Which items pass the filters; None for all.
            ranking: The beginning of its ranking; None if the hits are sorted otherwise.
            k: How many items.
            offset: Leave out so many of the first.
        """
        index = self.index
        if query_vectors is None:
            listed = index.listing(allowed, listing_sort(query), offset, k)
            return [FoundItem(item) for item in listed.tolist()], "a list by the filters"
        wanted = offset + k
        if ranking is None:
            # How deep sorted hits are looked for must not depend on the page.
            wanted, query = SORTED_HITS, _cut(query)
            ranking = self._ranking(query, query_vectors, allowed, ranks_to_judge(0))
        relevance = self._judge.relevance(query_vectors, ranking, allowed)
        groups, more = self._groups(query, ranking, relevance)
        # A ranking is made longer until its hits fill the page.
        while len(groups) < wanted and more:
            # Too many were irrelevant, or folded: look further down.
            ranking = self._ranking(query, query_vectors, allowed, 2 * len(ranking.items))
            relevance = self._judge.relevance(query_vectors, ranking, allowed)
            groups, more = self._groups(query, ranking, relevance)
        leaders = ranking.items[[group[0] for group in groups[:wanted]]]
        page = index.in_order(leaders, query.sort)[offset : offset + k].tolist()
        return [
            FoundItem(
                item=leaders.item(place),
                score=float(ranking.scores[groups[place][0]]),
                relevance=float(relevance[groups[place][0]]),
                alike=len(groups[place]) - 1,
                region=index.view_of(ranking.rows.item(groups[place][0])),
            )
            for place in page
        ], ranking.plan

    def _ranking(
        self, query: Query, query_vectors: QueryVectors, allowed: Selection | None, count: int
    ) -> Ranking:
        return self.index.rank([query], [query_vectors], [allowed], count)[0]

    def _groups(
        self, query: Query, ranking: Ranking, relevance: Values
    ) -> tuple[list[list[int]], bool]:
        """Return the ranks of hits that are relevant enough; what looks the same is one hit.

        Also whether there may be more below.
        """
        found, goes_on = relevant_ranks(relevance, query.min_relevance)
        ranks, more = found.tolist(), goes_on and ranking.is_partial
        if not query.collapse:
            return [[rank] for rank in ranks], more
        items = ranking.items[ranks]
        groups = fold(
            self.index.vectors(items),
            NEAR_DUPLICATE,
            lambda one, other: self.looks.same(items.item(one), items.item(other)),
        )
        return [[ranks[number] for number in group] for group in groups], more


def open_index(settings: Settings) -> VectorIndex:
    """Open the index that the settings name.

    Raises:
        BuildError: Nothing is indexed yet, or the build is damaged.
        EngineError: The engine cannot be reached, or serves nothing that this program can read.
    """
    if settings.index.engine == "milvus":
        # With its client, which takes two seconds to import.
        from retrieval_pipeline.search.milvus.index import MilvusIndex

        return MilvusIndex.open(settings)
    return EmbeddedIndex.open_current(settings)


def _only_lists(query: Query, understood: tuple[Understood, ...]) -> bool:
    """Tell whether a query looks for nothing, and lists what passes its filters.

    That is asked for by an order, or by words that all mean facts; else the query is empty.
    """
    return not query.asks and (query.sort != "relevance" or bool(understood))


def listing_sort(query: Query) -> Sort:
    """Return the order of a list: where nothing is relevant to anything, the newest come first."""
    return "newest" if query.sort == "relevance" else query.sort


def _cut(query: Query) -> Query:
    """Return a query whose hits are relevant enough to be sorted by something else."""
    return replace(query, min_relevance=query.min_relevance or LIKELY)


def _hints(model: str, query: Query) -> tuple[str, ...]:
    """Return a line for each text of a query of which the model knows no word."""
    from retrieval_pipeline.encoders.query_language import hint_of

    texts = [text for _, text in (*query.wanted, *query.unwanted)]
    return tuple(hint for text in texts if (hint := hint_of(model, text)))


class _Clock:
    """Milliseconds of each step, shared out among the queries that were answered together."""

    def __init__(self, queries: int) -> None:
        self.laps: dict[str, float] = {}
        self._queries = queries
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(1000 * (now - self._last) / self._queries, 3)
        self._last = now
