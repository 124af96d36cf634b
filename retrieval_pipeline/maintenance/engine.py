"""Looking after an engine: is it what the tables say, and which of its collections can go."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import BuildError, StoreError, UnreadableError
from retrieval_pipeline.index.blocks import NewBlockError, files_of
from retrieval_pipeline.index.hashed_files import check_files
from retrieval_pipeline.index.knn import evenly_spaced
from retrieval_pipeline.index.milvus.checks import ROUNDING
from retrieval_pipeline.index.milvus.client import Client, connect
from retrieval_pipeline.index.milvus.collections import (
    count,
    drop,
    ledgers,
    load,
)
from retrieval_pipeline.index.milvus.ledger import Ledger
from retrieval_pipeline.index.milvus.publication import (
    as_engine_takes_it,
    inputs_of,
)
from retrieval_pipeline.index.milvus.schema import KEY, VECTOR
from retrieval_pipeline.index.milvus.tables import TableRows, read_rows
from retrieval_pipeline.maintenance.gc import Freed
from retrieval_pipeline.maintenance.verify import Finding
from retrieval_pipeline.pipeline.engine import answering
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Numbers, VectorSpace

# Rows of the engine that are compared in all fields with what the tables say.
COMPARED_ROWS = 1_000


def verify_engine(settings: Settings) -> Iterator[Finding]:
    """Yield findings about the collection that answers: is it what was published from the tables.

    It is compared by the number of its rows, and by all fields of a sample of COMPARED_ROWS.

    Raises:
        EngineError: The engine cannot be asked.
    """
    store = Store(settings.home)
    for ledger in ledgers(store, settings.index.collection):
        try:
            for read in (ledger.made, ledger.published, ledger.blocks, ledger.read):
                read()
        except StoreError as error:
            is_unreadable = isinstance(error, UnreadableError)
            yield Finding(ledger.directory, str(error), unreadable=is_unreadable)
            return
    try:
        found = answering(settings)
        if found is None:
            return
        where = store.engine(found.collection)
        blocks = Ledger(where).blocks()
        check_files(store.blocks(found.info.space), files_of(blocks))
        changed = f"{found.collection}: the tables have changed since: run `retrieval index`"
        rows = read_rows(
            store,
            found.info.space,
            settings.source_names,
            {source.name: source.views for source in settings.sources},
            settings.index.vectors,
            blocks,
            # A run may be writing: its lock is not held here.
            write=False,
        )
    except NewBlockError:
        yield Finding(where, None, changed)
        return
    except (StoreError, BuildError) as error:
        yield Finding(store.home / "engine", str(error))
        return
    with connect(settings) as client:
        load(client, found.collection, found.info.replicas)
        there, published = count(client, found.collection), found.info.items + found.info.views
        if there != published:
            yield Finding(
                where,
                f"{found.collection}: the engine holds {there:,} rows, of {published:,} that were "
                "published: run `retrieval index`, which fills the other collection",
            )
            return
        if inputs_of(rows, as_engine_takes_it(client, settings.index)) != found.info.inputs:
            yield Finding(where, None, changed)
            return
        chosen = evenly_spaced(len(rows), COMPARED_ROWS)
        if other := _differing(client, found.collection, rows, chosen):
            yield Finding(
                where,
                f"{found.collection}: {len(other):,} of {len(chosen):,} rows are not as the tables "
                f"say, the first is {other[0]}: `retrieval use` another publication, or drop "
                "the collection and run `retrieval index`",
            )
            return
    yield Finding(where, None)


def _differing(
    client: Client,
    collection: str,
    rows: TableRows,
    chosen: Numbers,
) -> list[str]:
    """Return the keys of those of some rows that differ in the engine."""
    differing = []
    expected = {row[KEY]: row for row in rows.read(chosen)}
    there = {
        row[KEY]: dict(row)
        for row in client.query(
            collection,
            ids=[*expected],
            output_fields=["*"],
            consistency_level="Strong",
        )
    }
    for key, row in expected.items():
        other = there.get(key)
        if other is None or not _same(row, other):
            differing.append(str(key))
    return differing


def _same(row: dict[str, Any], other: dict[str, Any]) -> bool:
    """Tell whether a row of the engine is what the tables say."""
    vector, stored = (np.asarray(each[VECTOR], np.float32) for each in (row, other))
    if vector.shape != stored.shape or not np.allclose(vector, stored, atol=ROUNDING):
        return False
    return all(
        row[name] == (list(found) if isinstance(row[name], list) else found)
        for name, found in other.items()
        if name != VECTOR and name in row
    )


def collect_engine(
    settings: Settings,
    *,
    space: VectorSpace,
    other_models: bool = False,
    dry_run: bool = False,
    wait: bool = False,
) -> list[Freed]:
    """Drop collections that nothing names, and return what was dropped.

    Only what this home's ledgers say that it made is ever dropped, and nothing that an alias names.
    In each vector space the newest publication that does not answer stays, to go back to; so does
    what an unfinished run has sent in that of the settings.

    Args:
        settings: Of the home and the engine. The store's lock is taken.
        space: The vector space of the settings.
        other_models: Drop also the collections of all other vector spaces that do not answer.
        dry_run: Drop nothing; return what would be dropped.
        wait: Wait for a run that is writing instead of failing.

    Raises:
        EngineError: The engine cannot be asked.
        StoreError: Another run is writing, or a ledger is damaged.
    """
    store = Store(settings.home)
    freed = []
    with store.locked(wait=wait), connect(settings) as client:
        for ledger, why in _unneeded(store, client, settings, space, other_models):
            freed.append(Freed(ledger.directory, _size(ledger.directory), why))
            if not dry_run:
                drop(client, ledger, ledger.directory.name)
                if not any(ledger.directory.iterdir()):
                    ledger.directory.rmdir()
    return freed


def _unneeded(
    store: Store, client: Client, settings: Settings, space: VectorSpace, other_models: bool
) -> Iterator[tuple[Ledger, str]]:
    kept: set[str] = set()
    known = [(each, each.published()) for each in ledgers(store, settings.index.collection)]
    # The newest first; those that were never finished come last.
    known.sort(key=lambda each: "" if each[1] is None else each[1].build, reverse=True)
    for ledger, info in known:
        name = ledger.directory.name
        of_settings = name.split("_")[-2] == space.key.rpartition("@")[2]
        if not client.has_collection(name):
            yield ledger, "the engine has no such collection any more"
        elif client.list_aliases(name)["aliases"]:
            continue
        elif other_models and not of_settings:
            yield ledger, "of a model that the settings do not name"
        elif info is None and not of_settings:
            yield ledger, "a run did not finish it"
        elif info is not None and info.space.key in kept and not of_settings:
            yield ledger, "replaced by a newer publication"
        elif info is not None:
            kept.add(info.space.key)


def _size(directory: Path) -> int:
    return sum(file.lstat().st_size for file in directory.iterdir() if file.is_file())
