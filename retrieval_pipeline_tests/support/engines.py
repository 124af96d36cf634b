"""Made-up libraries in both kinds of index: embedded, and in Milvus Lite."""

import functools
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from retrieval_pipeline.config.settings import IndexSettings, Settings
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.index.milvus.client import Client, served
from retrieval_pipeline.index.milvus.publication import publish
from retrieval_pipeline.search.embedded_index import EmbeddedIndex
from retrieval_pipeline.search.milvus.index import MilvusIndex
from retrieval_pipeline.search.vector_index import VectorIndex
from retrieval_pipeline.storage.remote import Place
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import EncodeTexts, VectorSpace
from retrieval_pipeline.views import Views
from retrieval_pipeline_tests.support.milvus import without_waiting

# What a fixture whose tests ask both has as its `params`.
ENGINES = ("embedded", "milvus")


class Engines:
    """Makes indexes; Milvus Lite, which takes a second to start, runs from the first that asks."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._names: dict[Place, str] = {}

    @functools.cached_property
    def client(self) -> Client:
        """The connection that all share: Milvus Lite answers one process."""
        pytest.importorskip("milvus_lite")
        return Client(str(self._directory / "engine.db"))

    def index(
        self,
        engine: str,
        store: Store,
        space: VectorSpace,
        sources: Sequence[str],
        *,
        views: Mapping[str, Views] | None = None,
        encode_texts: EncodeTexts | None = None,
    ) -> VectorIndex:
        """Index what is new in the tables of a store, and open the index.

        `engine` is one of ENGINES; the rest is as `build_index` takes it.
        """
        if engine == "embedded":
            build_index(store, space, sources, views=views, encode_texts=encode_texts)
        else:
            with without_waiting():
                publish(
                    store,
                    self.client,
                    space,
                    sources,
                    self.settings_of(store).index,
                    views=views,
                    encode_texts=encode_texts,
                )
        return self.open(engine, store)

    def open(self, engine: str, store: Store) -> VectorIndex:
        """Open the index that was last made of a store."""
        if engine == "embedded":
            return EmbeddedIndex(open_current(store))
        return MilvusIndex(self.client, served(self.client, self.settings_of(store)))

    def settings_of(self, store: Store) -> Settings:
        """Return settings by which the tables of a store are published."""
        engine = IndexSettings(
            engine="milvus",
            uri=self.client.where,
            collection=self._names.setdefault(store.home, f"library{len(self._names)}"),
            index_type="FLAT",
        )
        return Settings(home=store.home, index=engine)

    def close(self) -> None:
        """Stop Milvus Lite, if it runs."""
        if "client" in self.__dict__:
            self.client.close()
