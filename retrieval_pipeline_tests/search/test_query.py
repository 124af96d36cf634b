from datetime import datetime

import pytest

from retrieval_pipeline.search.query import Query


def test_a_query_is_made_of_lists_and_of_names_in_the_singular() -> None:
    asked = {
        "text": "dog",
        "plus": ["snow"],
        "source": ["a"],
        "path": ["show/*"],
        "format": ["jpg"],
        "after": datetime(2024, 1, 1),
        "collapse": True,
    }
    assert Query.of(asked) == Query(
        text="dog",
        plus=("snow",),
        sources=("a",),
        paths=("show/*",),
        formats=("jpg",),
        after=datetime(2024, 1, 1),
        collapse=True,
    )


def test_a_parameter_that_no_query_has_is_an_error() -> None:
    with pytest.raises(TypeError, match="colour"):
        Query.of({"text": "dog", "colour": "red"})
