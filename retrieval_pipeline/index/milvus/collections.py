"""What is asked of one collection of the engine, and done with it as a whole."""

import time
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from pydantic import ValidationError

from retrieval_pipeline.errors import EngineError
from retrieval_pipeline.index.build_info import vocabulary_digest
from retrieval_pipeline.index.milvus.client import Client
from retrieval_pipeline.index.milvus.ledger import Ledger
from retrieval_pipeline.index.milvus.schema import KEY, VECTOR, PublishedInfo, about_name
from retrieval_pipeline.index.vocabulary import words
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace, check_vectors

# Seconds between two looks at what the engine has loaded or indexed, and how long that may stand
# still.
LOOK_SECONDS, STALL_SECONDS = 1.0, 600.0


def answer_from(client: Client, alias: str, collection: str, replicas: int) -> None:
    """Let a collection answer: move the alias to it, at one moment for all readers.

    Raises:
        EngineError: The engine cannot be asked, or refuses.
    """
    load(client, collection, replicas)
    if client.collection_of(alias) is None:
        client.create_alias(collection, alias)
    else:
        client.alter_alias(collection, alias)


def load(client: Client, collection: str, replicas: int) -> None:
    """Have the engine keep a collection and what is told of it in memory, ready to answer.

    `replicas` must be those that the collection was made for: an engine refuses to change them.
    What is told of it has one: who loads that need not know of replicas.

    Raises:
        EngineError: The engine cannot be asked, or does not get on.
    """
    for each, number in ((about_name(collection), 1), (collection, replicas)):
        client.load_collection(each, replica_number=number, _async=True)
        for state in until_still(partial(client.get_load_state, each)):
            if str(state["state"]) == "NotExist":
                raise EngineError(f"{client.where}: {each} is gone: run `retrieval index`")
            if str(state["state"]) == "Loaded":
                break


def until_still(look: Callable[[], Any]) -> Iterator[Any]:
    """Yield what `look` returns, again and again, as long as it changes now and then.

    Raises:
        EngineError: Nothing has changed for STALL_SECONDS.
    """
    last, since, pause = None, time.monotonic(), 0.02
    while True:
        found = look()
        yield found
        if str(found) != str(last):
            last, since = found, time.monotonic()
        elif time.monotonic() - since > STALL_SECONDS:
            raise EngineError(
                f"the engine does not get on: {found} for {STALL_SECONDS:.0f} s. Look into its log"
            )
        time.sleep(pause)
        pause = min(2 * pause, LOOK_SECONDS)


def ledgers(store: Store, prefix: str) -> list[Ledger]:
    """Return the ledgers of all collections that were made with a prefix."""
    return [
        Ledger(directory)
        for directory in store.engine_collections()
        if directory.name.rsplit("_", 2)[0] == prefix
    ]


def newest(store: Store, prefix: str, space: VectorSpace) -> str | None:
    """Return the collection of a vector space that was published last; None if there is none.

    Raises:
        StoreError: A ledger is damaged.
    """
    found = [
        (info.build, ledger.directory.name)
        for ledger in ledgers(store, prefix)
        if (info := ledger.published()) is not None and info.space.key == space.key
    ]
    return max(found)[1] if found else None


def drop(client: Client, ledger: Ledger, collection: str) -> None:
    """Remove a collection, and what is told of it, from the engine, and forget it.

    Raises:
        EngineError: The engine cannot be asked, or refuses: an alias may name the collection.
        StoreError: The file system refused.
    """
    # The ledger last: without it, nobody would know that the rest is ours.
    for name in (collection, about_name(collection)):
        if client.has_collection(name):
            client.drop_collection(name)
    ledger.forget()


def read_vocabulary(client: Client, collection: str, info: PublishedInfo) -> Vectors | None:
    """Return the vectors of `vocabulary.words()` that a publication has; None if it has none.

    Raises:
        EngineError: The engine cannot be asked.
    """
    name = about_name(collection)
    if info.vocabulary != vocabulary_digest() or not client.has_collection(name):
        return None
    client.load_collection(name)
    found = client.query(
        name, filter=f'{KEY} like "word/%"', output_fields=[KEY, VECTOR], limit=len(words())
    )
    if len(found) != len(words()):
        return None
    vectors = [row[VECTOR] for row in sorted(found, key=lambda row: str(row[KEY]))]
    return check_vectors(np.array(vectors, np.float32), info.dim, "vocabulary")


def read_info(client: Client, collection: str) -> PublishedInfo | None:
    """Return what a collection itself says of its publication; None if that cannot be understood.

    Raises:
        EngineError: The engine cannot be asked.
    """
    name = about_name(collection)
    if not client.has_collection(name):
        return None
    client.load_collection(name)
    found = client.query(name, filter=f'{KEY} == "info"', output_fields=["data"])
    try:
        return PublishedInfo.model_validate(found[0]["data"]) if found else None
    except ValidationError:
        return None


def count(client: Client, collection: str) -> int:
    """Return how many rows a loaded collection holds.

    Raises:
        EngineError: The engine cannot be asked.
    """
    (found,) = client.query(
        collection, filter="", output_fields=["count(*)"], consistency_level="Strong"
    )
    return int(found["count(*)"])
