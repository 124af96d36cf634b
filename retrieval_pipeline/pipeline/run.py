"""All steps of indexing in one call, for the command line and scripts; Dagster runs the same."""

import contextlib
import functools
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from retrieval_pipeline.config.settings import Settings, Source
from retrieval_pipeline.encoders.base import Description, Encoder
from retrieval_pipeline.encoders.from_settings import describe_encoder, load_settings_encoder
from retrieval_pipeline.errors import SettingsError, SourceError
from retrieval_pipeline.facts.grouped_files import read_grouped_files
from retrieval_pipeline.images.decode_pool import DecodePool
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.index.build import current_or_none
from retrieval_pipeline.index.builder import BuildReport
from retrieval_pipeline.index.quantization import require_codes
from retrieval_pipeline.ingest.crawl import ManifestReport, update_manifest
from retrieval_pipeline.ingest.embed import (
    EmbedOptions,
    EmbedReport,
    embedded_ids,
    update_embeddings,
)
from retrieval_pipeline.ingest.facts import FactsReport, update_facts
from retrieval_pipeline.ingest.int8_check import check_int8
from retrieval_pipeline.ingest.missing_views import ViewTables
from retrieval_pipeline.ingest.small_parts import merge_small_parts
from retrieval_pipeline.pipeline.publish import MapReport, update_index, update_map
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.reading import is_there
from retrieval_pipeline.storage.shared_progress import SharedProgress
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace

if TYPE_CHECKING:
    from retrieval_pipeline.index.milvus.publication import PublicationReport
    from retrieval_pipeline.search.labelling import LabelsReport


@dataclass(frozen=True)
class IndexReport:
    """What one run did.

    Attributes:
        manifests: A report for each source that could be listed.
        embeddings: A report for each of the same sources.
        facts: A report for each of the same sources.
        build: The index that answers now.
        map: The map of that index; None before it is drawn.
        failures: Why the other sources could not be brought up to date, by their names.
        labels: Which pictures have which of a person's words; None if nobody has asked for any.
    """

    manifests: tuple[ManifestReport, ...]
    embeddings: tuple[EmbedReport, ...]
    facts: tuple[FactsReport, ...]
    build: "BuildReport | PublicationReport"
    map: MapReport | None
    failures: Mapping[str, SourceError]
    labels: "LabelsReport | None" = None

    @property
    def changed(self) -> bool:
        """Whether a table was written, an image was embedded or failed, or the index is new."""
        return (
            self.build.published
            or any(each.published for each in self.manifests)
            or any(each.embedded or each.newly_quarantined for each in self.embeddings)
        )


@dataclass(frozen=True)
class SourcesReport:
    """What was done to the tables of the sources, and what an index needs after it.

    Attributes:
        manifests: A report for each source that could be listed.
        embeddings: A report for each of the same sources.
        facts: A report for each of the same sources.
        failures: Why the other sources could not be brought up to date, by their names.
        description: The encoder of the settings.
        load: Loads that encoder, once however often it is called.
    """

    manifests: tuple[ManifestReport, ...]
    embeddings: tuple[EmbedReport, ...]
    facts: tuple[FactsReport, ...]
    failures: Mapping[str, SourceError]
    description: Description
    load: Callable[[], Encoder]


def index_sources(
    settings: Settings,
    *,
    only: Sequence[str] = (),
    allow_shrink: bool = False,
    rehash: bool = False,
    retry_quarantined: bool = False,
    published: Callable[[IndexReport], None] | None = None,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> IndexReport:
    """Bring the tables of the sources, the index and the map up to date.

    A source that fails keeps its former tables and its images in the index; the others go on. After
    a change of model every source is embedded, since the new build must hold them all.

    Args:
        settings: Sources, model and home.
        only: Names of the sources to bring up to date; empty means all.
        allow_shrink: Accept that more than `max_shrink` of a source's files are gone.
        rehash: Read every file again, even if its size and time are unchanged.
        retry_quarantined: Try again the images that could not be used.
        published: Called when the index answers, before its map is drawn, with the report so far.
        progress: Told of the steps.
        stop: Once it is set, the run finishes the part in hand and raises Stopped.

    Raises:
        SettingsError: There is no source, or none of that name.
        SourceError: No source could ever be read, or a change of model needs one that cannot be
            read now.
        StoreError: Another run is writing, a table is damaged or the disk is full.
        EncoderError: The model cannot be had.
        EvaluationError: The settings name labelled queries, by which a change of model is judged,
            and these cannot be read or have no answer in the new index.
        BuildError: There is nothing to index, or `index.codes` needs faiss, which is not installed.
        RefusedBuildError: A check failed; the former index goes on answering.
        Stopped: `stop` was set.
    """
    store = Store(settings.home)
    progress = SharedProgress(store, progress or Quiet())
    with store.locked():
        tables = update_sources(
            settings,
            only=only,
            allow_shrink=allow_shrink,
            rehash=rehash,
            retry_quarantined=retry_quarantined,
            progress=progress,
            stop=stop,
        )
        build = update_index(
            settings, tables.description.space, tables.load, progress=progress, stop=stop
        )
        labels = update_labels(settings, progress=progress)
        report = IndexReport(
            tables.manifests, tables.embeddings, tables.facts, build, None, tables.failures, labels
        )
        if published is not None:
            published(report)
        merge_small_parts(store)
        drawn = update_map(settings, build.build, progress=progress, stop=stop)
    return replace(report, map=drawn)


def update_labels(settings: Settings, *, progress: Progress | None = None) -> "LabelsReport | None":
    """Label the current index, as `labelling.refresh_labels` does, if anybody has asked for words.

    The caller holds the store's lock. Raises what that function raises.
    """
    if not settings.labels.words and not is_there(Store(settings.home).labels):
        return None
    from retrieval_pipeline.search.labelling import refresh_labels  # it loads all of the search

    return refresh_labels(settings, progress=progress)


def index_aside(
    settings: Settings,
    *,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> "BuildReport | PublicationReport":
    """Embed all pictures with the model of the settings, and build an index without publishing it.

    The current index goes on answering; what is embedded is there when the settings change to this
    model. Arguments and errors are those of `index_sources`; also:

    Raises:
        SourceError: A source could not be brought up to date.
    """
    # Nothing takes over, so that nothing has to answer as well as the current index.
    settings = settings.model_copy(update={"evaluation": None})
    store = Store(settings.home)
    progress = SharedProgress(store, progress or Quiet())
    with store.locked():
        tables = update_sources(settings, progress=progress, stop=stop)
        if tables.failures:
            raise _joined(tables.failures.values())
        space = tables.description.space
        return update_index(settings, space, tables.load, publish=False, progress=progress)


@dataclass(frozen=True)
class Kept:
    """What a process that indexes again and again keeps in between.

    Attributes:
        load: Loads the encoder of the settings, once.
        pool: Starts the decode workers, once.
    """

    load: Callable[[], Encoder]
    pool: Callable[[], DecodePool]


@contextlib.contextmanager
def keeping(settings: Settings) -> Iterator[Kept]:
    """Keep the encoder and the decode workers of the settings until the context ends.

    Neither is loaded or started before it is needed; loading raises EncoderError.
    """
    with contextlib.ExitStack() as stack:

        def start() -> DecodePool:
            transform, limits = describe_encoder(settings).transform, Limits.of(settings.images)
            return stack.enter_context(DecodePool(transform, limits, settings.workers))

        def load() -> Encoder:
            return load_settings_encoder(settings, describe_encoder(settings).space)

        yield Kept(functools.cache(load), functools.cache(start))


def update_sources(
    settings: Settings,
    *,
    only: Sequence[str] = (),
    paths: Mapping[str, Collection[str]] | None = None,
    kept: Kept | None = None,
    allow_shrink: bool = False,
    rehash: bool = False,
    retry_quarantined: bool = False,
    progress: Progress | None = None,
    stop: threading.Event | None = None,
) -> SourcesReport:
    """Bring the tables of the sources up to date: all that `index_sources` does before the index.

    The caller holds the store's lock. Arguments and errors are those of `index_sources`; also:

    Args:
        paths: Name of a source -> what has changed there, as `crawl.update_manifest` takes it. Only
            that is looked at; sources that are not named count as unchanged, and so do all if none
            of their files has changed.
        kept: The encoder and the decode workers of earlier runs; None loads and starts its own.
    """
    if not settings.sources:
        raise SettingsError("there are no sources in the settings: add a [[sources]] table")
    if settings.index.codes is True:
        require_codes()
    wanted = [settings.source(name) for name in paths or only] or list(settings.sources)
    store = Store(settings.home)
    manifests: list[ManifestReport] = []
    failures: dict[str, SourceError] = {}
    for source in list(wanted):
        try:
            report = update_manifest(
                store,
                source,
                only=None if paths is None else paths[source.name],
                max_shrink=settings.max_shrink,
                allow_shrink=allow_shrink,
                rehash=rehash,
                max_bytes=Limits.of(settings.images).bytes,
                progress=progress,
                stop=stop,
            )
        except SourceError as error:
            failures[source.name] = error
            wanted.remove(source)
        else:
            manifests.append(report)
    if failures and not store.manifests():
        raise _joined(failures.values())
    check_int8(settings, wanted, progress=progress, stop=stop)
    description = describe_encoder(settings)
    if _answers_with_another(settings, description.space):
        # The images of a source that cannot be read now would be lost from the new build.
        for source in settings.sources:
            if not source.path.is_dir():
                failures.setdefault(source.name, _needed(source))
        if failures:
            raise _joined(failures.values())
        wanted = list(settings.sources)
        if settings.evaluation is not None and settings.evaluation.file is not None:
            from retrieval_pipeline.evaluation.labels import read_labelled

            # What is wrong with it is better told now than when all is embedded.
            read_labelled(settings.evaluation.file)
    if paths is not None and not any("" in each for each in paths.values()):
        wanted = wanted if any(each.published for each in manifests) else []
    options = embed_options(settings, description, retry_quarantined=retry_quarantined)
    with contextlib.ExitStack() as stack:
        # Decode workers are started once, not for each source.
        kept = kept or stack.enter_context(keeping(settings))
        load, options = kept.load, replace(options, pool=kept.pool)
        embedded, tables = embedded_ids(store, description.space), ViewTables(store, description)
        embeddings = [
            update_embeddings(
                store,
                source,
                description,
                load,
                options,
                embedded=embedded,
                tables=tables,
                progress=progress,
                stop=stop,
            )
            for source in wanted
        ]
        facts = [
            update_facts(
                store,
                source,
                options.limits,
                options.workers,
                pool=kept.pool,
                progress=progress,
                stop=stop,
            )
            for source in wanted
        ]
        for number, source in enumerate(wanted):
            first = embeddings[number]
            # A date, or a picture that cannot be used, has parted files that seemed one photograph.
            if (
                len(read_grouped_files(store, description.space, source.name).companions.pictures)
                < first.companions
            ):
                again = update_embeddings(
                    store,
                    source,
                    description,
                    load,
                    replace(options, retry_quarantined=False),
                    embedded=embedded,
                    progress=progress,
                    stop=stop,
                )
                embeddings[number] = first.followed_by(again)
    return SourcesReport(
        tuple(manifests), tuple(embeddings), tuple(facts), failures, description, load
    )


def _answers_with_another(settings: Settings, space: VectorSpace) -> bool:
    """Return whether what answers now is of another vector space."""
    if settings.has_engine:
        from retrieval_pipeline.pipeline.engine import answering

        found = answering(settings)
        return found is not None and found.info.space.key != space.key
    current = current_or_none(Store(settings.home))
    return current is not None and current.parent.name != space.key


def _joined(errors: Iterable[SourceError]) -> SourceError:
    return SourceError(*dict.fromkeys(map(str, errors)))


def _needed(source: Source) -> SourceError:
    return SourceError(
        f'source "{source.name}": {source.path} is needed for the change of model, which embeds '
        "every image again. Until then the former index goes on answering"
    )


def embed_options(
    settings: Settings, description: Description, *, retry_quarantined: bool = False
) -> EmbedOptions:
    """Return the options of embedding; with `ray` in the settings, it runs on that cluster."""
    limits = Limits.of(settings.images)
    backend = None
    if settings.ray is not None:
        from retrieval_pipeline.ingest.ray_backend import embedded_by_ray

        backend = functools.partial(
            embedded_by_ray,
            description=description,
            load=functools.partial(load_settings_encoder, settings, description.space),
            limits=limits,
            settings=settings.ray,
        )
    return EmbedOptions(limits, settings.workers, retry_quarantined, backend)
