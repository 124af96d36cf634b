"""Publication to an engine, as the settings want it, and the return to an earlier one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa

from retrieval_pipeline.config.settings import EvaluationSettings, Settings
from retrieval_pipeline.encoders.base import Encoder
from retrieval_pipeline.errors import BuildError
from retrieval_pipeline.index.blocks import open_blocks
from retrieval_pipeline.index.build_info import Check
from retrieval_pipeline.index.milvus.client import Client, connect
from retrieval_pipeline.index.milvus.collections import (
    answer_from,
    count,
    ledgers,
    load,
    read_info,
    read_vocabulary,
)
from retrieval_pipeline.index.milvus.ledger import Ledger
from retrieval_pipeline.index.milvus.publication import (
    AcceptCollection,
    PublicationReport,
    publish,
)
from retrieval_pipeline.index.milvus.published import PublishedCorpus
from retrieval_pipeline.index.milvus.schema import SCHEMA_VERSION, PublishedInfo
from retrieval_pipeline.pipeline.validation import check_counts, read_coverage, reason_to_keep
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace


@dataclass(frozen=True)
class Publication:
    """A collection of the engine that can answer.

    Attributes:
        collection: Its name.
        info: What is known of it.
        answers: Whether the alias names it.
    """

    collection: str
    info: PublishedInfo
    answers: bool


def update_engine(
    settings: Settings,
    space: VectorSpace,
    load: Callable[[], Encoder],
    *,
    publish_it: bool = True,
    progress: Progress | None = None,
) -> PublicationReport:
    """Publish the tables of all sources to the engine, as `publish.update_index` builds an index.

    Raises:
        BuildError: There is nothing to index.
        EncoderError: A model cannot be had.
        EngineError: The engine is away, slow, full or refuses.
        EvaluationError: The labelled queries by which a change of model is judged cannot be read,
            or have no answer in what is to be published.
        RefusedBuildError: A check failed; what answered before answers on.
        StoreError: A table is damaged or a ledger cannot be written.
    """
    progress = progress or Quiet()
    store = Store(settings.home)
    coverage = read_coverage(store, space, settings.source_names)
    with connect(settings) as client:
        current = _answering(store, client, settings) if publish_it else None
        accept_change = None
        if current is not None:
            is_other = current.info.space.key != space.key
            if kept := reason_to_keep(store, is_other, space, coverage):
                return PublicationReport(
                    current.collection, current.info, published=False, kept=kept
                )
            if is_other and settings.evaluation is not None:
                accept_change = _judged(
                    settings, settings.evaluation, client, current.collection, load, progress
                )
        return publish(
            store,
            client,
            space,
            settings.source_names,
            settings.index,
            views={source.name: source.views for source in settings.sources},
            encode_texts=lambda texts: load().encode_texts(texts),
            accept=lambda rows: [
                check_counts(rows.items, sum(rows.inputs.sources.values()), coverage)
            ],
            accept_change=accept_change,
            move=publish_it,
            progress=progress,
        )


def _judged(
    settings: Settings,
    labels: EvaluationSettings,
    client: Client,
    current: str,
    load: Callable[[], Encoder],
    progress: Progress,
) -> AcceptCollection:
    """Return what compares a collection of another model with the current one."""
    from retrieval_pipeline.pipeline.comparison import check_answers
    from retrieval_pipeline.search.milvus.index import MilvusIndex
    from retrieval_pipeline.search.searcher import Searcher

    def accept_change(collection: str) -> Sequence[Check]:
        return check_answers(
            labels,
            Searcher(settings, MilvusIndex(client, collection), load()),
            lambda: Searcher(settings, MilvusIndex(client, current)),
            progress=progress,
        )

    return accept_change


def _answering(store: Store, client: Client, settings: Settings) -> Publication | None:
    """Return the publication that answers; None if there is none.

    A home that did not publish it, such as that of a machine that only asks, has no ledger of it.
    """
    name = client.collection_of(settings.index.collection)
    if name is None:
        return None
    info = Ledger(store.engine(name)).published() or read_info(client, name)
    return None if info is None else Publication(name, info, answers=True)


def answering(settings: Settings) -> Publication | None:
    """Return the publication that answers; None before the first one.

    Raises:
        EngineError: The engine cannot be asked.
        StoreError: A ledger is damaged.
    """
    with connect(settings) as client:
        return _answering(Store(settings.home), client, settings)


def publications(settings: Settings) -> list[Publication]:
    """Return the collections of this home that can answer, the newest first.

    Raises:
        EngineError: The engine cannot be asked.
        StoreError: A ledger is damaged.
    """
    store = Store(settings.home)
    with connect(settings) as client:
        alias = client.collection_of(settings.index.collection)
        found = [
            Publication(ledger.directory.name, info, ledger.directory.name == alias)
            for ledger in ledgers(store, settings.index.collection)
            if (info := ledger.published()) is not None
            and client.has_collection(ledger.directory.name)
        ]
    return sorted(found, key=lambda each: each.info.build, reverse=True)


def use_publication(settings: Settings, build: str) -> Publication:
    """Let an earlier publication answer again, and hold it until `Store.release`.

    Args:
        settings: Of the home and the engine.
        build: The name of the publication, or its beginning.

    Raises:
        BuildError: There is no such publication, it is no longer what its ledger says, or another
            version of the program published it.
        EngineError: The engine cannot be asked.
        StoreError: Another run is writing, or the file system refused.
    """
    store = Store(settings.home)
    with store.locked():
        found = publications(settings)
        matching = [each for each in found if each.info.build.startswith(build)]
        if len(matching) != 1:
            known = [each.info.build for each in found] or ["none yet"]
            what = "is the beginning of several" if matching else "is none of the publications"
            raise BuildError(f'"{build}" {what}; there are:', *known)
        (wanted,) = matching
        with connect(settings) as client:
            _check_whole(store, client, wanted)
            store.hold_engine()
            answer_from(client, settings.index.collection, wanted.collection, wanted.info.replicas)
    return Publication(wanted.collection, wanted.info, answers=True)


def _check_whole(store: Store, client: Client, wanted: Publication) -> None:
    """Check that a collection is what was published, and not half of something newer.

    Raises:
        BuildError: It is not, or another version of the program published it.
    """
    if wanted.info.schema_version != SCHEMA_VERSION:
        raise BuildError(
            f"{wanted.info.build}: another version of this program published it, and this one "
            "cannot read it: run `retrieval index`"
        )
    load(client, wanted.collection, wanted.info.replicas)
    rows = wanted.info.items + wanted.info.views
    there = count(client, wanted.collection)
    if there != rows or Ledger(store.engine(wanted.collection)).is_unfinished:
        raise BuildError(
            f"{wanted.info.build}: a later run has begun to bring {wanted.collection} up to date, "
            f"which holds {there:,} rows now, not {rows:,}: run `retrieval index`"
        )


def published_facts(settings: Settings, published: Publication) -> pa.Table | None:
    """Return the facts of what was published, from the blocks under home; None if there are none.

    Raises:
        BuildError: A block is missing or damaged.
    """
    store = Store(settings.home)
    blocks = Ledger(store.engine(published.collection)).blocks()
    return open_blocks(store.blocks(published.info.space), blocks, set()).facts if blocks else None


def read_published(settings: Settings, build: str) -> PublishedCorpus:
    """Read what a publication was made of, to draw its map.

    Raises:
        BuildError: There is no such publication, or what is told of its items is damaged.
        EngineError: The engine cannot be asked.
        StoreError: A ledger is damaged.
    """
    found = [each for each in publications(settings) if each.info.build == build]
    if not found:
        raise BuildError(f'there is no publication "{build}": run `retrieval index`')
    collection, info = found[0].collection, found[0].info

    def vocabulary() -> Vectors | None:
        with connect(settings) as client:
            return read_vocabulary(client, collection, info)

    return PublishedCorpus(
        Store(settings.home), collection, info, settings.index.vectors, vocabulary
    )


def engine_facts(settings: Settings, info: PublishedInfo) -> Mapping[str, str | int | float]:
    """Return what people are told of an engine, by names for metadata."""
    return {
        "engine": settings.index.engine,
        "uri": settings.index.uri,
        "rows": info.items + info.views,
        "shards": info.shards,
        "replicas": info.replicas,
        "index_type": info.index_type,
        "recall_at_10": info.recall_at_10,
        "sent": info.sent,
        "deleted": info.deleted,
    }
