"""Opening the index of a model that is not the current one, to compare the two."""

from retrieval_pipeline.config.settings import DEFAULT_MODEL, ORIGINAL, Settings
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.errors import EvaluationError
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store


def open_newest(settings: Settings, model: str) -> Searcher:
    """Open the newest index of a model, whichever index is the current one.

    Raises:
        BuildError: It is damaged.
        EncoderError: The model cannot be had.
        EvaluationError: The model has no index here.
    """
    name = DEFAULT_MODEL if model == ORIGINAL else model
    # A revision in the settings is one of the settings' own model.
    revision = settings.revision if name == settings.model else None
    theirs = settings.model_copy(update={"model": name, "revision": revision})
    builds = Store(settings.home).builds(describe_encoder(theirs).space)
    if not builds:
        raise EvaluationError(
            f'"{model}" has no index here: set `model = "{model}"` in the settings and run '
            "`retrieval index`; the index of the former model stays, and `retrieval use` goes back"
        )
    return Searcher(theirs, Build.open(builds[-1]))
