"""Publication to Milvus: incremental, and blue/green.

A vector space has two collections, blue and green. The one that does not answer is brought up to
date and checked; then the alias moves to it. Until that moment the other one answers as before, and
afterwards it is what people can go back to.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from retrieval_pipeline.config.settings import IndexSettings
from retrieval_pipeline.errors import EngineError
from retrieval_pipeline.index.build_info import Check, vocabulary_digest
from retrieval_pipeline.index.builder import RefusedBuildError, passed
from retrieval_pipeline.index.milvus.client import Client
from retrieval_pipeline.index.milvus.collections import (
    answer_from,
    count,
    ledgers,
    load,
)
from retrieval_pipeline.index.milvus.filling import COLOURS, AcceptRows, Filling
from retrieval_pipeline.index.milvus.ledger import Ledger
from retrieval_pipeline.index.milvus.schema import (
    PublishedInfo,
    collection_name,
)
from retrieval_pipeline.index.milvus.tables import TableRows, read_rows
from retrieval_pipeline.progress import Progress, Quiet
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import EncodeTexts, VectorSpace
from retrieval_pipeline.views import Views

# The checks that fail if a collection is not what its ledger says.
OF_LEDGER = ("engine_is_complete", "vectors_agree")


@dataclass(frozen=True)
class PublicationReport:
    """The publication that answers after an update.

    Attributes:
        collection: The collection that answers.
        info: What is known of it.
        published: Whether this update made it answer.
        kept: Why it stayed although newer images are waiting; "" if none are.
    """

    collection: str
    info: PublishedInfo
    published: bool
    kept: str = ""

    @property
    def build(self) -> Path:
        """The name of the publication as a path of one part: that of its map begins with it."""
        return Path(self.info.build)


# Checks a collection, by its name, before it takes over from one of another model.
AcceptCollection = Callable[[str], Sequence[Check]]


def publish(
    store: Store,
    client: Client,
    space: VectorSpace,
    sources: Sequence[str],
    index: IndexSettings,
    *,
    views: Mapping[str, Views] | None = None,
    encode_texts: EncodeTexts | None = None,
    accept: AcceptRows | None = None,
    accept_change: AcceptCollection | None = None,
    move: bool = True,
    progress: Progress | None = None,
) -> PublicationReport:
    """Bring a collection up to date with the tables of `sources`, check it and let it answer.

    The caller holds the store's lock. It can be killed at any moment: the next call goes on.

    Args:
        store: Where the tables and the ledgers are.
        client: The engine.
        space: The vector space whose embeddings to publish.
        sources: The names of the sources whose manifests to publish.
        index: The settings of the engine.
        views: Which of the stored views of its pictures each source has; default "whole".
        encode_texts: Encodes the vocabulary if no collection of this space has it yet.
        accept: Checks the tables, beside the checks of the engine itself.
        accept_change: Checks a collection by its name, new or not, before it takes over.
        move: False leaves the alias where it is.
        progress: Told about stages and rows.

    Raises:
        BuildError: There is nothing to index.
        EngineError: The engine is away, slow, full or refuses; a collection of the name is not of
            this home.
        RefusedBuildError: A check failed; what answered before answers on.
        StoreError: A table is damaged or a ledger cannot be written.
    """
    progress = progress or Quiet()
    index = as_engine_takes_it(client, index)
    answering = client.collection_of(index.collection)
    earlier = ledgers(store, index.collection)
    if answering is not None and answering not in [each.directory.name for each in earlier]:
        raise EngineError(
            f'{client.where}: "{index.collection}" is answered by "{answering}", which was not '
            "made from this home: give index.collection another name, or drop that alias"
        )
    name = _target(store, index, space, answering)
    known_blocks = [block for ledger in earlier for block in ledger.blocks()]
    rows = read_rows(store, space, sources, views or {}, index.vectors, known_blocks)
    inputs = inputs_of(rows, index)
    if answering is not None:
        known = Ledger(store.engine(answering)).published()
        if known is not None and known.inputs == inputs:
            load(client, answering, known.replicas)
            if count(client, answering) == len(rows):
                return PublicationReport(answering, known, published=False)
    filling = Filling(store, client, index, rows, inputs, name, answering, progress)
    was_finished = filling.ledger.published() is not None
    try:
        info = filling.as_before() or filling.fill(encode_texts, accept)
    except RefusedBuildError as refused:
        failed = [check for check in refused.checks if not check.passed]
        # Once: a collection whose last run was refused, too, is not filled anew night after night.
        if not was_finished or not all(check.name in OF_LEDGER for check in failed):
            raise
        # Somebody has written into the collection, or it was set back to an older state.
        found = "; ".join(check.found for check in failed)
        progress.note(f"{name} is not as its ledger says ({found}): filling it anew")
        filling.drop()
        info = filling.fill(encode_texts, accept)
    if not move:
        return PublicationReport(name, info, published=False)
    if accept_change is not None:
        info = info.model_copy(update={"checks": passed((*info.checks, *accept_change(name)))})
        filling.ledger.write_published(info, rows.inputs.blocks)
    answer_from(client, index.collection, name, info.replicas)
    return PublicationReport(name, info, published=True)


def as_engine_takes_it(client: Client, index: IndexSettings) -> IndexSettings:
    """Return the settings with the kind of index that the engine is asked for.

    What Milvus Lite takes for AUTOINDEX finds less and less as rows are deleted (0.96 of the ten
    nearest after 1 % of 5,000); comparing all of the rows that it is good for takes milliseconds.
    """
    is_auto = index.index_type == "AUTOINDEX" and client.is_lite
    return index.model_copy(update={"index_type": "FLAT"}) if is_auto else index


def inputs_of(rows: TableRows, index: IndexSettings) -> str:
    """Return a hash of rows and of every setting that decides what is published of them."""
    return rows.digest(
        *(rows.space.key, index.vectors, index.index_type, index.shards, index.replicas),
        vocabulary_digest(),
    )


def _target(store: Store, index: IndexSettings, space: VectorSpace, answering: str | None) -> str:
    """Return the collection to bring up to date: of the two, that which does not answer.

    If neither does, the one that was published last, since it needs least.
    """
    names = [collection_name(index.collection, space, colour) for colour in COLOURS]
    if answering in names:
        return names[1 - names.index(answering)]
    published = {name: Ledger(store.engine(name)).published() for name in names}
    return max(names, key=lambda name: ((each := published[name]) and each.build) or "")
