"""A person's own words on all pictures: which have them, which are told apart, what is counted."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pydantic import ValidationError

from retrieval_pipeline.config.settings import LabelSettings, Settings
from retrieval_pipeline.errors import QueryError, StoreError
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.maintenance.verify import verify
from retrieval_pipeline.search.embedded_index import EmbeddedIndex
from retrieval_pipeline.search.labelling import LabelsReport, update_labels
from retrieval_pipeline.search.labels import read_labels
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace
from retrieval_pipeline_tests.support.library import settings_of
from synthetic.tables import content, random_vectors, write_manifest, write_part

DIM = 32
SPACE = VectorSpace("test", "r1", DIM, "p")
# The first axis is what invoices show, the second dogs; the last shows nowhere.
AXES = {"invoice": 0, "bill": 0, "dog": 1, "spaceship": DIM - 1}
KINDS = ["invoice"] * 30 + ["dog"] * 20 + ["both"] * 4 + ["other"] * 146


class Words:
    """Each word of AXES is its axis, with a little of its own."""

    def encode_texts(self, texts: list[str]) -> Vectors:
        own = {"bill": 2}
        vectors = np.zeros((len(texts), DIM), np.float32)
        for row, text in enumerate(texts):
            vectors[row, AXES[text]] = 1.0
            vectors[row, own.get(text, 3)] = 0.1
        return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


@pytest.fixture
def searcher(tmp_path: Path) -> Searcher:
    settings = settings_of(tmp_path / "home", cam=tmp_path / "cam")
    return index(settings)


def index(settings: Settings) -> Searcher:
    store = Store(settings.home)
    names = [f"{kind}{number}" for number, kind in enumerate(KINDS)]
    vectors = 0.4 * random_vectors(len(names), DIM, seed=1)
    vectors[:, [*AXES.values()]] *= 0.3
    for row, kind in enumerate(KINDS):
        vectors[row, 0] += 0.8 * (kind in ("invoice", "both"))
        # A picture of both is more a dog.
        vectors[row, 1] += 0.9 * (kind in ("dog", "both"))
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_manifest(store, "cam", {f"{name}.jpg": name for name in names})
    if not store.parts(SPACE):
        write_part(store, SPACE, "cam", names, vectors)
    build_index(store, SPACE, ["cam"])
    return Searcher(settings, EmbeddedIndex(open_current(store)), Words())  # type: ignore[arg-type]


def label(searcher: Searcher, *words: str, compete: bool = False) -> LabelsReport:
    with Store(searcher.settings.home).locked():
        return update_labels(searcher, LabelSettings(words=words, compete=compete))


def labelled(searcher: Searcher, word: str) -> set[str]:
    return {hit.path.stem for hit in searcher.search(Query(labels=(word,), sort="name"), k=500)}


def of_kinds(*kinds: str) -> set[str]:
    return {f"{kind}{number}" for number, kind in enumerate(KINDS) if kind in kinds}


def test_words_mark_the_pictures_that_they_fit_and_may_compete(searcher: Searcher) -> None:
    report = label(searcher, "invoice", "dog", "spaceship")
    marked = {word: labelled(searcher, word) for word in ("Invoice", "dog")}
    # From 0.5 on, more are right than wrong.
    assert marked["Invoice"] - of_kinds("other") == of_kinds("invoice", "both")
    assert marked["dog"] - of_kinds("other") == of_kinds("dog", "both")
    assert all(2 * len(names & of_kinds("other")) < len(names) for names in marked.values())
    counts = {word: len(marked.get(word, marked["Invoice"])) for word in ("invoice", "dog")}
    assert report.labels.counts == {**counts, "spaceship": 0}
    some = pa.array([content(name) for name in of_kinds("both")])
    assert report.labels.counts_among(some) == {"invoice": 4, "dog": 4, "spaceship": 0}
    relevance = report.labels.table["relevance"].to_numpy()
    assert relevance.min() >= 0.5
    assert relevance.max() > 0.9
    either = searcher.search(Query(labels=("invoice", "dog"), sort="name"), k=500)
    assert len(either) == len(marked["Invoice"] | marked["dog"])
    label(searcher, "invoice", "dog", "spaceship", compete=True)
    best = {word: labelled(searcher, word) for word in ("invoice", "dog")}
    assert best["invoice"] - of_kinds("other") == of_kinds("invoice")
    assert best["invoice"] | best["dog"] == marked["Invoice"] | marked["dog"]
    assert not best["invoice"] & best["dog"]
    store = Store(searcher.settings.home)
    found = {finding.file: finding.problem for finding in verify(store)}
    assert found[store.labels] is None


def test_synonyms_are_told_and_work_is_done_once(searcher: Searcher) -> None:
    report = label(searcher, "invoice", "bill", "dog")
    assert [pair[:2] for pair in report.synonyms] == [("invoice", "bill")]
    assert report.changed
    assert not label(searcher, "invoice", "bill", "dog").changed


def test_labels_serve_a_newer_index_and_say_that_they_are_older(searcher: Searcher) -> None:
    label(searcher, "dog")
    query = Query(labels=("dog",), sort="name")
    assert searcher.answer(query).notes == ()
    store = Store(searcher.settings.home)
    files = {f"{kind}{number}.jpg": f"{kind}{number}" for number, kind in enumerate(KINDS)}
    write_manifest(store, "cam", files | {"copy.jpg": "dog30"})
    build_index(store, SPACE, ["cam"])
    newer = Searcher(searcher.settings, EmbeddedIndex(open_current(store)), Words())  # type: ignore[arg-type]
    assert "of an earlier index" in newer.answer(query).notes[0]
    assert len(newer.search(query, k=500)) == len(labelled(searcher, "dog"))


def test_mistakes_are_one_line(searcher: Searcher) -> None:
    with pytest.raises(QueryError, match=r'no label "dog" \(labels: none yet\)'):
        labelled(searcher, "dog")
    with pytest.raises(QueryError, match="no words to label with"):
        label(searcher)
    label(searcher, "dog")
    with pytest.raises(QueryError, match=r'no label "cat" \(labels: dog\)'):
        labelled(searcher, "cat")
    for words in (("dog", " DOG"), ("",), ("a\nb",)):
        with pytest.raises(ValidationError):
            LabelSettings(words=words)
    table = Store(searcher.settings.home).labels
    pq.write_table(pq.read_table(table).replace_schema_metadata({"schema_version": "1"}), table)
    with pytest.raises(StoreError, match="does not say what it was made of"):
        read_labels(Store(searcher.settings.home))
