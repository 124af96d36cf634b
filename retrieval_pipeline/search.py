"""Query -> hits: what the words and pictures of a query mean, and which items are nearest."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
from scipy.special import log_ndtr

from retrieval_pipeline import images
from retrieval_pipeline.config import Settings
from retrieval_pipeline.errors import EncoderError, QueryError, VectorError
from retrieval_pipeline.index import CANDIDATES, Build, open_current
from retrieval_pipeline.paths import compile_globs, glob_matches, to_path
from retrieval_pipeline.store import Store
from retrieval_pipeline.vectors import Vectors, check_vectors, normalise

if TYPE_CHECKING:
    from retrieval_pipeline.encoders import Encoder

# Up to here scanning everything is exact and faster than the trees (measured on one core).
SCAN_ITEMS = 30_000


@dataclass(frozen=True)
class Location:
    """One file that holds an image.

    Attributes:
        source: Name of its source.
        path: Relative to the source, as text of `paths.to_text`.
    """

    source: str
    path: str


@dataclass(frozen=True)
class Hit:
    """One search result.

    Attributes:
        content_id: Identity of the image's bytes.
        path: Absolute path of `location`.
        location: Its first location that passes the filters.
        score: Cosine of query and image, -1 to 1.
        relevance: 0 to 1: the chance that no image unrelated to the query would score as high.
        locations: Every file that holds this image.
        width: Pixels of the upright picture.
        height: Likewise.
    """

    content_id: str
    path: Path
    location: Location
    score: float
    relevance: float
    locations: tuple[Location, ...]
    width: int
    height: int

    @property
    def source(self) -> str:
        """Source of the location shown first."""
        return self.location.source

    @property
    def other_locations(self) -> tuple[Location, ...]:
        """The other files that hold the same image."""
        return tuple(place for place in self.locations if place != self.location)


@dataclass(frozen=True)
class Query:
    """What to look for: text and image together mean both; `plus` and `minus` shift the meaning.

    Attributes:
        text: Words.
        image: A picture to find similar ones of.
        plus: More words to move towards.
        minus: Words to move away from.
        sources: Only images of these sources; empty means all.
        paths: Only images with a path, relative to their source, that one of these globs matches.
        min_relevance: Hits below it are left out.
    """

    text: str | None = None
    image: Path | None = None
    plus: tuple[str, ...] = ()
    minus: tuple[str, ...] = ()
    sources: tuple[str, ...] = ()
    paths: tuple[str, ...] = ()
    min_relevance: float = 0.0

    def __str__(self) -> str:
        parts = [self.text or ""]
        parts += [f"like {self.image}"] if self.image else []
        parts += [f"+ {text}" for text in self.plus] + [f"- {text}" for text in self.minus]
        return " ".join(part for part in parts if part)


@dataclass(frozen=True)
class Answer:
    """The hits of one query and where they came from."""

    query: Query
    hits: tuple[Hit, ...]
    model: str
    build: str
    timings_ms: dict[str, float] = field(compare=False)


class Searcher:
    """Answers queries from the current build, with the encoder that the build names."""

    def __init__(self, settings: Settings, build: Build, encoder: "Encoder | None" = None) -> None:
        self.settings = settings
        self.build = build
        self._encoder = encoder

    @classmethod
    def open(cls, settings: Settings) -> "Searcher":
        """Open the current build; the encoder is loaded by the first query.

        Raises:
            BuildError: Nothing is indexed yet, or the build is damaged.
        """
        return cls(settings, open_current(Store(settings.home)))

    @property
    def encoder(self) -> "Encoder":
        """The encoder of the build's vector space.

        Raises:
            EncoderError: It cannot be had.
        """
        if self._encoder is None:
            from retrieval_pipeline.encoders import load_encoder_of

            self._encoder = load_encoder_of(self.build.info.space, device=self.settings.device)
        return self._encoder

    def search(self, query: Query, k: int = 8) -> list[Hit]:
        """Return the `k` best hits, best first; fewer if fewer pass the filters.

        Raises:
            QueryError: The query is empty or names something that does not exist.
            ImageError: The query's image cannot be used.
        """
        return list(self.answer(query, k).hits)

    def search_many(self, queries: Sequence[Query], k: int = 8) -> list[list[Hit]]:
        """Return the hits of each query."""
        return [self.search(query, k) for query in queries]

    def answer(self, query: Query, k: int = 8) -> Answer:
        """Return the hits of `query` with timings; raises as `search` does."""
        if k < 1:
            raise QueryError(f"k is {k}: ask for at least one hit")
        clock = _Clock()
        allowed = self.allowed(query)
        clock.lap("filter")
        vector = self.query_vector(query)
        clock.lap("encode")
        numbers, scores, background = self._nearest(vector, k, allowed)
        clock.lap("search")
        relevance = relevance_of(scores, background, len(self.build))
        kept = relevance >= query.min_relevance
        hits = self._hits(numbers[kept], scores[kept], relevance[kept], query)
        clock.lap("read")
        return Answer(query, hits, self.build.info.model, self.build.path.name, clock.laps)

    def query_vector(self, query: Query) -> Vectors:
        """Return the unit vector, float32 (dim,), that stands for what the query means.

        Raises:
            QueryError: The query is empty, or its parts cancel each other out.
            ImageError: The query's image cannot be used.
        """
        positive = [text for text in (query.text, *query.plus) if text and text.strip()]
        negative = [text for text in query.minus if text.strip()]
        if not positive and query.image is None:
            raise QueryError('the query is empty: say what to look for, such as "a dog on grass"')
        total = np.zeros(self.build.info.dim, np.float32)
        if positive or negative:
            signs = np.array([1] * len(positive) + [-1] * len(negative), np.float32)
            total += signs @ self.encoder.encode_texts(positive + negative)
        if query.image is not None:
            limits = images.Limits.of(self.settings.images)
            picture = images.open_upright(query.image, limits)
            total += self.encoder.encode_images([picture])[0]
        try:
            vector = normalise(total)
        except VectorError:
            raise QueryError(f'"{query}" means nothing: its parts cancel each other out') from None
        return check_vectors(vector, self.build.info.dim, "query")[0]

    def allowed(self, query: Query) -> npt.NDArray[np.bool_] | None:
        """Return which items pass the filters, bool (items,), or None without filters.

        Raises:
            QueryError: A filter names a source that is not in the index.
        """
        if not query.sources and not query.paths:
            return None
        known = self.build.info.sources
        for source in query.sources:
            if source not in known:
                raise QueryError(
                    f'there is no source "{source}" in the index (sources: {", ".join(known)})'
                )
        passing: list[npt.NDArray[np.bool_]] = []
        globs = compile_globs(query.paths)
        for chunk in self.build.items.column("locations").chunks:
            places = chunk.flatten()
            good = np.ones(len(places), np.bool_)
            if query.sources:
                good &= pc.is_in(places.field("source"), pa.array(query.sources)).to_numpy(
                    zero_copy_only=False
                )
            if globs is not None:
                paths = places.field("path").to_pylist()
                good &= np.fromiter((glob_matches(globs, path) for path in paths), np.bool_)
            starts = chunk.offsets.to_numpy()[:-1] - chunk.offsets[0].as_py()
            passing.append(np.logical_or.reduceat(good, starts))
        return np.concatenate(passing)

    def _nearest(
        self, vector: Vectors, k: int, allowed: npt.NDArray[np.bool_] | None
    ) -> tuple[npt.NDArray[np.int64], Vectors, Vectors]:
        """Return the k best items, their scores, and scores that stand for all items."""
        if allowed is not None or len(self.build) <= SCAN_ITEMS or k > CANDIDATES:
            background = self.build.scan(vector)
            numbers = np.arange(len(background)) if allowed is None else np.flatnonzero(allowed)
            scores = background[numbers]
        else:
            numbers = self.build.candidates(vector)
            scores = self.build.vectors(numbers) @ vector
            background = self.build.sample @ vector
        # Ties are in the order of the items, so that the same query gives the same answer.
        order = np.lexsort((numbers, -scores))[:k]
        return numbers[order], scores[order], background

    def _hits(
        self,
        numbers: npt.NDArray[np.int64],
        scores: Vectors,
        relevance: npt.NDArray[np.float64],
        query: Query,
    ) -> tuple[Hit, ...]:
        columns = ["content_id", "locations", "width", "height"]
        rows = self.build.items.select(columns).take(pa.array(numbers)).to_pylist()
        globs = compile_globs(query.paths)
        hits = []
        for row, score, chance in zip(rows, scores.tolist(), relevance.tolist(), strict=True):
            places = tuple(Location(at["source"], at["path"]) for at in row["locations"])
            first = next(
                at
                for at in places
                if (not query.sources or at.source in query.sources)
                and (globs is None or glob_matches(globs, at.path))
            )
            hits.append(
                Hit(
                    content_id=row["content_id"],
                    path=self.path_of(first),
                    location=first,
                    score=score,
                    relevance=chance,
                    locations=places,
                    width=row["width"],
                    height=row["height"],
                )
            )
        return tuple(hits)

    def path_of(self, location: Location) -> Path:
        """Return the absolute path of a location, under its source's present directory."""
        for source in self.settings.sources:
            if source.name == location.source:
                return source.path / to_path(location.path)
        return Path(to_path(location.path))


def relevance_of(scores: Vectors, background: Vectors, items: int) -> npt.NDArray[np.float64]:
    """Return, for each score, the chance (0..1) that no unrelated image would reach it.

    The scores of unrelated images are taken as normal, with the median and the median absolute
    deviation of the query's scores over the collection (`background`, float32 (m,)) as robust
    estimates, since related images are few among them. The largest of n independent draws stays
    below s with probability F(s) ** n (order statistics; David & Nagaraja 2003, section 2.1).
    """
    centre = np.median(background)
    # 1.4826 makes the median absolute deviation the standard deviation of a normal distribution.
    spread = 1.4826 * np.median(np.abs(background - centre))
    z = (scores.astype(np.float64) - centre) / max(float(spread), 1e-6)
    return np.exp(items * log_ndtr(z))


class _Clock:
    """Milliseconds of each step of an answer."""

    def __init__(self) -> None:
        self.laps: dict[str, float] = {}
        self._last = time.perf_counter()

    def lap(self, name: str) -> None:
        now = time.perf_counter()
        self.laps[name] = round(1000 * (now - self._last), 3)
        self._last = now
