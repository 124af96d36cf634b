"""The whole flow in one call, for the command line and scripts; Dagster runs the same steps."""

import functools
import threading
from collections.abc import Sequence
from dataclasses import dataclass

from retrieval_pipeline.config import Settings
from retrieval_pipeline.crawl import ManifestReport, update_manifest
from retrieval_pipeline.embed import EmbedReport, update_embeddings
from retrieval_pipeline.encoders import Description, Encoder, describe, load_encoder
from retrieval_pipeline.errors import SettingsError, SourceError
from retrieval_pipeline.images import Limits
from retrieval_pipeline.index import BuildReport, build_index
from retrieval_pipeline.progress import Progress
from retrieval_pipeline.store import Store


@dataclass(frozen=True)
class IndexReport:
    """What one run did; `failures` are the sources that could not be brought up to date."""

    manifests: tuple[ManifestReport, ...]
    embeddings: tuple[EmbedReport, ...]
    build: BuildReport
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
    """Bring the tables of the sources (`only` these, if given) and the index up to date.

    A source that fails keeps its former tables; the others go on. After a change of model every
    source is embedded, since the new build must hold them all.

    Raises:
        SettingsError: There is no source, or none of that name.
        StoreError: Another run is writing, a table is damaged or the disk is full.
        EncoderError: The model cannot be had.
        BuildError: There is nothing to index.
        Stopped: `stop` was set.
    """
    if not settings.sources:
        raise SettingsError("there are no sources in the settings: add a [[sources]] table")
    wanted = [settings.source(name) for name in only] or list(settings.sources)
    store = Store(settings.home)
    with store.locked():
        manifests: list[ManifestReport] = []
        failures: list[SourceError] = []
        for source in wanted:
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
            else:
                manifests.append(report)
        if failures and not any(store.manifest(source.name).exists() for source in wanted):
            raise SourceError("\n".join(map(str, failures)))
        description = describe_encoder(settings)
        current = store.current_build()
        if current is not None and current.parent.name != description.space.key:
            wanted = list(settings.sources)
        load = functools.cache(functools.partial(load_settings_encoder, settings))
        embeddings = [
            update_embeddings(
                store,
                source,
                description,
                load,
                limits=Limits.of(settings.images),
                retry_quarantined=retry_quarantined,
                progress=progress,
                stop=stop,
            )
            for source in wanted
        ]
        build = build_index(
            store,
            description.space,
            settings.source_names,
            recall=settings.index.recall,
            encode_texts=lambda texts: load().encode_texts(texts),
            progress=progress,
        )
    return IndexReport(tuple(manifests), tuple(embeddings), build, tuple(failures))


def describe_encoder(settings: Settings) -> Description:
    """Tell what the encoder of the settings makes, without loading it."""
    return describe(settings.model, revision=settings.revision, precision=settings.precision)


def load_settings_encoder(settings: Settings) -> Encoder:
    """Load the encoder of the settings."""
    return load_encoder(
        settings.model,
        revision=settings.revision,
        device=settings.device,
        precision=settings.precision,
    )
