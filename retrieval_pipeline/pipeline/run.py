"""The whole flow in one call, for the command line and scripts; Dagster runs the same steps."""

import functools
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval_pipeline.config import Settings, Source
from retrieval_pipeline.encoders.load import Description, Encoder, describe, load_encoder
from retrieval_pipeline.errors import BuildError, MapError, SettingsError, SourceError
from retrieval_pipeline.images.decode import Limits
from retrieval_pipeline.index.build import (
    Build,
    BuildReport,
    build_index,
    current_or_none,
    read_info,
)
from retrieval_pipeline.index.quantization import require_codes
from retrieval_pipeline.ingest.crawl import ManifestReport, update_manifest
from retrieval_pipeline.ingest.embed import Elsewhere, EmbedReport, update_embeddings
from retrieval_pipeline.latent_map.coordinates import (
    MapInfo,
    make_map,
    orphaned_maps,
    previous_coordinates,
    read_map_info,
    save_map,
)
from retrieval_pipeline.latent_map.drawing import drawing
from retrieval_pipeline.latent_map.write import write_views
from retrieval_pipeline.pipeline.validation import Coverage, check_build, read_coverage
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.store import Store, discard, new_directory
from retrieval_pipeline.vectors import VectorSpace

# Share of the images that a new model may leave for the next run when it takes over: files that
# change while they are embedded must not put it off for ever.
MAY_BE_PENDING = 0.001


@dataclass(frozen=True)
class MapReport:
    """The map of a build.

    Attributes:
        directory: Where it is.
        info: The facts about it; None if there is no map.
        problem: Why there is none.
    """

    directory: Path
    info: MapInfo | None
    problem: str | None = None


@dataclass(frozen=True)
class IndexReport:
    """What one run did; `failures` are the sources that could not be brought up to date."""

    manifests: tuple[ManifestReport, ...]
    embeddings: tuple[EmbedReport, ...]
    build: BuildReport
    map: MapReport
    failures: tuple[SourceError, ...]


def index_sources(
    settings: Settings,
    *,
    only: Sequence[str] = (),
    allow_shrink: bool = False,
    rehash: bool = False,
    retry_quarantined: bool = False,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> IndexReport:
    """Bring the tables of the sources (`only` these, if given), the index and the map up to date.

    A source that fails keeps its former tables and its images in the index; the others go on. After
    a change of model every source is embedded, since the new build must hold them all.

    Raises:
        SettingsError: There is no source, or none of that name.
        SourceError: No source could ever be read, or one that a change of model needs cannot.
        StoreError: Another run is writing, a table is damaged or the disk is full.
        EncoderError: The model cannot be had.
        BuildError: There is nothing to index, or no faiss for `index.codes`.
        Stopped: `stop` was set.
    """
    if not settings.sources:
        raise SettingsError("there are no sources in the settings: add a [[sources]] table")
    if settings.index.codes:
        require_codes()
    wanted = [settings.source(name) for name in only] or list(settings.sources)
    store = Store(settings.home)
    with store.locked():
        manifests: list[ManifestReport] = []
        failures: list[SourceError] = []
        for source in list(wanted):
            try:
                report = update_manifest(
                    store,
                    source,
                    max_shrink=settings.max_shrink,
                    allow_shrink=allow_shrink,
                    rehash=rehash,
                    progress=progress,
                    stop=stop,
                )
            except SourceError as error:
                failures.append(error)
                wanted.remove(source)
            else:
                manifests.append(report)
        if failures and not store.manifests():
            raise _joined(failures)
        description = describe_encoder(settings)
        current = current_or_none(store)
        if current is not None and current.parent.name != description.space.key:
            # The images of a source that cannot be read now would be lost from the new build.
            failures += [_needed(source) for source in settings.sources if not source.path.is_dir()]
            if failures:
                raise _joined(failures)
            wanted = list(settings.sources)
        load = functools.cache(
            functools.partial(load_settings_encoder, settings, description.space)
        )
        elsewhere = embedding_elsewhere(settings, description)
        embeddings = [
            update_embeddings(
                store,
                source,
                description,
                load,
                limits=Limits.of(settings.images),
                workers=settings.workers,
                retry_quarantined=retry_quarantined,
                progress=progress,
                stop=stop,
                elsewhere=elsewhere,
            )
            for source in wanted
        ]
        build = update_index(settings, description.space, load, progress=progress)
        drawn = update_map(settings, build.build, progress=progress)
    return IndexReport(tuple(manifests), tuple(embeddings), build, drawn, tuple(failures))


def _joined(errors: Sequence[SourceError]) -> SourceError:
    return SourceError("\n".join(dict.fromkeys(map(str, errors))))


def _needed(source: Source) -> SourceError:
    return SourceError(
        f'source "{source.name}": {source.path} is needed for the change of model, which embeds '
        "every image again. Until then the former index goes on answering"
    )


def update_index(
    settings: Settings,
    space: VectorSpace,
    load: Callable[[], Encoder],
    *,
    progress: Progress | None = None,
) -> BuildReport:
    """Build the index of all sources and publish it if it passes its checks.

    The current build stays where people hold it, and where it is of another model as long as that
    of `space` has not embedded the sources: otherwise their images could not be found meanwhile.
    The caller holds the store's lock.

    Raises:
        BuildError: There is nothing to index.
        RefusedBuildError: A check failed; the current build goes on answering.
        StoreError: A table is damaged or the build cannot be written.
    """
    store = Store(settings.home)
    coverage = read_coverage(store, space, settings.source_names)
    current = current_or_none(store)
    if current is not None and (kept := _reason_to_keep(store, current, space, coverage)):
        try:
            return BuildReport(current, read_info(current), published=False, kept=kept)
        except BuildError:
            # A damaged one is not worth keeping.
            store.release()
    return build_index(
        store,
        space,
        settings.source_names,
        recall=settings.index.recall,
        codes=settings.index.codes,
        encode_texts=lambda texts: load().encode_texts(texts),
        accept=lambda build: check_build(build, coverage, settings.index.recall),
        progress=progress,
    )


def _reason_to_keep(store: Store, current: Path, space: VectorSpace, coverage: Coverage) -> str:
    if store.held_file.exists():
        return "`retrieval use` holds it; `retrieval use --latest` lets new builds take over again"
    if current.parent.name == space.key:
        return ""
    pending = {name: count for name, count in coverage.pending.items() if count}
    if sum(pending.values()) <= MAY_BE_PENDING * coverage.images:
        return ""
    todo = ", ".join(f"{count:,} of {name}" for name, count in pending.items())
    return f"before {space.model} can take over, it has images to embed: {todo}"


def use_build(settings: Settings, name: str) -> Build:
    """Make the build called `name` the current one, and hold it until `Store.release`.

    Raises:
        BuildError: There is none of that name, or it is damaged.
        StoreError: Another run is writing, or the file system refused.
    """
    store = Store(settings.home)
    with store.locked():
        builds = {build.name: build for build in store.all_builds()}
        if name not in builds:
            known = "\n".join(sorted(builds)) or "none yet"
            raise BuildError(f'there is no build "{name}"; builds:\n{known}')
        build = Build.open(builds[name], rehash=True)
        store.hold(build.path)
    return build


def update_map(settings: Settings, build: Path, *, progress: Progress | None = None) -> MapReport:
    """Draw the map of a build unless it is there; the caller holds the store's lock.

    Args:
        settings: Say where the sources are.
        build: Directory of the build.
        progress: Told of the steps.

    Raises:
        BuildError: The build is damaged.
        StoreError: The map cannot be written.
    """
    progress = progress or Quiet()
    store = Store(settings.home)
    directory = store.map(build.name)
    if directory.exists():
        try:
            return MapReport(directory, read_map_info(directory))
        except MapError as error:
            progress.note(f"drawing the map again: {error}")
            discard(directory)
    try:
        latent = make_map(
            Build.open(build),
            previous=previous_coordinates(store, build.name),
            progress=progress,
        )
    except MapError as error:
        return MapReport(directory, None, str(error))
    with new_directory(directory) as temporary:
        save_map(latent, temporary)
        limits = Limits.of(settings.images)
        write_views(drawing(latent, settings), temporary, limits, progress)
    for former in orphaned_maps(store, store.all_builds()):
        discard(former)
    return MapReport(directory, latent.info)


def embedding_elsewhere(settings: Settings, description: Description) -> Elsewhere | None:
    """Return how to embed on the Ray cluster of the settings; None to embed in this process."""
    if settings.ray is None:
        return None
    from retrieval_pipeline.ingest.ray_backend import embedded_by_ray

    return functools.partial(
        embedded_by_ray,
        description=description,
        load=functools.partial(load_settings_encoder, settings, description.space),
        limits=Limits.of(settings.images),
        settings=settings.ray,
    )


def describe_encoder(settings: Settings) -> Description:
    """Tell what the encoder of the settings makes, without loading it."""
    return describe(settings.model, revision=settings.revision, precision=settings.precision)


def load_settings_encoder(settings: Settings, space: VectorSpace) -> Encoder:
    """Load the encoder of the settings as it was described, whatever the hub has by now.

    Args:
        settings: Say which model, and on which device.
        space: Of what `describe_encoder` told before.

    Raises:
        EncoderError: The model or the device cannot be had.
    """
    return load_encoder(
        settings.model,
        revision=space.revision,
        device=settings.device,
        precision=settings.precision,
    )
