"""Hits in the order of dates and names, and queries whose words mean facts."""

import json
from datetime import datetime
from pathlib import Path

import numpy as np
import pytest

from retrieval_pipeline.config.settings import SavedQuery
from retrieval_pipeline.errors import QueryError
from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.search.query import Query
from retrieval_pipeline.search.relevance import LIKELY
from retrieval_pipeline.search.results import answer_json
from retrieval_pipeline.search.saved_queries import query_of, read_found, run_saved_query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import normalise
from retrieval_pipeline_tests.search.test_searcher import DIM, SPACE, WordEncoder, direction
from retrieval_pipeline_tests.support.engines import ENGINES, Engines
from retrieval_pipeline_tests.support.library import settings_of
from synthetic.tables import random_vectors, write_facts, write_manifest, write_part

DOGS, OTHERS = 30, 300


@pytest.fixture(scope="module", params=ENGINES)
def searcher(
    request: pytest.FixtureRequest, engines: Engines, tmp_path_factory: pytest.TempPathFactory
) -> Searcher:
    """Thirty dogs of thirty days, of which every third has no date, and 300 other pictures."""
    home = tmp_path_factory.mktemp("library")
    store = Store(home / "home")
    dogs = [f"{(7 * number) % DOGS:02d}.jpg" for number in range(DOGS)]
    others = [f"other/{number:03d}.jpg" for number in range(OTHERS)]
    noise = random_vectors(len(others), DIM, seed=3)
    noise[:, :5] *= 0.01
    dogs_vectors = np.stack(
        [
            normalise(direction("dog") + (0.2 + 0.01 * number) * direction("cat"))[0]
            for number in range(DOGS)
        ]
    )
    write_manifest(store, "a", {name: name for name in [*dogs, *others]})
    write_part(store, SPACE, "a", dogs + others, np.concatenate([dogs_vectors, normalise(noise)]))
    facts = {}
    for number, name in enumerate([*dogs, *others]):
        day = datetime(2019, 8, 1 + (11 * number) % 30, 12)
        camera = "Nikon D750" if number % 2 else "Canon EOS 5D"
        facts[name] = (
            PictureFacts(camera=camera)
            if number % 3 == 0
            else PictureFacts(day, 120, Origin.EXIF, camera=camera)
        )
    write_facts(store, "a", facts)
    settings = settings_of(home / "home", a=home / "A")
    index = engines.index(request.param, store, SPACE, ["a"])
    return Searcher(settings, index, WordEncoder())  # type: ignore[arg-type]


@pytest.mark.parametrize("sort", ["newest", "oldest", "name"])
def test_sorted_hits_are_the_relevant_ones_in_order_and_a_page_is_a_part_of_them(
    searcher: Searcher, sort: str
) -> None:
    query = Query.of({"text": "dog", "sort": sort})
    hits = searcher.search(query, 1_000)
    relevant = searcher.search(Query(text="dog", min_relevance=LIKELY), 1_000)
    assert DOGS <= len(hits) < 2 * DOGS
    assert {hit.content_id for hit in hits} == {hit.content_id for hit in relevant}
    if sort == "name":
        names = [hit.path.name for hit in hits]
        assert names == sorted(names)
    else:
        dates = [hit.facts.taken_at for hit in hits]
        known = [date for date in dates if date is not None]
        # What has no date comes last, whichever way.
        assert dates == known + [None] * (len(hits) - len(known))
        assert known == sorted(known, reverse=sort == "newest")
    assert searcher.search(query, 5) == hits[:5]
    assert searcher.search(query, 5, 3) == hits[3:8]


def test_an_order_without_words_lists_what_passes_the_filters(searcher: Searcher) -> None:
    answer = searcher.answer(Query(cameras=("nikon",), sort="oldest"), 1_000)
    assert {hit.facts.camera for hit in answer.hits} == {"Nikon D750"}
    assert len(answer.hits) == (DOGS + OTHERS) // 2
    assert {(hit.score, hit.relevance) for hit in answer.hits} == {(None, None)}
    assert answer_json(answer)["hits"][0]["score"] is None
    with pytest.raises(QueryError, match="the query is empty"):
        searcher.search(Query(cameras=("nikon",)))


def test_words_that_mean_facts_filter_and_are_told(searcher: Searcher) -> None:
    answer = searcher.answer(Query(text="dog in august 2019"), 100)
    filtered = searcher.answer(Query.of({"text": "dog", "on": "august 2019"}), 100)
    assert answer.hits == filtered.hits
    assert all(hit.facts.day for hit in answer.hits)
    found = answer_json(answer)
    assert found["query"] == "dog in august 2019"
    assert found["understood"] == [
        {
            "words": "in august 2019",
            "field": "on",
            "value": "august 2019",
            "meaning": "taken in august 2019 (2019-08-01 to 2019-08-31)",
        }
    ]
    assert found["hits"][0]["facts"]["taken_at"].endswith("T12:00:00+02:00")
    assert found["hits"][0]["facts"]["taken_from"] == "exif"
    # The answers to several queries each have their own.
    both = searcher.search_many([Query(text="cat"), Query(text="dog in august 2019")], 100)
    assert both[1] == list(answer.hits)


def test_words_that_are_all_facts_list_the_newest_first(searcher: Searcher) -> None:
    answer = searcher.answer(Query(text="nikon august 2019"), 1_000)
    assert [each.field for each in answer.understood] == ["on", "cameras"]
    dates = [hit.facts.taken_at for hit in answer.hits]
    assert dates == sorted(filter(None, dates), reverse=True)
    assert len(dates) == sum(
        hit.facts.taken_at is not None
        for hit in searcher.search(Query(cameras=("nikon",), sort="newest"), 1_000)
    )


def test_literal_words_and_those_whose_filter_is_set_stay_words(searcher: Searcher) -> None:
    query, understood = searcher.understand(Query(text="dog in august 2019", literal=True))
    assert (query.text, understood) == ("dog in august 2019", ())
    query, understood = searcher.understand(Query(text="dog in 2019", years=(2018,)))
    assert (query.text, understood) == ("dog in 2019", ())
    # Once read, what is left is not read again.
    query, _ = searcher.understand(Query(text="nikon in 2019"))
    assert searcher.understand(query) == (query, ())


def test_a_saved_query_takes_the_same_names_and_goes_on_where_an_earlier_version_left_it(
    searcher: Searcher, tmp_path: Path
) -> None:
    saved = SavedQuery.model_validate(
        {"name": "dogs", "text": "dog", "on": "august 2019", "cameras": ["nikon"], "within": "5 km"}
    )
    asked = {"text": "dog", "on": "august 2019", "camera": ["nikon"], "within": 5.0}
    assert query_of(saved) == Query.of(asked | {"min_relevance": saved.min_relevance})
    with pytest.raises(QueryError, match='saved query "dogs": "soon" is no date'):
        query_of(saved.model_copy(update={"after": "soon"}))
    store = Store(searcher.settings.home)
    plain = SavedQuery(name="plain", text="dog", min_relevance=0.9)
    run_saved_query(searcher, plain)
    found = read_found(store.saved_query("plain"))
    assert found is not None
    # As version 0.2 wrote it.
    assert json.loads(found.asked) == [
        {
            "name": "plain", "text": "dog", "images": [], "plus": [], "minus": [], "sources": [],
            "paths": [], "k": 20, "min_relevance": 0.9,
        },
        "offline",
    ]  # fmt: skip
