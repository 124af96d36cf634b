"""Publication of an index and its map, and the return to an earlier build."""

import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from retrieval_pipeline.config.settings import EvaluationSettings, Settings
from retrieval_pipeline.encoders.base import Encoder
from retrieval_pipeline.errors import BuildError, MapError, StoreError
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.index.build import Build, current_or_none
from retrieval_pipeline.index.build_info import read_info
from retrieval_pipeline.index.builder import AcceptBuild, BuildReport, build_index
from retrieval_pipeline.index.corpus import Corpus
from retrieval_pipeline.index.knn import evenly_spaced
from retrieval_pipeline.latent_map.coordinates import (
    MAPPED_ITEMS,
    NEIGHBOURS_FILE,
    MapInfo,
    make_map,
    mapped_of,
    orphaned_maps,
    previous_coordinates,
    previous_neighbours,
    read_map_info,
    save_map,
    with_neighbours,
)
from retrieval_pipeline.latent_map.neighbours import is_installed
from retrieval_pipeline.pipeline.validation import check_build, read_coverage, reason_to_keep
from retrieval_pipeline.progress import Progress, Quiet, Stoppable
from retrieval_pipeline.storage.atomic import discard, new_directory
from retrieval_pipeline.storage.reading import is_there
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace

if TYPE_CHECKING:
    from retrieval_pipeline.index.milvus.publication import PublicationReport


@dataclass(frozen=True)
class MapReport:
    """The map of a build.

    Attributes:
        directory: The folder of the map.
        info: The facts about the map; None if there is none.
        problem: Why there is no map.
    """

    directory: Path
    info: MapInfo | None
    problem: str | None = None


def update_index(
    settings: Settings,
    space: VectorSpace,
    load: Callable[[], Encoder],
    *,
    publish: bool = True,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> "BuildReport | PublicationReport":
    """Build the index of all sources and publish it if it passes its checks.

    Where the settings name an engine, it is published there, and no file is written for it.

    The current build stays if `retrieval use` holds it. It also stays if it is of another model and
    the model of `space` has not embedded all sources yet: the images that are missing in the new
    build could not be found. The caller holds the store's lock.

    Args:
        settings: Sources, home, and what a build must keep.
        space: The vector space of the embeddings to index.
        load: Loads the encoder of that space.
        publish: False only builds: the current build goes on answering, and nothing compares the
            new one with it.
        progress: Told about stages and items.
        stop: Once it is set, a publication to an engine ends after the call in hand. Files are
            written to their end.

    Raises:
        BuildError: There is nothing to index.
        EncoderError: A model cannot be had.
        EngineError: The engine that the settings name is away, slow, full or refuses.
        EvaluationError: The settings name labelled queries, by which a change of model is judged,
            and these cannot be read or have no answer in the new build.
        RefusedBuildError: A check failed; the current build goes on answering.
        StoreError: A table is damaged or the build cannot be written.
        Stopped: `stop` was set.
    """
    if settings.has_engine:
        from retrieval_pipeline.pipeline.engine import update_engine

        if stop is not None:
            what = "stopped while publishing to the engine; what was sent is kept"
            progress = Stoppable(progress or Quiet(), stop, what)
        return update_engine(settings, space, load, publish_it=publish, progress=progress)
    store = Store(settings.home)
    coverage = read_coverage(store, space, settings.source_names)
    current = current_or_none(store) if publish else None
    if current is not None and (
        kept := reason_to_keep(store, current.parent.name != space.key, space, coverage)
    ):
        try:
            return BuildReport(current, read_info(current), published=False, kept=kept)
        except BuildError:
            # A damaged build cannot answer: build a new one.
            store.release()
    accept_change = None
    labels = settings.evaluation
    if labels is not None and current is not None and current.parent.name != space.key:
        accept_change = _judged(settings, labels, current, load, progress)
    return build_index(
        store,
        space,
        settings.source_names,
        views={source.name: source.views for source in settings.sources},
        recall=settings.index.recall,
        codes=settings.index.codes,
        precision=settings.index.vectors,
        encode_texts=lambda texts: load().encode_texts(texts),
        accept=lambda build: check_build(build, coverage, settings.index.recall),
        accept_change=accept_change,
        publish=publish,
        progress=progress,
    )


def _judged(
    settings: Settings,
    labels: EvaluationSettings,
    current: Path,
    load: Callable[[], Encoder],
    progress: Progress | None,
) -> AcceptBuild:
    """Return what compares a build of another model with the current one."""
    from retrieval_pipeline.pipeline.comparison import check_answers
    from retrieval_pipeline.search.embedded_index import EmbeddedIndex
    from retrieval_pipeline.search.searcher import Searcher

    return lambda build: check_answers(
        labels,
        Searcher(settings, EmbeddedIndex(build), load()),
        lambda: Searcher(settings, EmbeddedIndex(Build.open(current))),
        progress=progress,
    )


def answering_build(settings: Settings) -> Path | None:
    """Return the directory of the build that answers; of a publication to an engine, its name.

    Returns:
        None before the first one.

    Raises:
        EngineError: The engine cannot be asked.
        StoreError: The pointer to the current build, or a ledger, is damaged.
    """
    if not settings.has_engine:
        return Store(settings.home).current_build()
    from retrieval_pipeline.pipeline.engine import answering

    found = answering(settings)
    return None if found is None else Path(found.info.build)


def use_build(settings: Settings, name: str) -> Build:
    """Make the build called `name` the current one, and hold it until `Store.release`.

    Raises:
        BuildError: There is no build of that name, or it is damaged.
        StoreError: Another run is writing, or the file system refused.
    """
    store = Store(settings.home)
    with store.locked():
        builds = {build.name: build for build in store.all_builds()}
        if name not in builds:
            known = sorted(builds) or ["none yet"]
            raise BuildError(f'there is no build "{name}"; builds:', *known)
        build = Build.open(builds[name], rehash=True)
        store.hold(build.path)
    return build


def update_map(
    settings: Settings,
    build: Path,
    *,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> MapReport:
    """Draw the map of a build unless there is one; the caller holds the store's lock.

    Args:
        settings: Where the sources are, and the limits for their images.
        build: Directory of the build; of a publication to an engine, its name. What an engine
            holds is read from the tables.
        progress: Told of the steps.
        stop: Once it is set, drawing ends at its next step, and the next call begins anew.

    Raises:
        BuildError: The build is damaged.
        StoreError: The map cannot be written.
        Stopped: `stop` was set.
    """
    progress = progress or Quiet()
    if stop is not None:
        what = "stopped while drawing the map; the index is published"
        progress = Stoppable(progress, stop, what)
    store = Store(settings.home)
    directory = store.map(build.name)
    wanted = settings.map.umap
    if wanted and not is_installed():
        progress.note(
            "the map is not laid out by neighbours: pip install 'retrieval-pipeline[umap]', or "
            "take `umap = true` out of the settings"
        )
        wanted = False
    if directory.exists():
        try:
            info = read_map_info(directory)
            if not wanted or is_there(directory / NEIGHBOURS_FILE):
                return MapReport(directory, info)
            raise MapError(f"{directory}: has no layout by neighbours yet")
        except MapError as error:
            if not store.is_removable(directory):
                raise StoreError(
                    f"{error}. It cannot be drawn again before you move files of your own out of "
                    f"{directory}"
                ) from None
            progress.note(f"drawing the map again: {error}")
            discard(directory)
    from retrieval_pipeline.latent_map.drawing import drawing
    from retrieval_pipeline.latent_map.write import write_views

    if settings.has_engine:
        from retrieval_pipeline.pipeline.engine import read_published

        found: Corpus = read_published(settings, build.name)
    else:
        found = Build.open(build)
    if len(found) > MAPPED_ITEMS:
        progress.note(mapped_of(len(found)))
    corpus = found.sampled(MAPPED_ITEMS)
    try:
        latent = make_map(
            corpus,
            numbers=evenly_spaced(len(corpus), MAPPED_ITEMS),
            previous=previous_coordinates(store, build.name),
            progress=progress,
        )
        if wanted:
            latent = with_neighbours(latent, previous_neighbours(store), progress)
    except MapError as error:
        return MapReport(directory, None, str(error))
    with new_directory(directory) as temporary:
        save_map(latent, temporary)
        limits = Limits.of(settings.images)
        write_views(drawing(latent, settings), temporary, limits, progress)
    for former in orphaned_maps(store, store.all_builds()):
        discard(former)
    return MapReport(directory, latent.info)
