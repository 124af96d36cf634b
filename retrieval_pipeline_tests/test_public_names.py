"""What `import retrieval_pipeline` offers; everything else may change."""

import importlib

import pytest

import retrieval_pipeline

NAMES = [
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


def test_the_public_names_are_these() -> None:
    assert dir(retrieval_pipeline) == NAMES
    assert retrieval_pipeline.__all__ == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_a_public_name_resolves_and_is_documented(name: str) -> None:
    public = getattr(importlib.import_module("retrieval_pipeline"), name)
    assert public.__doc__


def test_another_name_is_an_ordinary_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'Searchers'"):
        retrieval_pipeline.Searchers  # noqa: B018
