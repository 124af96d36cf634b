"""Natural-language image retrieval as a data pipeline.

These are the public names; everything else may change between versions. They are imported when they
are first used (PEP 562), so that importing the package costs next to nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from retrieval_pipeline.config.loading import load_settings
    from retrieval_pipeline.config.settings import Settings, Source
    from retrieval_pipeline.encoders.load import load_encoder
    from retrieval_pipeline.errors import RetrievalError
    from retrieval_pipeline.export.table import picture_table
    from retrieval_pipeline.orchestration.library import RetrievalLibrary
    from retrieval_pipeline.orchestration.resources import LibraryResource
    from retrieval_pipeline.pipeline.run import index_sources
    from retrieval_pipeline.recommend.recommender import Recommender
    from retrieval_pipeline.search.query import Crop, Query
    from retrieval_pipeline.search.results import Answer, Hit
    from retrieval_pipeline.search.searcher import Searcher

__version__ = "0.2.0"

__all__ = [
    "Answer",
    "Crop",
    "Hit",
    "LibraryResource",
    "Query",
    "Recommender",
    "RetrievalError",
    "RetrievalLibrary",
    "Searcher",
    "Settings",
    "Source",
    "__version__",
    "index_sources",
    "load_encoder",
    "load_settings",
    "picture_table",
]

_MODULES = {
    "Answer": "search.results",
    "Crop": "search.query",
    "Hit": "search.results",
    "LibraryResource": "orchestration.resources",
    "Query": "search.query",
    "Recommender": "recommend.recommender",
    "RetrievalError": "errors",
    "RetrievalLibrary": "orchestration.library",
    "Searcher": "search.searcher",
    "Settings": "config.settings",
    "Source": "config.settings",
    "index_sources": "pipeline.run",
    "load_encoder": "encoders.load",
    "load_settings": "config.loading",
    "picture_table": "export.table",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
