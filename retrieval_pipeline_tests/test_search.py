from pathlib import Path

import numpy as np
import pytest

from retrieval_pipeline import search
from retrieval_pipeline.config import Settings
from retrieval_pipeline.errors import BuildError, QueryError
from retrieval_pipeline.index import build_index, open_current
from retrieval_pipeline.search import Query, Searcher, relevance_of
from retrieval_pipeline.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace, normalise
from retrieval_pipeline_tests.library import (
    content,
    random_vectors,
    settings_of,
    write_manifest,
    write_part,
)

DIM = 32
SPACE = VectorSpace("offline", "r1", DIM, "p")
WORDS = ("dog", "cat", "grass", "snow", "car")


class WordEncoder:
    """Texts as sums of fixed word directions: meanings that can be worked out by hand."""

    def encode_texts(self, texts: list[str]) -> Vectors:
        return normalise(np.stack([meaning(*text.split()) for text in texts]))


def meaning(*words: str) -> Vectors:
    axes = np.zeros(DIM, np.float32)
    for word in words:
        axes[WORDS.index(word)] += 1
    return axes


@pytest.fixture
def searcher(tmp_path: Path) -> Searcher:
    """Twenty pictures that show two things each, and two hundred that show nothing."""
    store = Store(tmp_path / "home")
    shown = [(first, second) for first in WORDS for second in WORDS if first != second]
    names = ["+".join(pair) for pair in shown]
    vectors = [normalise(meaning(first) + 0.5 * meaning(second))[0] for first, second in shown]
    noise = random_vectors(200, DIM, seed=3)
    noise[:, : len(WORDS)] *= 0.1
    others = [f"other{number:03d}" for number in range(200)]
    write_manifest(store, "a", {f"show/{name}.jpg": name for name in names})
    write_manifest(
        store, "b", {f"{name}.jpg": name for name in others} | {"copy of dog.jpg": "dog+cat"}
    )
    write_part(store, SPACE, "a", names + others, np.concatenate([vectors, normalise(noise)]))
    build_index(store, SPACE, ["a", "b"])
    settings = settings_of(tmp_path / "home", a=tmp_path / "A", b=tmp_path / "B")
    return Searcher(settings, open_current(store), WordEncoder())  # type: ignore[arg-type]


def names(searcher: Searcher, query: Query, k: int = 4) -> list[str]:
    return [hit.path.stem for hit in searcher.search(query, k)]


def test_the_nearest_pictures_come_first_with_their_cosine(searcher: Searcher) -> None:
    hits = searcher.search(Query(text="dog"), k=5)
    assert [hit.path.stem.split("+")[0] for hit in hits[:4]] == ["dog"] * 4
    assert hits[0].score == pytest.approx(1 / np.sqrt(1.25), abs=1e-5)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_hit_names_the_file_and_every_copy(searcher: Searcher, tmp_path: Path) -> None:
    hit = next(
        h for h in searcher.search(Query(text="dog cat")) if h.content_id == content("dog+cat")
    )
    assert hit.path == tmp_path / "A" / "show" / "dog+cat.jpg"
    assert [(place.source, place.path) for place in hit.other_locations] == [
        ("b", "copy of dog.jpg")
    ]


def test_plus_and_minus_shift_the_meaning(searcher: Searcher) -> None:
    assert names(searcher, Query(text="dog", plus=("snow",)), 2) == ["dog+snow", "snow+dog"]
    assert "dog+cat" not in names(searcher, Query(text="dog", minus=("cat",)), 3)


def test_a_source_filter_shows_its_own_copy_first(searcher: Searcher) -> None:
    hits = searcher.search(Query(text="dog", sources=("b",)), k=3)
    assert hits[0].path.name == "copy of dog.jpg"
    assert all(hit.source == "b" for hit in hits)


def test_a_path_filter_is_exact_on_what_it_lets_through(searcher: Searcher) -> None:
    assert names(searcher, Query(text="dog", paths=("show/snow*",)), 50) == [
        "snow+dog",
        "snow+car",
        "snow+cat",
        "snow+grass",
    ]
    assert names(searcher, Query(text="dog", paths=("nowhere/*",))) == []


@pytest.mark.parametrize("threshold", [0, 10_000])
def test_the_top_five_are_the_head_of_the_top_fifty(
    searcher: Searcher, threshold: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SCAN_ITEMS", threshold)
    for text in WORDS:
        fifty = names(searcher, Query(text=text), 50)
        assert names(searcher, Query(text=text), 5) == fifty[:5]


def test_the_trees_and_the_scan_agree(searcher: Searcher, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = [names(searcher, Query(text=text), 10) for text in WORDS]
    monkeypatch.setattr(search, "SCAN_ITEMS", 0)
    assert [names(searcher, Query(text=text), 10) for text in WORDS] == exact


def test_more_hits_than_pictures_gives_every_picture_once(searcher: Searcher) -> None:
    hits = searcher.search(Query(text="dog"), k=10_000)
    assert len({hit.content_id for hit in hits}) == len(hits) == 220


def test_relevance_falls_with_the_score_and_cuts_off(searcher: Searcher) -> None:
    hits = searcher.search(Query(text="dog"), k=220)
    relevance = [hit.relevance for hit in hits]
    assert relevance == sorted(relevance, reverse=True)
    assert relevance[0] > 0.99
    assert relevance[-1] < 0.01
    kept = searcher.search(Query(text="dog", min_relevance=0.5), k=220)
    assert kept == [hit for hit in hits if hit.relevance >= 0.5]


def test_relevance_is_the_chance_that_noise_stays_below() -> None:
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((4000, 100)).astype(np.float32)
    score = np.float32(2.5)
    expected = np.mean(noise.max(axis=1) < score)
    found = relevance_of(np.array([score]), noise.reshape(-1), 100)[0]
    assert found == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query(), "the query is empty"),
        (Query(text="  "), "the query is empty"),
        (Query(minus=("dog",)), "the query is empty"),
        (Query(text="dog", minus=("dog",)), "cancel each other out"),
        (Query(text="dog", sources=("nowhere",)), r"no source \"nowhere\" in the index"),
    ],
)
def test_a_query_that_cannot_be_answered_says_why(
    searcher: Searcher, query: Query, message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        searcher.search(query)


@pytest.mark.parametrize("k", [0, -1])
def test_asking_for_no_hits_is_an_error(searcher: Searcher, k: int) -> None:
    with pytest.raises(QueryError, match="at least one hit"):
        searcher.search(Query(text="dog"), k)


def test_before_the_first_index_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="retrieval index"):
        Searcher.open(Settings(home=tmp_path))
