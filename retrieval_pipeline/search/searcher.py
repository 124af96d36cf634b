"""Query -> hits: what the words and pictures of a query mean, and which items are nearest."""

import functools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa

from retrieval_pipeline.concurrency import one_blas_thread
from retrieval_pipeline.config import Settings
from retrieval_pipeline.errors import QueryError, VectorError
from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.pictures import pictures
from retrieval_pipeline.images.transform import Pixels
from retrieval_pipeline.index.build import Build, open_current
from retrieval_pipeline.index.items import Location as Location
from retrieval_pipeline.index.knn import SCAN, Plan, top
from retrieval_pipeline.index.score_statistics import Spread
from retrieval_pipeline.paths import to_path
from retrieval_pipeline.search.filters import both, location_test, passing
from retrieval_pipeline.search.look_alike import Looks
from retrieval_pipeline.search.near_duplicates import NEAR_DUPLICATE, fold
from retrieval_pipeline.search.query import Query as Query
from retrieval_pipeline.search.relevance import BLOCK, Judge, Mixture, relevance_of
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import (
    EncodeTexts,
    Flags,
    Numbers,
    Values,
    Vectors,
    check_vectors,
    normalise,
)

if TYPE_CHECKING:
    from retrieval_pipeline.encoders.base import Encoder
from retrieval_pipeline.search.query_vectors import Meaning
from retrieval_pipeline.search.results import Answer, Hit

# Queries whose scores are computed as one product: 256 MB of scores for a million items.
BATCH = 64
# Filters whose items are remembered: a megabyte each for a million items.
FILTERS = 16
# Hits whose vectors are in memory at a time while they are judged: 10 MB at 768 dimensions.
JUDGED_ROWS = 10 * BLOCK


@dataclass(frozen=True)
class Ranking:
    """Items best first with their scores, how they were found, and among how many."""

    numbers: Numbers
    scores: Vectors
    plan: Plan
    among: int

    @property
    def is_partial(self) -> bool:
        """Whether there are items below the last one."""
        return len(self.numbers) < self.among


class Searcher:
    """Answers queries from the current build, with the encoder that the build names."""

    def __init__(self, settings: Settings, build: Build, encoder: "Encoder | None" = None) -> None:
        self.settings = settings
        self.build = build
        self._encoder = encoder
        self._text_encoder: EncodeTexts | None = None
        self._passing = functools.lru_cache(FILTERS)(functools.partial(passing, build))

    @classmethod
    def open(cls, settings: Settings) -> "Searcher":
        """Open the current build; the encoder is loaded by the first query.

        Raises:
            BuildError: Nothing is indexed yet, or the build is damaged.
        """
        return cls(settings, open_current(Store(settings.home)))

    def reopened(self, settings: Settings) -> "Searcher":
        """Open the current build, with the encoder of this one if it is of the same space.

        Raises:
            BuildError: The build is damaged.
            StoreError: The pointer to it is.
        """
        searcher = Searcher.open(settings)
        if searcher.build.info.space == self.build.info.space:
            searcher._encoder, searcher._text_encoder = self._encoder, self._text_encoder
        return searcher

    @property
    def encoder(self) -> "Encoder":
        """The encoder of the build's vector space; texts alone may not need it.

        Raises:
            EncoderError: It cannot be had.
        """
        if self._encoder is None:
            from retrieval_pipeline.encoders.load import load_encoder_of

            self._encoder = load_encoder_of(self.build.info.space, device=self.settings.device)
        return self._encoder

    @functools.cached_property
    def looks(self) -> Looks:
        """Tells which items look the same."""
        return Looks(self.build, self.path_of, Limits.of(self.settings.images))

    @functools.cached_property
    def _judge(self) -> Judge:
        return Judge(self.build.sample, self.build.vocabulary, self.build.info.background)

    def warm_up(self) -> None:
        """Load what queries by text need, so that the first one is as fast as the next.

        Raises:
            BuildError: The codes of the build cannot be read.
            EncoderError: The model cannot be had.
        """
        self.build.load_codes()
        self._encode_texts(["a photo"])

    def search(self, query: Query, k: int = 8, offset: int = 0) -> list[Hit]:
        """Return the `k` best hits after the first `offset`, best first; fewer if there are fewer.

        Raises:
            QueryError: The query is empty, names something that does not exist, or its image
                cannot be used.
        """
        return list(self.answer(query, k, offset).hits)

    def search_many(self, queries: Sequence[Query], k: int = 8) -> list[list[Hit]]:
        """Return the hits of each query; texts are encoded together; raises as `search` does."""
        return [list(answer.hits) for answer in self.answer_many(queries, k)]

    def answer(
        self,
        query: Query,
        k: int = 8,
        offset: int = 0,
        *,
        meaning: Meaning | None = None,
        among: Flags | None = None,
    ) -> Answer:
        """Return the hits of `query` with timings; raises as `search` does.

        Args:
            query: What to look for.
            k: How many hits.
            offset: Leave out so many of the best.
            meaning: What `meanings` gave for this query, if somebody asked before.
            among: Items to choose from besides the query's filters, bool (items,); default all.
        """
        meanings = None if meaning is None else [meaning]
        return self._answer_batch([query], k, offset, meanings, among)[0]

    def answer_many(self, queries: Sequence[Query], k: int = 8, offset: int = 0) -> list[Answer]:
        """Return the hits of each query; raises as `search` does.

        The timings of a query that was answered with others are its share of theirs.
        """
        return [
            answer
            for start in range(0, len(queries), BATCH)
            for answer in self._answer_batch(queries[start : start + BATCH], k, offset)
        ]

    @one_blas_thread()
    def _answer_batch(
        self,
        queries: Sequence[Query],
        k: int,
        offset: int,
        meanings: list[Meaning] | None = None,
        among: Flags | None = None,
    ) -> list[Answer]:
        if k < 1:
            raise QueryError(f"k is {k}: ask for at least one hit")
        if offset < 0:
            raise QueryError(f"the offset is {offset}: it cannot be negative")
        clock = _Clock(len(queries))
        allowed = [both(self.allowed(query), among) for query in queries]
        clock.lap("filter")
        meanings = meanings or self.meanings(queries)
        clock.lap("encode")
        rankings = self._rankings(queries, meanings, allowed, BLOCK * (1 + (offset + k) // BLOCK))
        clock.lap("search")
        info = self.build.info
        hits = []
        for query, meaning, flags, ranking in zip(
            queries, meanings, allowed, rankings, strict=True
        ):
            relevance = self._relevance(meaning, ranking, flags)
            groups, more = self._groups(query, ranking, relevance)
            while len(groups) < offset + k and more:
                # Too many were irrelevant, or folded: look further down.
                deeper = 2 * len(ranking.numbers)
                ranking = self._rankings([query], [meaning], [flags], deeper)[0]
                relevance = self._relevance(meaning, ranking, flags)
                groups, more = self._groups(query, ranking, relevance)
            hits.append(self._hits(query, ranking, relevance, groups[offset : offset + k]))
        clock.lap("read")
        return [
            Answer(query, found, info.model, self.build.path.name, clock.laps, str(ranking.plan))
            for query, found, ranking in zip(queries, hits, rankings, strict=True)
        ]

    def allowed(self, query: Query) -> Flags | None:
        """Return which items pass the filters, bool (items,), or None without filters.

        They are remembered: all pages of an answer have the same. Do not change them.

        Raises:
            QueryError: A filter names a source that is not in the index.
        """
        return self._passing(query.filters)

    def meanings(self, queries: Sequence[Query]) -> list[Meaning]:
        """Return what each query means; all their texts are encoded together.

        Raises:
            QueryError: A query is empty, its parts cancel each other out, or its image cannot be
                used.
        """
        texts = list(
            dict.fromkeys(text for query in queries for _, text in (*query.wanted, *query.unwanted))
        )
        vectors = dict(zip(texts, self._encode_texts(texts), strict=True)) if texts else {}
        return [self._meaning(query, vectors) for query in queries]

    def _encode_texts(self, texts: list[str]) -> Vectors:
        if self._encoder is None and self._text_encoder is None:
            from retrieval_pipeline.encoders.load import load_text_encoder_of

            self._text_encoder = load_text_encoder_of(self.build.info.space)
        if self._encoder is None and self._text_encoder is not None:
            vectors = self._text_encoder(texts)
        else:
            vectors = self.encoder.encode_texts(texts)
        return check_vectors(vectors, self.build.info.dim, "query")

    def _meaning(self, query: Query, vectors: dict[str, Vectors]) -> Meaning:
        background = self.build.info.background
        words = [vectors[text] for _, text in query.wanted]
        pictures = self._pictures(query)
        if not words and not pictures:
            raise QueryError('the query is empty: say what to look for, such as "a dog on grass"')
        unrelated = background.words or self._spread_of_words(words)
        asked = np.array([*(weight for weight, _ in query.wanted), *[1.0] * len(pictures)])
        # Pictures differ more in their cosines with a picture than in those with words: each part
        # is divided by its spread, to tell the pictures apart as much as its weight says.
        spreads = [unrelated] * len(words) + [background.pictures] * len(pictures)
        weights = asked / np.array([spread.deviation for spread in spreads])
        total = weights @ np.stack([*words, *pictures])
        try:
            wanted = normalise(total)[0]
        except VectorError:
            raise QueryError(f'"{query}" means nothing: its parts cancel each other out') from None
        length = np.linalg.norm(total)
        weights /= length
        # In the units of what is wanted, as above.
        unit = np.linalg.norm(asked) / length / unrelated.deviation
        return Meaning(
            wanted,
            np.array([vectors[text] for _, text in query.unwanted], np.float32).reshape(
                -1, len(wanted)
            ),
            np.array([unit * weight for weight, _ in query.unwanted], np.float32),
            Mixture(
                tuple(weights[: len(words)].tolist()),
                tuple(weights[len(words) :].tolist()),
                unrelated,
            ),
        )

    def _spread_of_words(self, vectors: list[Vectors]) -> Spread:
        """Judge words by themselves, where the build has no vocabulary to judge them by."""
        if not vectors:
            return self.build.info.background.pictures
        scores = self.build.sample @ np.stack(vectors).T
        centre = float(np.median(scores))
        # 1.4826 makes the median absolute deviation the standard deviation of a normal
        # distribution; robust, since here the related pictures are among the sample.
        deviation = 1.4826 * float(np.median(np.abs(scores - centre)))
        return Spread(mean=centre, deviation=max(deviation, 1e-6))

    def _pictures(self, query: Query) -> list[Vectors]:
        """Return the vectors of the query's pictures, from the build where it has them."""
        vectors = [self.build.vectors(self._number_of(content))[0] for content in query.like]
        if query.images:
            encoded = self.encoder.encode_pixels(self._pixels(query.images))
            vectors += list(check_vectors(encoded, self.build.info.dim, "query"))
        return vectors

    def _pixels(self, paths: Sequence[Path]) -> list[Pixels]:
        """Return the pixels of files, as the index would have them."""
        limits = Limits.of(self.settings.images)
        found = pictures([Job(path) for path in paths], self.encoder.transform, limits)
        pixels = []
        for path, picture in zip(paths, found, strict=True):
            if isinstance(picture, ImageError):
                raise QueryError(f"{path}: {picture}") from picture
            pixels.append(picture.pixels)
        return pixels

    def _number_of(self, content_id: str) -> Numbers:
        number = self.build.number_of(content_id)
        if number is None:
            raise QueryError(
                f'no indexed picture has the content id "{content_id}": '
                "`retrieval query --json` shows those of the hits"
            )
        return np.array([number], np.int64)

    def _rankings(
        self,
        queries: Sequence[Query],
        meanings: Sequence[Meaning],
        allowed: Sequence[Flags | None],
        count: int,
    ) -> list[Ranking]:
        """Rank each query's `count` best items: exactly if filters or unwanted things decide."""
        nearest, plan = self.build.nearest, self.build.plan
        whole = [
            flags is None and (plan.kind == "scan" or len(meaning.unwanted) > 0)
            for meaning, flags in zip(meanings, allowed, strict=True)
        ]
        scanned = [m.vectors for m, scan in zip(meanings, whole, strict=True) if scan]
        # One product for all of them.
        cosines = nearest.scan(np.concatenate(scanned)) if scanned else np.empty((0, 0), np.float32)
        rankings, column = [], 0
        for query, meaning, flags, scan in zip(queries, meanings, allowed, whole, strict=True):
            # A picture is not an answer to itself.
            wanted = count + len(query.like)
            if scan:
                columns = slice(column, column := column + len(meaning.vectors))
                numbers, scores = top(meaning.scores(cosines[:, columns]), wanted)
            elif flags is not None:
                passed = np.flatnonzero(flags)
                cosines_of = nearest.scores_of(meaning.vectors, passed)
                order, scores = top(meaning.scores(cosines_of), wanted)
                numbers = passed[order]
            else:
                numbers, scores = nearest.best(meaning.wanted, wanted, plan)
            used = plan if flags is None and not scan else SCAN
            own = [int(self._number_of(content)[0]) for content in set(query.like)]
            kept = ~np.isin(numbers, own)
            among = len(self.build) if flags is None else int(flags.sum())
            among -= len(own) if flags is None else int(flags[own].sum())
            rankings.append(Ranking(numbers[kept][:count], scores[kept][:count], used, among))
        return rankings

    def _groups(
        self, query: Query, ranking: Ranking, relevance: Values
    ) -> tuple[list[list[int]], bool]:
        """Return the ranks of hits that are relevant enough; what looks the same is one hit.

        Also whether there may be more below. The list ends where BLOCK hits on end are irrelevant.
        """
        relevant = relevance >= query.min_relevance
        more = ranking.is_partial
        for start in range(0, len(relevant), BLOCK):
            if not relevant[start : start + BLOCK].any():
                relevant[start:], more = False, False
        ranks = np.flatnonzero(relevant).tolist()
        if not query.collapse:
            return [[rank] for rank in ranks], more
        numbers = ranking.numbers[ranks]
        groups = fold(
            self.build.vectors(numbers),
            NEAR_DUPLICATE,
            lambda one, other: self.looks.same(int(numbers[one]), int(numbers[other])),
        )
        return [[ranks[number] for number in group] for group in groups], more

    def _relevance(self, meaning: Meaning, ranking: Ranking, flags: Flags | None) -> Values:
        """Judge each hit of a ranking, float64 (n,), 0 to 1."""
        build, mixture = self.build, meaning.mixture
        scores = meaning.scores(build.sample @ meaning.vectors.T)
        sample = self._judge.surplus_of_sample(scores, mixture)
        if flags is not None:
            sample = sample[flags[build.sample_numbers]]
        surplus = [np.empty(0)]
        for start in range(0, len(ranking.numbers), JUDGED_ROWS):
            rows = slice(start, start + JUDGED_ROWS)
            items = build.vectors(ranking.numbers[rows])
            surplus.append(self._judge.surplus(ranking.scores[rows], items, mixture))
        return relevance_of(np.concatenate(surplus), ranking.among, sample)

    def _hits(
        self, query: Query, ranking: Ranking, relevance: Values, page: Sequence[Sequence[int]]
    ) -> tuple[Hit, ...]:
        ranks = [group[0] for group in page]
        columns = ["content_id", "locations", "width", "height"]
        numbers = np.ascontiguousarray(ranking.numbers[ranks], np.int64)
        # `pa.array` would import pandas where it is installed, as `to_numpy` would.
        chosen = pa.Array.from_buffers(pa.int64(), len(numbers), [None, pa.py_buffer(numbers)])
        rows = self.build.items.select(columns).take(chosen).to_pylist()
        passes = location_test(query)
        hits = []
        for row, rank, group in zip(rows, ranks, page, strict=True):
            first = next(place for place in row["locations"] if passes(place))
            location = Location(first["source"], first["path"])
            hits.append(
                Hit(
                    content_id=row["content_id"],
                    path=self.path_of(location),
                    location=location,
                    score=float(ranking.scores[rank]),
                    relevance=float(relevance[rank]),
                    locations=tuple(
                        Location(place["source"], place["path"]) for place in row["locations"]
                    ),
                    width=row["width"],
                    height=row["height"],
                    alike=len(group) - 1,
                )
            )
        return tuple(hits)

    def path_of(self, location: Location) -> Place:
        """Return the absolute path of a location, under its source's present directory."""
        for source in self.settings.sources:
            if source.name == location.source:
                return source.path / to_path(location.path)
        return Path(to_path(location.path))


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
