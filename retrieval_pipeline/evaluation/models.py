"""Opening the newest index of a model, whichever index is the current one, to compare models."""

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.errors import EvaluationError
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.search.embedded_index import EmbeddedIndex
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.search.vector_index import VectorIndex
from retrieval_pipeline.storage.store import Store


def open_newest(settings: Settings) -> Searcher:
    """Open the newest index of the model of the settings, whichever index is the current one.

    Raises:
        BuildError: It is damaged.
        EncoderError: The model cannot be had.
        EngineError: The engine cannot be asked.
        EvaluationError: The model has no index here.
    """
    store, space = Store(settings.home), describe_encoder(settings).space
    index: VectorIndex | None = None
    if settings.has_engine:
        # With its client, which takes two seconds to import.
        from retrieval_pipeline.index.milvus.collections import newest
        from retrieval_pipeline.search.milvus.index import MilvusIndex

        if (collection := newest(store, settings.index.collection, space)) is not None:
            index = MilvusIndex.open(settings, collection)
    elif builds := store.builds(space):
        index = EmbeddedIndex(Build.open(builds[-1]))
    if index is None:
        raise EvaluationError(
            f'"{settings.model}" has no index here: with --embed, it embeds all pictures first, '
            "and the present index goes on answering queries"
        )
    return Searcher(settings, index)
