"""Query -> vectors: its texts and pictures are encoded, weighted and added up."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import QueryError, VectorError
from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.pictures import picture, pictures
from retrieval_pipeline.images.transform import Fit, Pixels
from retrieval_pipeline.index.items import Location
from retrieval_pipeline.index.score_statistics import PRIOR_SCORES, Spread
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.search.albums import album_parts
from retrieval_pipeline.search.query import Crop, Query
from retrieval_pipeline.search.query_vectors import Mixture, QueryVectors
from retrieval_pipeline.search.vector_index import Items, VectorIndex, as_items, indexed_item
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import EncodeTexts, Vectors, check_vectors, normalise
from retrieval_pipeline.views import squared

if TYPE_CHECKING:
    from retrieval_pipeline.encoders.base import Encoder


class QueryEncoder:
    """Turns queries into vectors of a build's vector space; models are loaded when first needed."""

    def __init__(
        self,
        settings: Settings,
        index: VectorIndex,
        path_of: Callable[[Location], Place],
        encoder: "Encoder | None" = None,
    ) -> None:
        """Encode for `index`; `path_of` gives the absolute path of one of its files."""
        self._path_of = path_of
        self._device = settings.device
        self._limits = Limits.of(settings.images)
        self._store = Store(settings.home)
        self._index = index
        self._encoder = encoder
        self._text_encoder: EncodeTexts | None = None

    def use_models_of(self, other: "QueryEncoder") -> None:
        """Take what another one has loaded, for a build of the same vector space."""
        self._encoder, self._text_encoder = other._encoder, other._text_encoder

    @property
    def encoder(self) -> "Encoder":
        """The encoder of the build's vector space; texts alone may not need it.

        Raises:
            EncoderError: It cannot be had.
        """
        if self._encoder is None:
            from retrieval_pipeline.encoders.load import load_encoder_of

            self._encoder = load_encoder_of(self._index.info.space, device=self._device)
        return self._encoder

    def encode_texts(self, texts: list[str]) -> Vectors:
        """Return unit vectors, float32 (len(texts), dim).

        Raises:
            EncoderError: The model cannot be had.
            VectorError: It gave something else.
        """
        if self._encoder is None and self._text_encoder is None:
            from retrieval_pipeline.encoders.load import load_text_encoder_of

            self._text_encoder = load_text_encoder_of(self._index.info.space)
        if self._encoder is None and self._text_encoder is not None:
            vectors = self._text_encoder(texts)
        else:
            vectors = self.encoder.encode_texts(texts)
        return check_vectors(vectors, self._index.info.dim, "query")

    def encode(self, queries: Sequence[Query]) -> list[QueryVectors]:
        """Return the vectors of each query; all their texts are encoded together.

        Raises:
            EncoderError: The model cannot be had.
            QueryError: A query is empty, its parts cancel each other out, or its image cannot be
                used.
        """
        texts = list(
            dict.fromkeys(text for query in queries for _, text in (*query.wanted, *query.unwanted))
        )
        vectors = dict(zip(texts, self.encode_texts(texts), strict=True)) if texts else {}
        return [self._add_up(query, vectors) for query in queries]

    def _add_up(self, query: Query, vectors: dict[str, Vectors]) -> QueryVectors:
        """Add the parts of a query up; `vectors` has those of its texts."""
        background = self._index.info.background
        words = [vectors[text] for _, text in query.wanted]
        pictures = self._pictures(query)
        pictures += [part for name in query.like_albums for part in self._album(name)]
        if not words and not pictures:
            raise QueryError('the query is empty: say what to look for, such as "a dog on grass"')
        unrelated = background.words or self._spread_of_words(words)
        asked = np.array([weight for weight, _ in (*query.wanted, *pictures)])
        # Pictures differ more in their cosines with a picture than in those with words: each part
        # is divided by its spread, to tell the pictures apart as much as its weight says.
        spreads = [unrelated] * len(words) + [background.pictures] * len(pictures)
        weights = asked / np.array([spread.deviation for spread in spreads])
        parts = np.stack([*words, *(vector for _, vector in pictures)])
        vocabulary = self._index.vocabulary
        typical = None if vocabulary is None else vocabulary.mean(axis=0)
        total = weights @ self._above_typical(parts, len(words), typical)
        try:
            wanted = normalise(total)[0]
        except VectorError:
            raise QueryError(f'"{query}" means nothing: its parts cancel each other out') from None
        length = np.linalg.norm(total)
        weights /= length
        # Unwanted texts are scaled like the wanted ones: from standard deviations of the cosines of
        # unrelated texts into cosines with `wanted`. An unwanted text of weight 1 then weighs as
        # much as all wanted parts together, whose deviation is the norm of their weights if they
        # are independent.
        scale = np.linalg.norm(asked) / length / unrelated.deviation
        return QueryVectors(
            wanted,
            parts,
            np.array([vectors[text] for _, text in query.unwanted], np.float32).reshape(
                -1, len(wanted)
            ),
            np.array([scale * weight for weight, _ in query.unwanted], np.float32),
            Mixture(
                tuple(weights[: len(words)].tolist()),
                tuple(weights[len(words) :].tolist()),
                unrelated,
            ),
            typical,
        )

    def _above_typical(self, parts: Vectors, words: int, typical: Vectors | None) -> Vectors:
        """Subtract from each of several parts what is typical of its kind.

        Some pictures are close to all words, and more so to the sum of several. What is left of a
        part scores pictures by how much better it fits them than other words, or other pictures.
        A part that is alone stays as it is, so that its scores are the cosines with it.
        """
        if len(parts) == 1:
            return parts
        above = parts.copy()
        if typical is not None:
            above[:words] -= typical
        if words < len(parts):
            # Of few pictures the mean says little, and of one it would take all away.
            sample = self._index.sample
            above[words:] -= sample.sum(axis=0) / (len(sample) + PRIOR_SCORES)
        return above

    def _spread_of_words(self, vectors: list[Vectors]) -> Spread:
        """Judge words by themselves, where the build has no vocabulary to judge them by."""
        if not vectors:
            return self._index.info.background.pictures
        scores = self._index.sample @ np.stack(vectors).T
        centre = float(np.median(scores))
        # 1.4826 makes the median absolute deviation the standard deviation of a normal
        # distribution; robust, since here the related pictures are among the sample.
        deviation = 1.4826 * float(np.median(np.abs(scores - centre)))
        return Spread(mean=centre, deviation=max(deviation, 1e-6))

    def _pictures(self, query: Query) -> list[tuple[float, Vectors]]:
        """Return weight and vector of the query's pictures, from the build where it has them."""
        if query.crop is not None:
            return [(1.0, self._part(query, query.crop))]
        found = [indexed_item(self._index, content) for content in query.like]
        indexed = [self._item_of_file(path) for path in query.images]
        others = [path for path, item in zip(query.images, indexed, strict=True) if not len(item)]
        found += [item for item in indexed if len(item)]
        vectors = [self._index.vectors(item)[0] for item in found]
        if others:
            encoded = self.encoder.encode_pixels(self._pixels(others))
            vectors += list(check_vectors(encoded, self._index.info.dim, "query"))
        return [(1.0, vector) for vector in vectors]

    def _album(self, name: str) -> list[tuple[float, Vectors]]:
        return album_parts(self._index, self._store, name)

    def _item_of_file(self, path: Path) -> Items:
        """Return the item that has the bytes of a file; none if none has, or it cannot be read.

        Reading a file takes milliseconds, and loading a model to encode it takes seconds.
        """
        try:
            content = content_id_of_file(path, max_bytes=self._limits.bytes)
        except OSError:
            # Decoding says what is wrong with it.
            return as_items([])
        return self._index.find([content])

    def _part(self, query: Query, crop: Crop) -> Vectors:
        """Return the vector of a part of the query's only picture."""
        jobs = [Job(path) for path in query.images]
        for content in query.like:
            record = self._index.records(indexed_item(self._index, content))[0]
            jobs += [Job(self._path_of(location), content) for location in record.locations]
        problems = []
        for job in jobs:
            try:
                # Where the crop lies in the picture is known when the picture's size is.
                whole = picture(job, Fit(1), self._limits)
                view = squared(crop.within(whole.width, whole.height), whole.width, whole.height)
                decoded = picture(replace(job, views=(view,)), self.encoder.transform, self._limits)
            except ImageError as error:
                problems.append(f"{to_text(str(job.path))}: {error}")
            else:
                encoded = self.encoder.encode_pixels(decoded.view_pixels)
                vector: Vectors = check_vectors(encoded, self._index.info.dim, "query")[0]
                return vector
        raise QueryError(problems[0])

    def _pixels(self, paths: Sequence[Path]) -> list[Pixels]:
        """Return the pixels of files, as the index would have them."""
        found = pictures([Job(path) for path in paths], self.encoder.transform, self._limits)
        pixels = []
        for path, decoded in zip(paths, found, strict=True):
            if isinstance(decoded, ImageError):
                raise QueryError(f"{path}: {decoded}") from decoded
            pixels.append(decoded.pixels)
        return pixels
