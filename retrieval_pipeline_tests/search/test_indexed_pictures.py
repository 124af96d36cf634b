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
from retrieval_pipeline.search.embedded_index import EmbeddedIndex
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline_tests.support.commands import extract_home, retrieval


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return extract_home(tmp_path_factory.mktemp("indexed") / "library")


def test_a_file_with_the_bytes_of_an_indexed_one_takes_the_stored_vector(
    library: Path, tmp_path: Path
) -> None:
    settings = load_settings(library / "retrieval.toml")
    # Whoever asked this encoder for anything would fail.
    index = EmbeddedIndex(open_current(Store(settings.home)))
    searcher = Searcher(settings, index, encoder=cast("Encoder", object()))
    elsewhere = tmp_path / "other name.jpg"
    shutil.copy(library / "pictures" / "cat.jpg", elsewhere)
    query = Query(images=(elsewhere,))
    best = searcher.search(query, k=1)[0]
    assert best.path == library / "pictures" / "cat.jpg"
    number = searcher.corpus.number_of(best.content_id)
    stored = searcher.corpus.vectors(np.array([number], np.int64))
    assert np.allclose(searcher.query_vectors([query])[0].wanted, stored[0], atol=1e-6)
    elsewhere.write_bytes(elsewhere.read_bytes() + b" ")
    with pytest.raises(AttributeError):
        searcher.search(query)


def test_like_takes_the_path_of_a_picture(library: Path) -> None:
    done = retrieval(library, "query", "--like", "pictures/cat.jpg", "-n", "1", "--json")
    assert json.loads(done.stdout)["hits"][0]["path"].endswith("cat.jpg"), done.stderr
