from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import BuildError, QueryError, VectorError
from retrieval_pipeline.index.knn import Plan
from retrieval_pipeline.search import relevance
from retrieval_pipeline.search.milvus import ranking as milvus_ranking
from retrieval_pipeline.search.query import Query, weighted
from retrieval_pipeline.search.results import answer_json
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.search.vector_index import VectorIndex
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.schemas import MANIFEST, embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import write_table
from retrieval_pipeline.vectors import Vectors, VectorSpace, normalise
from retrieval_pipeline_tests.support.engines import ENGINES, Engines
from retrieval_pipeline_tests.support.library import settings_of
from retrieval_pipeline_tests.support.plans import search_by_trees
from synthetic.tables import content, random_vectors, write_manifest, write_part

DIM = 32
SPACE = VectorSpace("offline", "r1", DIM, "p")
WORDS = ("dog", "cat", "grass", "snow", "car")


class WordEncoder:
    """Texts as sums of fixed word directions: vectors that can be worked out by hand."""

    def __init__(self) -> None:
        self.calls: list[list[str]] = []

    def encode_texts(self, texts: list[str]) -> Vectors:
        self.calls.append(list(texts))
        return normalise(np.stack([direction(*text.split()) for text in texts]))


def direction(*words: str) -> Vectors:
    axes = np.zeros(DIM, np.float32)
    for word in words:
        axes[WORDS.index(word)] += 1
    return axes


def write_pictures(home: Path) -> Store:
    """Twenty pictures that show two things each, and two hundred that show nothing."""
    store = Store(home)
    shown = [(first, second) for first in WORDS for second in WORDS if first != second]
    names = ["+".join(pair) for pair in shown]
    vectors = [normalise(direction(first) + 0.5 * direction(second))[0] for first, second in shown]
    noise = random_vectors(200, DIM, seed=3)
    noise[:, : len(WORDS)] *= 0.1
    others = [f"other{number:03d}" for number in range(200)]
    write_manifest(store, "a", {f"show/{name}.jpg": name for name in names})
    write_manifest(
        store, "b", {f"{name}.jpg": name for name in others} | {"copy of dog.jpg": "dog+cat"}
    )
    write_part(store, SPACE, "a", names + others, np.concatenate([vectors, normalise(noise)]))
    return store


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """The tables of the pictures, which the tests do not change."""
    return write_pictures(tmp_path_factory.mktemp("pictures") / "home")


def searcher_of(index: VectorIndex, store: Store) -> Searcher:
    home = Path(str(store.home))
    settings = settings_of(home, a=home.parent / "A", b=home.parent / "B")
    return Searcher(settings, index, WordEncoder())  # type: ignore[arg-type]


@pytest.fixture(scope="module", params=ENGINES)
def engine(request: pytest.FixtureRequest, engines: Engines, store: Store) -> str:
    """An engine that the pictures of `write_pictures` are in."""
    engines.index(request.param, store, SPACE, ["a", "b"])
    return str(request.param)


@pytest.fixture
def searcher(engine: str, engines: Engines, store: Store) -> Searcher:
    return searcher_of(engines.open(engine, store), store)


@pytest.fixture
def embedded(engines: Engines, store: Store) -> Searcher:
    """For what only the embedded index has."""
    return searcher_of(engines.index("embedded", store, SPACE, ["a", "b"]), store)


@pytest.fixture(scope="module", params=ENGINES)
def judged(
    request: pytest.FixtureRequest, engines: Engines, tmp_path_factory: pytest.TempPathFactory
) -> Searcher:
    """The same pictures in an index that has the vectors of a vocabulary, which shows nothing."""
    store = write_pictures(tmp_path_factory.mktemp("judged") / "home")
    vocabulary = random_vectors(552, DIM, seed=5)
    index = engines.index(
        request.param, store, SPACE, ["a", "b"], encode_texts=lambda texts: vocabulary
    )
    return searcher_of(index, store)


def names(searcher: Searcher, query: Query, k: int = 4) -> list[str]:
    return [hit.path.stem for hit in searcher.search(query, k)]


def test_the_nearest_pictures_come_first_with_their_cosine(searcher: Searcher) -> None:
    hits = searcher.search(Query(text="dog"), k=5)
    assert [hit.path.stem.split("+")[0] for hit in hits[:4]] == ["dog"] * 4
    assert hits[0].score == pytest.approx(1 / np.sqrt(1.25), abs=2e-4)
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)


def test_a_hit_names_the_file_and_every_copy(searcher: Searcher) -> None:
    hit = next(
        h for h in searcher.search(Query(text="dog cat")) if h.content_id == content("dog+cat")
    )
    assert hit.path == searcher.settings.source("a").path / "show" / "dog+cat.jpg"
    assert [(place.source, place.path) for place in hit.other_locations] == [
        ("b", "copy of dog.jpg")
    ]


def test_plus_and_minus_shift_the_meaning(searcher: Searcher) -> None:
    assert names(searcher, Query(text="dog", plus=("snow",)), 2) == ["dog+snow", "snow+dog"]
    assert "dog+cat" not in names(searcher, Query(text="dog", minus=("cat",)), 3)


def test_an_answer_has_a_hint_for_each_text_of_which_the_model_knows_no_word(
    searcher: Searcher,
) -> None:
    (known,) = searcher.query_vectors([Query(text="dog")])
    assert searcher.answer(Query(text="dog"), query_vectors=known).hints == ()
    query = Query(text="dog", plus=("koira",), minus=("2*kissa",))
    answer = searcher.answer(query, query_vectors=known)
    assert [hint.partition("'")[2][:5] for hint in answer.hints] == ["koira", "kissa"]
    assert answer_json(answer)["hints"] == list(answer.hints)


def test_vectors_that_are_known_are_not_computed_again_and_give_the_same_hits(
    searcher: Searcher,
) -> None:
    query = Query(text="dog", minus=("cat",), sources=("a",))
    expected = searcher.search(query, 5)
    query_vectors = searcher.query_vectors([query])[0]
    calls = len(searcher.encoder.calls)  # type: ignore[attr-defined]
    assert list(searcher.answer(query, 5, query_vectors=query_vectors).hits) == expected
    assert len(searcher.encoder.calls) == calls  # type: ignore[attr-defined]


def test_a_filter_is_evaluated_once_for_all_pages_and_queries(
    searcher: Searcher,
) -> None:
    query = Query(text="dog", paths=("show/*",))
    flags = searcher.allowed(query)
    assert searcher.allowed(Query(text="cat", paths=("show/*",))) is flags
    assert searcher.allowed(Query(text="dog", paths=("*cat*",))) is not flags
    pages = [searcher.search(query, 5, offset) for offset in (0, 5)]
    assert len({hit.content_id for page in pages for hit in page}) == 10
    assert searcher.allowed(Query(text="dog")) is None


def test_hits_can_be_confined_to_given_items_on_top_of_the_filters(searcher: Searcher) -> None:
    among = searcher.index.having([content(name) for name in ("dog+cat", "car+dog")])
    found = [hit.path.stem for hit in searcher.answer(Query(text="dog"), among=among).hits]
    assert found == ["dog+cat", "car+dog"]
    only_b = searcher.answer(Query(text="dog", sources=("b",)), among=among).hits
    assert [hit.path.name for hit in only_b] == ["copy of dog.jpg"]


def test_a_source_filter_shows_its_own_copy_first(searcher: Searcher) -> None:
    hits = searcher.search(Query(text="dog", sources=("b",)), k=3)
    assert hits[0].path.name == "copy of dog.jpg"
    assert all(hit.source == "b" for hit in hits)


@pytest.mark.parametrize("year", [1, 1467, 1677, 2262, 9999])
def test_a_year_that_no_file_can_have_is_before_or_after_all_of_them(
    searcher: Searcher, year: int
) -> None:
    day = datetime(year, 1, 1)
    later, earlier = (
        searcher.search(Query(text="dog", after=day)),
        searcher.search(Query(text="dog", before=day)),
    )
    assert (later == []) == (year > 2000)
    assert (earlier == []) == (year < 2000)


def test_a_path_filter_is_exact_on_what_it_lets_through(searcher: Searcher) -> None:
    assert names(searcher, Query(text="dog", paths=("show/snow*",)), 50) == [
        "snow+dog",
        "snow+car",
        "snow+cat",
        "snow+grass",
    ]
    assert names(searcher, Query(text="dog", paths=("nowhere/*",))) == []


def by_trees(searcher: Searcher, candidates: int, directory: Path) -> Searcher:
    """The same searcher, told to use trees and to look at this many candidates."""
    plan = Plan(kind="trees", candidates=candidates, search_k=10_000)
    search_by_trees(searcher.corpus, plan, directory)
    return searcher


def top_five_are_the_head(searcher: Searcher, text: str) -> None:
    query = Query(text=text)
    everything = searcher.search(query, 400)
    assert len(everything) == 220
    assert searcher.search(query, 5) == everything[:5]
    assert searcher.search(query, 50) == everything[:50]


def page_two_continues(searcher: Searcher, *, collapse: bool) -> None:
    query = Query(text="dog", collapse=collapse)
    pages = [searcher.search(query, 7, offset) for offset in range(0, 28, 7)]
    assert [hit for page in pages for hit in page] == searcher.search(query, 28)
    assert searcher.search(query, 5, offset=220) == []


def test_the_top_five_are_the_head_of_the_top_fifty(searcher: Searcher) -> None:
    for text in WORDS[:2]:
        top_five_are_the_head(searcher, text)


@pytest.mark.parametrize("collapse", [False, True])
def test_page_two_continues_page_one(searcher: Searcher, collapse: bool) -> None:
    page_two_continues(searcher, collapse=collapse)


@pytest.mark.parametrize("candidates", [7, 400])
def test_pages_of_hits_by_trees_are_parts_of_one_list(
    embedded: Searcher, tmp_path: Path, candidates: int
) -> None:
    by_trees(embedded, candidates, tmp_path)
    for text in WORDS:
        top_five_are_the_head(embedded, text)
    for collapse in (False, True):
        page_two_continues(embedded, collapse=collapse)


def test_the_trees_and_the_scan_agree(embedded: Searcher, tmp_path: Path) -> None:
    exact = [names(embedded, Query(text=text), 10) for text in WORDS]
    by_trees(embedded, 400, tmp_path)
    assert embedded.answer(Query(text="dog")).plan.startswith("trees")
    assert [names(embedded, Query(text=text), 10) for text in WORDS] == exact


def test_filters_and_unwanted_things_are_exact_whatever_the_plan(
    embedded: Searcher, tmp_path: Path
) -> None:
    queries = [Query(text="dog", paths=("show/*",)), Query(text="dog", minus=("cat",))]
    exact = embedded.search_many(queries, 20)
    by_trees(embedded, 3, tmp_path)
    assert embedded.search_many(queries, 20) == exact
    assert {answer.plan for answer in embedded.answer_many(queries)} == {"exact scan"}


def test_more_hits_than_pictures_gives_every_picture_once(searcher: Searcher) -> None:
    hits = searcher.search(Query(text="dog"), k=10_000)
    assert len({hit.content_id for hit in hits}) == len(hits) == 220


def test_relevance_cuts_off(searcher: Searcher) -> None:
    hits = searcher.search(Query(text="dog"), k=220)
    assert hits[0].relevance > 0.99
    assert hits[-1].relevance < 0.01
    kept = searcher.search(Query(text="dog", min_relevance=0.5), k=220)
    assert kept == [hit for hit in hits if hit.relevance >= 0.5]
    assert 4 <= len(kept) < 20


def test_pages_of_relevant_hits_continue_each_other(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relevance, "JUDGED_TOGETHER", 4)
    query = Query(text="dog", min_relevance=0.5)
    everything = searcher.search(query, 100)
    assert 4 <= len(everything) < 20
    pages = [searcher.search(query, 3, offset) for offset in range(0, 30, 3)]
    assert [hit for page in pages for hit in page] == everything


def test_what_is_not_wanted_sinks_and_nothing_else_moves(searcher: Searcher) -> None:
    plain = searcher.search(Query(text="dog"), 220)
    without = searcher.search(Query(text="dog", minus=("cat",)), 220)
    assert {hit.path.stem for hit in without[:3]} == {"dog+grass", "dog+snow", "dog+car"}
    scores = {hit.content_id: hit.score for hit in without}
    assert scores[content("dog+cat")] < min(scores[content(f"dog+{w}")] for w in ("snow", "car"))
    # What shows less of a cat than pictures do on average gains nothing by that.
    assert all(scores[hit.content_id] <= hit.score + 1e-6 for hit in plain)


def test_an_unwanted_thing_moves_only_the_pictures_that_show_it(judged: Searcher) -> None:
    plain, without = (
        {hit.path.stem: hit for hit in judged.search(Query(text="dog", minus=minus), 220)}
        for minus in ((), ("cat",))
    )
    moved = {name for name, hit in without.items() if hit.score < plain[name].score - 1e-6}
    assert moved == {name for name in plain if "cat" in name}
    assert without["dog+snow"].likely
    # With 32 dimensions, its little of a cat is 2.5 standard deviations: halfway to certain.
    assert without["dog+cat"].relevance < plain["dog+cat"].relevance - 0.3


def test_a_picture_of_one_part_of_a_query_has_to_do_with_it(judged: Searcher) -> None:
    query = Query(text="dog", plus=("snow", "2*car"), minus=("grass",))
    answer = judged.answer(query, 220)
    likely = {hit.path.stem for hit in answer.hits if hit.likely}
    assert {"dog+cat", "dog+snow", "car+dog", "snow+car"} <= likely
    assert all("+" in name for name in likely)
    assert answer.verdict == f"{len(likely)} likely; the rest are only the nearest"


@pytest.mark.parametrize(
    "query",
    [
        Query(text="dog"),
        Query(text="dog", plus=("3*snow",), minus=("cat", "grass")),
        Query(like=(content("dog+cat"),)),
        Query(like=(content("dog+cat"), content("snow+cat")), text="car"),
        Query(like=(content("other007"),), minus=("dog",)),
    ],
    ids=str,
)
def test_relevance_descends_with_the_rank(judged: Searcher, query: Query) -> None:
    relevance = [hit.relevance for hit in judged.search(query, 220)]
    assert relevance == sorted(relevance, reverse=True)


def test_of_what_is_not_there_only_the_nearest_are_shown(judged: Searcher) -> None:
    others = Query(text="dog", sources=("b",), paths=("other*",))
    answer = judged.answer(others, 5)
    assert (len(answer.hits), answer.likely) == (5, 0)
    assert answer.verdict == "nothing here looks like that: only the nearest are shown"
    assert judged.answer(others, 5, 5).verdict.startswith("none of these is likely")
    assert judged.answer(Query(text="dog"), 2).verdict == "all 2 likely"


def test_a_ranking_goes_on_until_nothing_further_down_can_be_better(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_ranking, "MORE_ROWS", 0)
    query = Query(text="dog", minus=("3*cat",))
    (ranking,) = searcher.index.rank([query], searcher.query_vectors([query]), [None], 4)
    found = [record.locations[0].path for record in searcher.index.records(ranking.items)]
    assert "show/dog+cat.jpg" not in found
    assert len(found) == 4


def test_a_weight_counts(searcher: Searcher) -> None:
    def score(name: str, *plus: str, minus: str = "0.1*cat") -> float:
        hits = searcher.search(Query(text="dog", plus=plus, minus=(minus,)), 220)
        return next(hit.score for hit in hits if hit.content_id == content(name))

    assert score("snow+dog", "3*snow") > score("dog+snow", "3*snow")
    assert score("snow+dog", "0.3*snow") < score("dog+snow", "0.3*snow")
    assert score("dog+cat", minus="3*cat") < score("dog+cat", minus="cat") < score("dog+cat")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("snow", (1, "snow")),
        ("2*snow", (2, "snow")),
        (" 0.5 * deep snow ", (0.5, "deep snow ")),
        ("2 * 3 boxes", (2, "3 boxes")),
        ("*snow", (1, "*snow")),
        ("a*b", (1, "a*b")),
        ("-2*snow", (1, "-2*snow")),
    ],
)
def test_a_number_and_a_star_are_a_weight(text: str, expected: tuple[float, str]) -> None:
    assert weighted(text) == expected


def test_pictures_like_an_indexed_one_are_found_without_an_encoder(searcher: Searcher) -> None:
    searcher = Searcher(searcher.settings, searcher.index)
    hits = searcher.search(Query(like=(content("dog+cat"),)), 220)
    assert len(hits) == 219
    assert content("dog+cat") not in {hit.content_id for hit in hits}
    assert hits[0].path.stem in ("cat+dog", "dog+grass", "dog+snow", "dog+car")
    both = searcher.search(Query(like=(content("dog+cat"), content("snow+cat"))), 1)
    assert set(both[0].path.stem.split("+")) < {"dog", "cat", "snow"}


def test_many_queries_are_encoded_together_and_answered_as_if_alone(searcher: Searcher) -> None:
    queries = [Query(text=text, minus=("cat",) * (text == "dog")) for text in WORDS]
    encoder: WordEncoder = searcher.encoder  # type: ignore[assignment]
    together = searcher.search_many(queries)
    assert encoder.calls == [list(WORDS)]
    for query, hits in zip(queries, together, strict=True):
        alone = searcher.search(query)
        assert [hit.content_id for hit in alone] == [hit.content_id for hit in hits]
        assert [hit.score for hit in alone] == pytest.approx([hit.score for hit in hits], abs=1e-6)
    assert searcher.search_many([]) == []


@pytest.fixture(scope="module", params=ENGINES)
def album(
    request: pytest.FixtureRequest, engines: Engines, tmp_path_factory: pytest.TempPathFactory
) -> Searcher:
    """Five pictures of five sizes, ages and formats, all of a dog."""
    store = Store(tmp_path_factory.mktemp("album") / "home")
    rows = [
        {
            "path": f"{year}/x[{number}].jpg" if number else "cafe\u0301/0.jpg",
            "size": 1,
            "mtime_ns": int(datetime(year, 6, 1).timestamp()) * 10**9,
            "content_id": content(str(number)),
            "status": "ok",
        }
        for number, year in enumerate(range(2020, 2025))
    ]
    write_table(store.manifest("a"), pa.Table.from_pylist(rows, schema=MANIFEST))
    vectors = normalise(direction("dog") + 0.1 * random_vectors(5, DIM))
    facts = [
        {
            "content_id": content(str(number)),
            "embedding": vector.tolist(),
            "width": 100 * (number + 1),
            "height": 500 - 100 * number,
            "format": ("JPEG", "PNG")[number % 2],
        }
        for number, vector in enumerate(vectors)
    ]
    table = pa.Table.from_pylist(facts, schema=embedding_schema(DIM))
    write_table(store.next_part(SPACE, "a"), table, SPACE)
    return searcher_of(engines.index(request.param, store, SPACE, ["a"]), store)


@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({"after": datetime(2022, 6, 1)}, "234"),
        ({"before": datetime(2022, 6, 1)}, "01"),
        ({"after": datetime(2021, 1, 1), "before": datetime(2023, 1, 1)}, "12"),
        ({"min_width": 300}, "234"),
        ({"min_height": 300}, "012"),
        ({"min_width": 200, "min_height": 300}, "12"),
        ({"formats": ("jpg",)}, "024"),
        ({"formats": ("PNG", "jpeg")}, "01234"),
        ({"formats": ("webp",)}, ""),
        ({"formats": ("png",), "after": datetime(2023, 1, 1)}, "3"),
        ({"paths": ("caf\u00e9/*",)}, "0"),
        ({"paths": ("*x[[]3]*",)}, "3"),
        ({"paths": ("2023/*", "2024/*"), "min_width": 500}, "4"),
        ({"sources": ("a",), "min_height": 600}, ""),
    ],
)
def test_filters_let_through_exactly_what_they_say(
    album: Searcher, filters: dict[str, Any], expected: str
) -> None:
    found = {hit.content_id for hit in album.search(Query(text="dog", **filters), 10)}
    assert found == {content(number) for number in expected}


@pytest.mark.parametrize("engine", ENGINES)
def test_pictures_that_look_the_same_are_folded_into_the_best(
    engine: str, engines: Engines, tmp_path: Path
) -> None:
    twins = normalise(direction("dog") + 1e-3 * random_vectors(3, DIM, seed=8))
    store = write_pictures(tmp_path / "home")
    pictures, files = tmp_path / "C", {}
    (tmp_path / "elsewhere").mkdir()
    for number in range(3):
        file = tmp_path / "elsewhere" / f"twin{number}.jpg"
        Image.radial_gradient("L").resize((90 + number, 80)).save(file)
        files[file.name] = content_id_of_file(file)
    write_manifest(store, "c", files)
    write_part(store, SPACE, "c", list(files.values()), twins)
    index = engines.index(engine, store, SPACE, ["a", "b", "c"])
    settings = settings_of(tmp_path / "home", c=pictures)
    fresh = Searcher(settings, index, WordEncoder())  # type: ignore[arg-type]
    # Of files that cannot be opened nobody knows what they look like.
    assert [hit.alike for hit in fresh.search(Query(text="dog", collapse=True), 3)] == [0, 0, 0]
    fresh = Searcher(settings, index, WordEncoder())  # type: ignore[arg-type]
    (tmp_path / "elsewhere").rename(pictures)
    plain = fresh.search(Query(text="dog"), 4)
    folded = fresh.search(Query(text="dog", collapse=True), 2)
    assert all(hit.path.stem.startswith("twin") for hit in plain[:3])
    assert [hit.content_id for hit in folded] == [plain[0].content_id, plain[3].content_id]
    assert [hit.alike for hit in folded] == [2, 0]


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (Query(), "the query is empty"),
        (Query(text="  "), "the query is empty"),
        (Query(minus=("dog",)), "the query is empty"),
        (Query(text="dog", minus=("0*cat",)), "weighs nothing"),
        (Query(like=("unknown",)), r"no indexed picture has the content id \"unknown\""),
        (Query(text="dog", sources=("nowhere",)), r"no source \"nowhere\" in the index"),
    ],
)
def test_a_query_that_cannot_be_answered_says_why(
    searcher: Searcher, query: Query, message: str
) -> None:
    with pytest.raises(QueryError, match=message):
        searcher.search(query)


@pytest.mark.parametrize(
    ("vector", "message"),
    [
        (np.full(DIM, np.nan), "query 0 has length nan, not 1"),
        (np.zeros(DIM), "query 0 has length 0, not 1"),
        (np.full(DIM, np.inf), "query 0 has length inf, not 1"),
        (normalise(np.ones(DIM + 1))[0], rf"expected the shape \(n, {DIM}\)"),
    ],
)
def test_a_vector_that_cannot_be_a_query_is_refused(
    searcher: Searcher, monkeypatch: pytest.MonkeyPatch, vector: Vectors, message: str
) -> None:
    monkeypatch.setattr(searcher.encoder, "encode_texts", lambda texts: np.array([vector]))
    with pytest.raises(VectorError, match=message):
        searcher.search(Query(text="dog"))


def test_a_negative_offset_is_an_error(searcher: Searcher) -> None:
    with pytest.raises(QueryError, match="cannot be negative"):
        searcher.search(Query(text="dog"), offset=-1)


@pytest.mark.parametrize("k", [0, -1])
def test_asking_for_no_hits_is_an_error(searcher: Searcher, k: int) -> None:
    with pytest.raises(QueryError, match="at least one hit"):
        searcher.search(Query(text="dog"), k)


def test_before_the_first_index_the_error_says_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(BuildError, match="retrieval index"):
        Searcher.open(Settings(home=tmp_path))


def test_a_searcher_goes_over_to_a_new_index_and_keeps_its_model(
    engines: Engines, tmp_path: Path
) -> None:
    store = write_pictures(tmp_path / "home")
    searcher = searcher_of(engines.index("embedded", store, SPACE, ["a", "b"]), store)
    assert searcher.latest() is searcher
    engines.index("embedded", store, SPACE, ["a"])
    later = searcher.latest()
    assert (later.corpus.path, len(later.corpus)) == (store.current_build(), 20)
    assert later.encoder is searcher.encoder
    store.current_file.write_text("damaged")
    assert later.latest() is later
