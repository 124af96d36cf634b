"""Milvus gives the answers of the embedded index: random questions to both, and Milvus Lite."""

import itertools
import socket
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any
from unicodedata import normalize

import pytest
from numpy.testing import assert_allclose, assert_array_equal
from starlette.testclient import TestClient

from retrieval_pipeline.config.settings import IndexSettings, LabelSettings, Settings
from retrieval_pipeline.errors import EngineError, NotOnEngineError, QueryError
from retrieval_pipeline.evaluation.evaluate import evaluate, evaluation_json
from retrieval_pipeline.evaluation.labels import LabelledQuery, folder_queries
from retrieval_pipeline.export.table import picture_table
from retrieval_pipeline.facts import places
from retrieval_pipeline.index.build import Build
from retrieval_pipeline.index.milvus.client import Client, served
from retrieval_pipeline.index.milvus.publication import publish
from retrieval_pipeline.index.milvus.schema import about_name
from retrieval_pipeline.latent_map.drawing import drawing_to_order
from retrieval_pipeline.progress import Quiet
from retrieval_pipeline.recommend import pictures as recommend_pictures
from retrieval_pipeline.recommend.recommender import Recommender
from retrieval_pipeline.search import near_duplicates
from retrieval_pipeline.search.embedded_index import EmbeddedIndex
from retrieval_pipeline.search.labelling import update_labels
from retrieval_pipeline.search.look_alike import Looks
from retrieval_pipeline.search.milvus import facets, listing, ranking, reader
from retrieval_pipeline.search.milvus import index as milvus_index
from retrieval_pipeline.search.milvus.expressions import begins, filters_of, matching
from retrieval_pipeline.search.milvus.index import MilvusIndex
from retrieval_pipeline.search.near_duplicates import duplicate_groups, duplicates_json
from retrieval_pipeline.search.query import Query, Sort
from retrieval_pipeline.search.results import Answer
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.search.vector_index import VectorIndex
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline.web.app import create_app
from retrieval_pipeline.web.security import Access
from retrieval_pipeline_tests.support.web import BASE
from synthetic.random_questions import WORDS, Pictures, Words
from synthetic.tables import content, random_vectors, write_manifest, write_part

pytest.importorskip("milvus_lite")

QUESTIONS = 30


@pytest.fixture(scope="module", autouse=True)
def _few_towns() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patched:
        # Reading all towns takes seconds.
        patched.setattr(places, "ALL_TOWNS", 15_000)
        yield


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    return Pictures()


@pytest.fixture(scope="module")
def build(pictures: Pictures, tmp_path_factory: pytest.TempPathFactory) -> Build:
    return pictures.build(tmp_path_factory.mktemp("home"))


@pytest.fixture(scope="module")
def settings(client: Client, build: Build) -> Settings:
    """Settings by which the pictures are published."""
    return settings_of(build.path.parents[2], client.where, "pictures")


def settings_of(home: Path, uri: str, collection: str) -> Settings:
    engine = IndexSettings(
        engine="milvus", uri=uri, timeout=20, collection=collection, index_type="FLAT"
    )
    return Settings(home=home, index=engine)


@pytest.fixture(scope="module")
def both(client: Client, build: Build, settings: Settings, pictures: Pictures) -> list[Searcher]:
    """The same pictures, embedded and in Milvus."""
    pictures.publish(Store(settings.home), client, settings.index)
    indexes = (EmbeddedIndex(build), MilvusIndex(client, served(client, settings)))
    return [Searcher(settings, index, Words(16)) for index in indexes]  # type: ignore[arg-type]


def told(answer: Answer) -> tuple[object, ...]:
    """What must be exactly the same."""
    hits = [replace(hit, score=None, relevance=None) for hit in answer.hits]
    return hits, answer.notes, answer.filtered_out, answer.verdict


def numbers(answer: Answer) -> list[list[float]]:
    """Scores and relevance, whose last bits depend on the order of products."""
    return [[hit.score or 0.0, hit.relevance or 0.0] for hit in answer.hits]


def test_random_questions_have_the_same_answers(pictures: Pictures, both: list[Searcher]) -> None:
    found = 0
    for _ in range(QUESTIONS):
        asked = pictures.query()
        k, offset = pictures.random.choice(((5, 0), (20, 0), (7, 13)))
        query = Query.of(asked)
        embedded, milvus = (searcher.answer(query, k, offset) for searcher in both)
        assert told(milvus) == told(embedded), (asked, k, offset)
        assert_allclose(numbers(milvus), numbers(embedded), atol=1e-3, err_msg=str(asked))
        found += len(embedded.hits)
    assert found > 3 * QUESTIONS


@pytest.mark.parametrize("sort", ["newest", "oldest", "name"])
def test_a_list_by_date_is_found_by_counting_wherever_it_begins(
    sort: Sort, both: list[Searcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Milvus does not sort: beyond a few pictures the dates where a page ends are bisected."""
    monkeypatch.setattr(listing, "SORTED_HERE", 5)
    embedded, milvus = (searcher.index for searcher in both)
    expected = embedded.records(embedded.listing(None, sort))
    for offset in (0, 30, 90, len(embedded) - 7, len(embedded)):
        found = milvus.records(milvus.listing(None, sort, offset, 20))
        assert found == expected[offset : offset + 20]


def test_a_search_goes_on_where_one_answer_of_the_engine_ends(
    both: list[Searcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MOST_ROWS", 20)
    monkeypatch.setattr(reader, "BATCH", 40)
    wanted = Query(text="dog", plus=("snow",), minus=("3*cat",), literal=True)
    for query in (wanted, replace(wanted, formats=("jpg",), sources=("a",))):
        embedded, milvus = (searcher.answer(query, 100, 20) for searcher in both)
        assert told(milvus) == told(embedded)
        assert_allclose(numbers(milvus), numbers(embedded), atol=1e-3)
        assert len(embedded.hits) >= 20


@pytest.mark.parametrize(("read_here", "folder"), [(0, ""), (1_000, "2019")])
def test_what_there_is_to_choose_from_is_counted_alike(
    read_here: int, folder: str, both: list[Searcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of many pictures by the engine, value by value; a few are read and counted here."""
    monkeypatch.setattr(facets, "MOST_COUNTED", 1_000)
    monkeypatch.setattr(facets, "SECONDS", 600.0)
    monkeypatch.setattr(facets, "READ_HERE", read_here)
    for query in (Query(), Query(years=(2018,)), Query(formats=("jpeg",), sources=("b",))):
        embedded, milvus = (
            searcher.index.facets(searcher.allowed(query), folder) for searcher in both
        )
        # Milvus has paths in one of the two forms of Unicode.
        composed = {normalize("NFC", name): n for name, n in embedded.folders.items()}
        assert milvus == replace(embedded, folders=composed)
    assert sum(embedded.formats.values()) > 10


def test_what_was_not_counted_is_said(
    both: list[Searcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    index = both[1].index
    selection = both[1].allowed(Query(min_rating=3))
    whole = index.facets(selection, "100%")
    monkeypatch.setattr(facets, "READ_HERE", 0)
    monkeypatch.setattr(facets, "SECONDS", -1.0)
    late = index.facets(selection, "a_b")
    assert (late.formats, late.notes[0][:37]) == ({}, "The engine took too long to count all")
    # What was left out in haste is counted the next time.
    monkeypatch.setattr(facets, "SECONDS", 600.0)
    monkeypatch.setattr(facets, "MOST_COUNTED", 1)
    some = index.facets(selection, "a_b")
    assert some.years == whole.years
    assert len(some.sources) == 1
    assert some.notes == (
        "Only those sources, cameras, places are counted that most of all pictures have.",
    )


def test_new_pictures_are_those_that_an_earlier_publication_had_not(
    client: Client, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, client.where, "grown")
    had = {}
    for count in (6, 9, 12):
        pictures = Pictures(seed=4, count=count)
        report = pictures.publish(pictures.write(tmp_path), client, settings.index)
        index = Searcher.open(settings).index
        had[report.info.build] = contents(index, None)
    assert index.added_since(settings, "a build of files") is None
    for build, contents_then in had.items():
        assert contents(index, index.added_since(settings, build)) == (
            had[report.info.build] - contents_then
        )


def contents(index: VectorIndex, selection: object) -> set[str]:
    return {each.content_id for each in index.records(index.listing(selection, "name"))}


def test_all_views_of_a_picture_count_also_those_that_no_search_returned(
    both: list[Searcher], pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "MORE_ROWS", 0)
    with_views = [content(name) for name in pictures.names[:6]]
    for wanted, unwanted in itertools.permutations(WORDS[:4], 2):
        query = Query(text=wanted, minus=(f"3*{unwanted}",), literal=True)
        found = []
        for searcher in both:
            vectors, among = searcher.query_vectors([query]), searcher.index.having(with_views)
            (best,) = searcher.index.rank([query], vectors, [among], 2)
            records = searcher.index.records(best.items)
            regions = [searcher.index.view_of(row) for row in best.rows.tolist()]
            found.append(([each.content_id for each in records], regions, best.scores))
        assert found[1][:2] == found[0][:2]
        assert_allclose(found[1][2], found[0][2], atol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize(
    "filters",
    [
        {
            "paths": ("*[13579].*", "2019/*"),
            "sources": ("b",),
            "min_rating": 1,
            "file_after": datetime(2018, 1, 1, tzinfo=UTC),
        },
        {"near": "52, 13", "within_km": 3_000},
    ],
    ids=["path", "distance"],
)
def test_more_than_can_be_looked_at_before_is_looked_at_in_the_order_of_the_answer(
    filters: dict[str, Any], both: list[Searcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    # Fresh searchers, which remember no selection.
    embedded, milvus = (Searcher(each.settings, each.index, each.encoder) for each in both)
    query = Query(text="dog", minus=("cat",), literal=True, **filters)
    looked_at = both[1].allowed(query)
    monkeypatch.setattr(milvus_index, "MOST_LOOKED_AT", 0)
    monkeypatch.setattr(listing, "SORTED_HERE", 7)
    monkeypatch.setattr(ranking, "BATCH", 8)
    for each in (query, replace(query, min_relevance=0.3), replace(query, sort="newest")):
        for k, offset in ((4, 0), (500, 2)):
            expected = embedded.answer(each, k, offset)
            assert told(milvus.answer(each, k, offset)) == told(expected)
    listed = Query(sort="newest", **filters)
    expected = embedded.answer(listed, 9, 1)
    assert told(milvus.answer(listed, 9, 1)) == told(expected)
    assert expected.hits
    unlooked = milvus.allowed(query)
    assert milvus.index.facets(unlooked).notes == (facets.NOT_COUNTED,)
    vector = milvus.query_vectors([query])[0].wanted
    found = [milvus.index.nearest(vector, 4, among).tolist() for among in (looked_at, unlooked)]
    assert found[1] == found[0]
    assert found[0]


def test_a_ranking_is_read_until_nothing_below_can_be_better(
    both: list[Searcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ranking, "MORE_ROWS", 0)
    for wanted, unwanted in itertools.permutations(WORDS[:4], 2):
        query = Query(text=wanted, minus=(f"0.2*{unwanted}",), literal=True)
        found = []
        for searcher in both:
            (best,) = searcher.index.rank([query], searcher.query_vectors([query]), [None], 2)
            found.append([each.content_id for each in searcher.index.records(best.items)])
        assert found[1] == found[0]


def test_a_circle_over_the_line_of_dates_has_no_bounds_to_the_east_and_west() -> None:
    bounds = []
    for near in ("-17, 179.9", "-17, 170"):
        query = Query(near=near, within_km=100)
        _, (check,) = filters_of(query, knows_facts=True, cameras=(), lenses=())
        bounds.append("longitude" in check.candidates)
    assert bounds == [False, True]


def test_lists_of_more_pictures_than_an_expression_takes_are_filters(
    both: list[Searcher], pictures: Pictures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(milvus_index, "MOST_LISTED", 3)
    query = Query(text="dog", literal=True)
    ids = {content(name) for name in pictures.names[::3]}
    for many in ("having", "lacking"):
        answers = [
            searcher.answer(query, 30, among=getattr(searcher.index, many)(ids))
            for searcher in both
        ]
        assert told(answers[1]) == told(answers[0])
        assert answers[0].hits


def test_what_is_too_much_to_be_read_is_refused(
    both: list[Searcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader, "MOST_LOOKED_AT", 10)
    with pytest.raises(QueryError, match="narrow the search"):
        both[1].search(Query(text="dog", sources=("a",)), 20)
    with pytest.raises(QueryError, match="too many to sort"):
        both[1].search(Query(sort="name"))


@pytest.mark.parametrize(
    ("glob", "expression", "is_exact"),
    [
        ("a*b?.jpg", 'path like "a%b_.jpg"', True),
        ("100%_?", r'path like "100\\%\\__"', True),
        ('we"ird', r'path == "we\"ird"', True),
        ("[[]x]", 'path == "[x]"', True),
        ("[!a-z]x", 'path like "_x"', False),
        ("a\\b?", 'path like "a_b_"', False),
        ("[open?", 'path like "[open_"', True),
        ("cafe\u0301", 'path == "caf\u00e9"', True),
        ("100%/*", '(path >= "100%/") and (path < "100%/\U0010ffff")', True),
        ("*", 'id != ""', True),
    ],
)
def test_a_glob_becomes_an_expression_that_matches_no_less(
    glob: str, expression: str, is_exact: bool
) -> None:
    assert matching("path", glob) == (expression, is_exact)


def test_an_engine_is_asked_for_no_more_than_it_reads_in_patterns() -> None:
    assert matching("path", "*100%_[%]", "wildcards") == ('path like "%100___"', False)
    assert matching("path", "a*.jpg", "none") == (begins("path", "a"), False)
    assert matching("path", "*.jpg", "none") == ('id != ""', False)


def test_a_pattern_with_an_escape_holds_beside_a_condition_on_an_array(
    both: list[Searcher],
) -> None:
    query = Query(paths=("100%/*", "a_b/*"), formats=("jpeg",), sort="name")
    embedded, milvus = (searcher.answer(query, 100) for searcher in both)
    assert told(milvus) == told(embedded)
    assert embedded.hits


def test_names_and_folders_are_found_as_they_are_spelt(
    both: list[Searcher], pictures: Pictures
) -> None:
    embedded, milvus = (searcher.index.file_names for searcher in both)
    (name,) = embedded.named(pictures.names[3])
    assert milvus.named(name) == milvus.named(pictures.names[3]) == [name]
    assert milvus.like("picture0001", 3) == sorted(milvus.like("picture0001", 3))
    assert milvus.folders("2019/Lisbon") == embedded.folders("2019/Lisbon")
    assert milvus.folders("nowhere") == []


def test_a_searcher_follows_the_alias_and_answers_on_if_that_cannot_be_opened(
    client: Client, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path, client.where, "served")
    with pytest.raises(EngineError, match='nothing is published as "served" yet'):
        Searcher.open(settings)
    pictures = Pictures(seed=4, count=12)
    pictures.publish(pictures.write(tmp_path), client, settings.index)
    searcher = Searcher.open(settings)
    assert searcher.latest() is searcher
    elsewhere = searcher.settings.model_copy(update={"home": tmp_path / "elsewhere"})
    with pytest.raises(NotOnEngineError, match="run it where `retrieval index` runs"):
        _ = Searcher.open(elsewhere).whole
    pictures = Pictures(seed=4, count=9)
    pictures.publish(pictures.write(tmp_path), client, settings.index)
    latest = searcher.latest()
    assert len(latest.index) < len(searcher.index)
    client.delete(about_name(served(client, settings)), filter='id == "info"')
    assert latest.latest() is latest
    with pytest.raises(EngineError, match="published by another version"):
        Searcher.open(settings)


@pytest.mark.slow
def test_a_searcher_that_is_kept_says_that_its_collection_was_filled_anew(
    client: Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings, store = settings_of(tmp_path, client.where, "kept"), Store(tmp_path)
    space, names = VectorSpace("offline", "r1", 16, "p"), [f"n{number}" for number in range(12)]
    write_part(store, space, "a", names, random_vectors(len(names), 16))

    def publish_some(first: int, last: int, client: Client = client) -> None:
        write_manifest(store, "a", {f"{name}.jpg": name for name in names[first:last]})
        publish(store, client, space, ["a"], settings.index)

    query = Query(like=(content("n5"),))
    publish_some(0, 8)
    kept = Searcher.open(settings)
    before = kept.search(query, 50)
    publish_some(0, 9)
    assert kept.search(query, 50) == before
    with monkeypatch.context() as patched:
        patched.setattr(Client, "flush", lambda *_, **__: 1 / 0, raising=False)
        with pytest.raises(ZeroDivisionError):
            publish_some(4, 11)
    for _ in ("filled in part", "filled"):
        with pytest.raises(EngineError, match="published anew since it was opened"):
            kept.search(query, 50)
        with pytest.raises(EngineError, match="published anew since it was opened"):
            kept.relevant_items(query)
        with pytest.raises(EngineError, match="published anew since it was opened"):
            _ = kept.corpus
        publish_some(4, 11)
    latest = kept.latest()
    assert {hit.content_id for hit in latest.search(query, 50)} == {
        content(name) for name in names[4:11] if name != "n5"
    }
    # Two threads that ask have one copy of the vectors.
    assert latest.index.corpus(settings) is latest.index.corpus(settings)


def test_an_engine_that_is_away_is_one_line(tmp_path: Path) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        where = f"http://127.0.0.1:{unused.getsockname()[1]}"
        settings = settings_of(tmp_path, where, "pictures")
        short = settings.index.model_copy(update={"timeout": 2.0})
        with pytest.raises(EngineError, match="the engine is not there") as raised:
            Searcher.open(settings.model_copy(update={"index": short}))
    assert "\n" not in str(raised.value)


def test_a_recommender_looks_at_a_sample_and_at_what_is_near_the_votes(
    both: list[Searcher], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        MilvusIndex, "sample_items", lambda index, among: index.listing(among, "name", 0, 12)
    )
    # A machine that did not publish them has no tables.
    settings = both[1].settings.model_copy(update={"home": tmp_path})
    searcher = Searcher(settings, both[1].index, both[1].encoder)
    recommender = Recommender(searcher, "animals")
    assert "the tables are not here" in recommender.note
    shown = []
    for number in range(8):
        picture = recommender.next()
        assert picture is not None
        shown.append(picture.content_id)
        recommender.vote(picture, number % 2 == 0)
    ranking = recommender.ranking(1_000)
    assert len({picture.content_id for picture in ranking} - {*shown}) == len(ranking) > 12
    assert [picture.score for picture in ranking] == sorted(
        (picture.score for picture in ranking if picture.score is not None), reverse=True
    )
    recommender = Recommender(searcher, "animals", sources=["b"])
    assert recommender.likes == 4
    assert {picture.location.source for picture in recommender.ranking(100)} == {"b"}
    assert recommender.picture(content("unknown")) is None


@pytest.mark.parametrize("all_pairs", [20_000, 10])
def test_the_same_pictures_are_near_duplicates(
    all_pairs: int, both: list[Searcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Among many pictures, the engine proposes which ones to compare."""
    monkeypatch.setattr(near_duplicates, "ALL_PAIRS", all_pairs)
    monkeypatch.setattr(near_duplicates, "PROPOSED", 15)
    monkeypatch.setattr(Looks, "same", lambda *_: True)
    embedded, milvus = (
        duplicates_json(duplicate_groups(each.corpus, each.path_of, each.whole.looks, 0.8))
        for each in both
    )
    assert milvus == embedded
    assert max(map(len, embedded)) > 5


@pytest.mark.parametrize("compete", [False, True])
def test_words_mark_the_same_pictures(compete: bool, both: list[Searcher]) -> None:
    asked = LabelSettings(words=WORDS, compete=compete, min_relevance=1e-9)
    embedded, milvus = (update_labels(each, asked) for each in both)
    assert milvus.changed and milvus.items == embedded.items
    assert milvus.labels.table.equals(embedded.labels.table)
    assert sum(embedded.labels.counts.values()) > 10
    assert not update_labels(both[1], asked).changed


@pytest.mark.parametrize(
    ("query", "most"),
    [
        (Query(), None),
        (Query(paths=("*.nef",), sources=("a",)), None),
        (Query(text="dog", minus=("snow",), min_relevance=1e-9), None),
        (Query(text="dog", literal=True), 7),
    ],
)
def test_the_same_rows_are_exported(query: Query, most: int | None, both: list[Searcher]) -> None:
    embedded, milvus = (picture_table(each, query, most) for each in both)
    assert milvus.equals(embedded)
    assert len(embedded) > 6


def test_labelled_queries_judge_both_alike(both: list[Searcher], pictures: Pictures) -> None:
    folders = folder_queries(both[0].corpus)
    assert folder_queries(both[1].corpus) == folders
    # The folders are called otherwise than the few words that this encoder knows.
    queries = [replace(each, text=word) for each, word in zip(folders[:4], WORDS, strict=False)]
    queries += [
        LabelledQuery("dog snow", ("2019/*",)),
        LabelledQuery("car", ("nowhere.jpg",)),
        LabelledQuery("boat", ()),
        LabelledQuery("", ("copies/*",), like=content(pictures.names[2])),
    ]
    embedded, milvus = (evaluation_json(evaluate(each, queries)) for each in both)
    assert milvus.pop("build") != embedded.pop("build")
    assert milvus == embedded


def test_a_map_of_what_is_like_a_word_is_the_same(both: list[Searcher]) -> None:
    asked = Query(text="dog", sources=("a",))
    embedded, milvus = (
        drawing_to_order(each, asked, count=40, clusters=3, progress=Quiet()) for each in both
    )
    assert_array_equal(milvus.scores, embedded.scores)
    assert_array_equal(milvus.latent.coordinates, embedded.latent.coordinates)
    assert (milvus.paths, milvus.facts.keys()) == (embedded.paths, embedded.facts.keys())
    assert milvus.latent.info.clusters == embedded.latent.info.clusters


@pytest.mark.parametrize("most", [1_000_000, 30])
def test_a_recommender_chooses_from_the_tables(
    most: int, both: list[Searcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recommend_pictures, "PICTURES", most)
    sessions = []
    for name, searcher in zip(("files", "tables"), both, strict=True):
        recommender = Recommender(searcher, f"{name}{most}", sources=["a"])
        for number in range(6):
            picture = recommender.next()
            assert picture is not None
            recommender.vote(picture, number % 2 == 0)
        sessions.append([each.content_id for each in recommender.ranking(200)])
    if most > len(both[1].index):
        assert sessions[0] == sessions[1] and not recommender.note
        return
    assert 10 < len(sessions[1]) < 30
    assert recommender.note == "a sample of 30 of 129 pictures is looked at"
    # What was judged stays among them.
    again = Recommender(both[1], "files30")
    assert (again.likes, again.gone) == (3, 0)


def test_the_page_answers_without_index_files_and_without_tables(
    both: list[Searcher], settings: Settings, tmp_path: Path
) -> None:
    access = Access()
    settings = settings.model_copy(update={"home": tmp_path})
    with TestClient(create_app(lambda: settings, access), base_url=BASE) as client:
        client.headers["x-retrieval-token"] = access.csrf_token
        listed = client.get("/api/search", params={"sort": "newest", "k": 5}).json()
        content_id = listed["hits"][2]["content_id"]
        embedded = both[0].index
        newest = embedded.records(embedded.listing(None, "newest", 0, 5))
        assert [hit["content_id"] for hit in listed["hits"]] == [each.content_id for each in newest]
        like = client.get("/api/search", params={"like": content_id, "source": "b"}).json()
        assert {hit["source"] for hit in like["hits"]} == {"b"}
        page = client.get("/?sort=name")
        assert page.status_code == HTTPStatus.OK
        # What needs the files of an index is not offered.
        assert 'href="/vote"' in page.text and 'data-all="zip"' in page.text
        assert not any(each in page.text for each in ('"/map"', '"/duplicates"', '"twins"'))
        assert client.get(f"/picture/{content_id}").status_code == HTTPStatus.OK
        vote = {"name": "page", "content_id": content_id, "liked": True}
        assert client.post("/api/judgements", json=vote).json()["liked"] == 1
        assert client.get("/duplicates").status_code == HTTPStatus.NOT_IMPLEMENTED
        assert client.get("/map").status_code == HTTPStatus.NOT_FOUND


def test_a_page_says_that_the_engine_does_not_answer_and_when_to_ask_again(tmp_path: Path) -> None:
    settings = settings_of(tmp_path, str(tmp_path / "engine.db"), "nothing")
    with TestClient(create_app(lambda: settings, Access()), base_url=BASE) as client:
        answer = client.get("/api/search")
    assert answer.status_code == HTTPStatus.SERVICE_UNAVAILABLE
    assert int(answer.headers["retry-after"]) > 0
    assert "nothing is published" in answer.json()["detail"]
