"""The scripts of examples/ run as they are, and what notebooks show."""

import runpy
import sys
from operator import methodcaller
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.rendering.notebook import MOST_CARDS
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest
from retrieval_pipeline_tests.support.commands import extract_home
from synthetic.tables import random_vectors, write_manifest, write_part

EXAMPLES = Path(__file__).parents[1] / "examples"

# What Jupyter asks of the last value of a cell.
shown = methodcaller("_repr_html_")


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Five photographs, and thirty pictures whose files are gone."""
    directory = extract_home(tmp_path_factory.mktemp("examples") / "library")
    store = Store(directory / "home")
    space = open_current(store).info.space
    rows = read_manifest(store, "pictures").to_pylist()
    files = {row["path"]: row["content_id"] for row in rows if row["content_id"]}
    names = [f"n{number:02d}" for number in range(30)]
    write_manifest(store, "pictures", files | {f"a<b>&{name}.jpg": name for name in names})
    vectors = random_vectors(len(names), space.dim, seed=3)
    write_part(store, space, "pictures", names, vectors)
    build_index(store, space, ["pictures"])
    return directory


@pytest.mark.slow
@pytest.mark.parametrize("script", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_runs(
    library: Path, script: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(library)
    monkeypatch.setattr(sys, "argv", [str(script)])
    runpy.run_path(str(script), run_name="__main__")
    printed = capsys.readouterr().out
    if script.stem == "search_and_look":
        assert (library / "hits.html").read_text("utf-8").count("<figure") == 6
    elif script.stem == "teach_a_recommender":
        assert printed.count("recommended: ") == 3
    else:
        assert len(pq.read_table(library / "pictures.parquet")) == 35


def test_a_notebook_shows_some_pictures_and_tells_the_rest(library: Path) -> None:
    searcher = Searcher.open(load_settings(library / "retrieval.toml"))
    answer = searcher.answer(Query(sort="name"), k=100)
    html = shown(answer)
    assert html.count("<figure") == MOST_CARDS
    assert f"and {len(answer.hits) - MOST_CARDS} more" in html
    # Names are text, whatever is in them; a file that is gone says so.
    assert "a&lt;b&gt;&amp;n00.jpg" in html
    assert "<b>" not in html
    assert "is gone" in html
    real = searcher.search(Query(paths=("cat.jpg",), sort="name"))
    assert shown(real).count("data:image/webp;base64,") == 1
    assert len(shown(real)) < 60_000
    assert [hit.path for hit in real] == [library / "pictures" / "cat.jpg"]
