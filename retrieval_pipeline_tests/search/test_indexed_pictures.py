"""A picture that is indexed is a query without its model."""

import json
import shutil
from pathlib import Path
from typing import cast

import numpy as np
import pytest

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.encoders.base import Encoder
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline_tests.support.commands import extract_home, retrieval
from retrieval_pipeline_tests.support.engines import ENGINES, Engines


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_home(tmp_path_factory.mktemp("indexed") / "library")


@pytest.mark.parametrize("engine", ENGINES)
def test_a_file_with_the_bytes_of_an_indexed_one_takes_the_stored_vector(
    engine: str, engines: Engines, library: Path, tmp_path: Path
) -> None:
    settings = load_settings(library / "retrieval.toml")
    store = Store(settings.home)
    space = open_current(store).info.space
    index = engines.index(engine, store, space, settings.source_names)
    # Whoever asked this encoder for anything would fail.
    searcher = Searcher(settings, index, encoder=cast("Encoder", object()))
    elsewhere = tmp_path / "other name.jpg"
    shutil.copy(library / "pictures" / "cat.jpg", elsewhere)
    query = Query(images=(elsewhere,))
    best = searcher.search(query, k=1)[0]
    assert best.path == library / "pictures" / "cat.jpg"
    stored = index.vectors(index.find([best.content_id]))
    assert np.allclose(searcher.query_vectors([query])[0].wanted, stored[0], atol=1e-6)
    elsewhere.write_bytes(elsewhere.read_bytes() + b" ")
    with pytest.raises(AttributeError):
        searcher.search(query)


def test_like_takes_the_path_of_a_picture(library: Path) -> None:
    done = retrieval(library, "query", "--like", "pictures/cat.jpg", "-n", "1", "--json")
    assert json.loads(done.stdout)["hits"][0]["path"].endswith("cat.jpg"), done.stderr
