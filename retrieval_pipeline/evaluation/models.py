"""Opening the newest index of a model, whichever index is the current one, to compare models."""

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.errors import EvaluationError
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.search.embedded_index import EmbeddedIndex
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store


def open_newest(settings: Settings) -> Searcher:
    """Open the newest index of the model of the settings, whichever index is the current one.

    Raises:
        BuildError: It is damaged.
        EncoderError: The model cannot be had.
        EvaluationError: The model has no index here.
    """
    builds = Store(settings.home).builds(describe_encoder(settings).space)
    if not builds:
        raise EvaluationError(
            f'"{settings.model}" has no index here: with --embed, it embeds all pictures first, '
            "and the present index goes on answering queries"
        )
    return Searcher(settings, EmbeddedIndex(Build.open(builds[-1])))
