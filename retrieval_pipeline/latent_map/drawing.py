"""A latent map as people see it: which images, under which colours, with which thumbnails.

`html` and `picture` draw what is gathered here.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import MapError
from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.images.pictures import pictures
from retrieval_pipeline.images.transform import Decoded, Fit, Pixels
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.index.knn import evenly_spaced
from retrieval_pipeline.index.records import IndexedFile
from retrieval_pipeline.latent_map.clusters import sample
from retrieval_pipeline.latent_map.coordinates import (
    MAPPED_ITEMS,
    LatentMap,
    make_map,
    mapped_of,
    previous_coordinates,
)
from retrieval_pipeline.latent_map.fact_groups import UNKNOWN, Grouping, groupings
from retrieval_pipeline.paths import to_path
from retrieval_pipeline.progress import Progress
from retrieval_pipeline.search.filters import file_test
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors

ColourBy = Literal["cluster", "source", "score", "year", "camera", "country"]

# Thumbnails of a map, 4 KB each: more than a picture has room for, and the page keeps below 25 MB.
THUMBNAILS = 1_000

# Hues of OKLCH a golden angle apart at three lightnesses, so that neighbours differ most; all are
# told from both a light and a dark ground.
PALETTE = (
    "#3a81d7", "#ec7760", "#00835b", "#9964c5", "#c99500",
    "#0078a6", "#c5547c", "#6eb452", "#525dbd", "#c3610a",
    "#00bbb3", "#954494", "#8e8300", "#32a7f3", "#af3b43",
    "#009a5b", "#a689f1", "#9b5600", "#0096b1", "#e074af",
)  # fmt: skip


# Of images that do not know what the colours mean.
GREY = "#8a8f98"


@dataclass(frozen=True)
class Group:
    """Images of one colour."""

    name: str
    colour: str
    images: int


@dataclass(frozen=True)
class Drawing:
    """A map and what to show of it.

    Attributes:
        latent: The map.
        title: What it shows.
        colour_by: What the colours mean at first.
        sources: Names of the sources that occur.
        source_of: int32 (n,), the source of each image of the map.
        paths: Relative to their sources, as text of `paths.to_text`.
        roots: Directory of each source.
        scores: float32 (n,), cosine of each image and a query, if there was one.
        facts: The images in groups by "year", "camera" and "country", as far as any knows it.
    """

    latent: LatentMap
    title: str
    colour_by: ColourBy
    sources: tuple[str, ...]
    source_of: npt.NDArray[np.int32]
    paths: list[str]
    roots: tuple[Place, ...]
    scores: Vectors | None
    facts: Mapping[str, Grouping]

    @property
    def choices(self) -> list[str]:
        """What the colours may mean."""
        return ["cluster", "source", *self.facts, *([] if self.scores is None else ["score"])]

    @cached_property
    def clusters(self) -> tuple[Group, ...]:
        """The clusters with their colours."""
        return tuple(
            Group(each.name, colour_of(number), each.images)
            for number, each in enumerate(self.latent.info.clusters)
        )

    @cached_property
    def source_groups(self) -> tuple[Group, ...]:
        """The sources with their colours."""
        counts = np.bincount(self.source_of, minlength=len(self.sources))
        return tuple(
            Group(name, colour_of(number), int(counts[number]))
            for number, name in enumerate(self.sources)
        )

    @property
    def axes(self) -> tuple[str, ...]:
        """What each axis shows."""
        return tuple(
            f"component {number}: {share:.1%} of the variance"
            for number, share in enumerate(self.latent.info.explained, 1)
        )

    def file(self, row: int) -> Place:
        """Return the absolute path of an image of the map."""
        return self.roots[int(self.source_of[row])] / to_path(self.paths[row])

    def content_id(self, row: int) -> str:
        """Return the content id of an image of the map."""
        content: str = self.latent.corpus.items["content_id"][int(self.latent.numbers[row])].as_py()
        return content


def colour_of(number: int) -> str:
    """Return the colour "#rrggbb" of a cluster or source; after 20 they repeat."""
    return PALETTE[number % len(PALETTE)]


def fact_groups(grouping: Grouping) -> tuple[Group, ...]:
    """Return the groups by a fact with their colours; what is unknown is grey."""
    counts = np.bincount(grouping.group_of, minlength=len(grouping.names))
    return tuple(
        Group(name, GREY if name == UNKNOWN else colour_of(number), int(counts[number]))
        for number, name in enumerate(grouping.names)
    )


def drawing(
    latent: LatentMap,
    settings: Settings,
    *,
    query: Query | None = None,
    scores: Vectors | None = None,
    colour_by: ColourBy = "cluster",
) -> Drawing:
    """Gather what is drawn of a map.

    Args:
        latent: The map.
        settings: Say where the sources are.
        query: What chose its images: names the drawing, and which of several copies is shown.
        scores: float32 (n,), of the images of the map.
        colour_by: What the colours mean at first.

    Raises:
        MapError: The colours are to mean a fact that no image knows.
    """
    locations = latent.corpus.items.column("locations").take(pa.array(latent.numbers))
    places = _shown_locations(latent.corpus, locations.combine_chunks(), query)
    encoded = places.field("source").dictionary_encode()
    sources = tuple(encoded.dictionary.to_pylist())
    roots = {source.name: source.path for source in settings.sources}
    facts = groupings(latent.corpus, latent.numbers)
    if colour_by in get_args(ColourBy)[3:] and colour_by not in facts:
        raise MapError(f"no image of the map knows its {colour_by}: run `retrieval index` first")
    return Drawing(
        latent=latent,
        title=_title(query),
        colour_by=colour_by,
        sources=sources,
        source_of=encoded.indices.to_numpy(),
        paths=places.field("path").to_pylist(),
        # A source that left the settings: its paths lead nowhere, and its pictures are left out.
        roots=tuple(roots.get(name, Path(name)) for name in sources),
        scores=scores,
        facts=facts,
    )


def _title(query: Query | None) -> str:
    if query is None:
        return "Latent map"
    where = ", ".join([*query.sources, *query.paths])
    return (str(query) or "Latent map") + (f" ({where})" if where else "")


def _shown_locations(
    corpus: Corpus, locations: pa.ListArray, query: Query | None
) -> pa.StructArray:
    """Return the first location of each image that the query's filters admit."""
    if query is None or query == Query():
        return pc.list_element(locations, 0)
    passes = file_test(query, knows_facts=corpus.facts is not None)
    chosen = [
        next(row for row in rows if passes(IndexedFile.of(row))) for rows in locations.to_pylist()
    ]
    return pa.array(chosen, locations.type.value_type)


def drawing_to_order(
    searcher: Searcher,
    query: Query,
    *,
    count: int | None = None,
    clusters: int | None = None,
    colour_by: ColourBy | None = None,
    progress: Progress,
) -> Drawing:
    """Map the images that pass the filters of `query`.

    Args:
        searcher: Of the index.
        query: Its words and image, if any, give each image a score.
        count: Only the images with the highest scores; without a score, some at random.
        clusters: How many; None chooses.
        colour_by: None: by score if there are scores of all images, else by cluster.
        progress: Told of the steps.

    Raises:
        MapError: Too few images pass, or fewer than `clusters`, or there are no scores to show.
        QueryError: The query is empty of meaning, or names a source that is not in the index.
        ImageError: The query's image cannot be used.
        NotOnEngineError: An engine keeps the index, and it was not published from this home.
    """
    searcher = searcher.whole
    corpus = searcher.corpus
    wanted = bool(query.wanted or query.images or query.like)
    if colour_by == "score" and not wanted:
        raise MapError("a score is the nearness to a query: say which, with --like or --like-image")
    allowed = searcher.allowed(query)
    numbers = np.arange(len(corpus)) if allowed is None else np.flatnonzero(allowed)
    scores = None
    if wanted:
        towards = searcher.query_vectors([query])[0]
        scores = towards.scores(corpus.scan(towards.vectors))[numbers]
    if count is not None:
        if scores is None:
            numbers = numbers[sample(len(numbers), count)]
        else:
            best = np.sort(np.argsort(-scores, kind="stable")[:count])
            numbers, scores = numbers[best], scores[best]
    if len(numbers) > MAPPED_ITEMS:
        progress.note(mapped_of(len(numbers)))
        some = evenly_spaced(len(numbers), MAPPED_ITEMS)
        numbers, scores = numbers[some], None if scores is None else scores[some]
    # A map of everything lies as the standing one does; a part has axes of its own.
    standing = None
    if len(numbers) == len(corpus):
        standing = previous_coordinates(Store(searcher.settings.home), corpus.name)
    latent = make_map(
        corpus,
        numbers=numbers,
        clusters=clusters,
        previous=standing,
        progress=progress,
    )
    if colour_by is None:
        colour_by = "score" if wanted and count is None else "cluster"
    return drawing(latent, searcher.settings, query=query, scores=scores, colour_by=colour_by)


def thumbnails(
    drawing: Drawing, size: int, limits: Limits, progress: Progress
) -> dict[int, Pixels]:
    """Return thumbnails, of `size` pixels at most, of images spread over the map, by row.

    They come in the order of importance; images that cannot be shown are left out.

    Raises:
        WorkerError: No decode worker can be started.
    """
    rows = drawing.latent.from_coarse_to_fine()[:THUMBNAILS].tolist()
    jobs = (Job(drawing.file(row), drawing.content_id(row)) for row in rows)
    progress.start("drawing the map", len(rows), "images")
    made = {}
    for row, outcome in zip(rows, pictures(jobs, Fit(size), limits), strict=True):
        if isinstance(outcome, Decoded):
            made[row] = outcome.pixels
        progress.advance()
    progress.finish()
    return made
