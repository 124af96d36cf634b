"""Queries that the settings keep: what is new, and who is told of it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.settings import SavedQuery, Settings
from retrieval_pipeline.errors import QueryError, SettingsError, StoreError
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.maintenance.verify import verify
from retrieval_pipeline.search.embedded_index import EmbeddedIndex
from retrieval_pipeline.search.saved_queries import SavedAnswer, run_saved_query
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace
from retrieval_pipeline_tests.support.engines import ENGINES, Engines
from retrieval_pipeline_tests.support.library import settings_of
from synthetic.tables import content, random_vectors, write_manifest, write_part

SPACE = VectorSpace("test", "r1", 16, "p")
DELIVERY = SavedQuery(name="door", text="a delivery at the door", k=3, min_relevance=0.0)


class Words:
    """Every text means the first axis."""

    def encode_texts(self, texts: list[str]) -> Vectors:
        return np.tile(np.eye(16, dtype=np.float32)[0], (len(texts), 1))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    settings = settings_of(tmp_path / "home", cam=tmp_path / "cam")
    index(settings, 5)
    return settings


def write(settings: Settings, count: int, *, first_axis: float = 0.3) -> Store:
    """Write the tables of `count` pictures; the last one is nearest to every text."""
    store = Store(settings.home)
    names = [f"n{number}" for number in range(count)]
    write_manifest(store, "cam", {f"{name}.jpg": name for name in names})
    vectors = random_vectors(count, 16, seed=1)
    vectors[:, 0] = np.linspace(0.1, first_axis, count)
    rest = vectors[:, 1:]
    rest *= np.sqrt(1 - vectors[:, :1] ** 2) / np.linalg.norm(rest, axis=1, keepdims=True)
    known = len(store.parts(SPACE))
    write_part(store, SPACE, "cam", names[known and count - 1 :], vectors[known and count - 1 :])
    return store


def index(settings: Settings, count: int, *, first_axis: float = 0.3) -> None:
    build_index(write(settings, count, first_axis=first_axis), SPACE, ["cam"])


def ask(settings: Settings, saved: SavedQuery = DELIVERY) -> SavedAnswer:
    searcher = Searcher(settings, EmbeddedIndex(open_current(Store(settings.home))), Words())  # type: ignore[arg-type]
    return run_saved_query(searcher, saved)


def new_in(found: SavedAnswer) -> list[str]:
    return [hit.content_id for hit in found.new.hits]


@pytest.mark.parametrize("engine", ENGINES)
def test_the_first_time_nothing_is_new_and_later_only_what_was_never_found(
    engine: str, engines: Engines, tmp_path: Path
) -> None:
    settings = settings_of(tmp_path / "home", cam=tmp_path / "cam")

    def asked(store: Store) -> SavedAnswer:
        index = engines.index(engine, store, SPACE, ["cam"])
        return run_saved_query(Searcher(settings, index, Words()), DELIVERY)  # type: ignore[arg-type]

    store = write(settings, 5)
    first = asked(store)
    assert len(first.answer.hits) == 3
    assert new_in(first) == []
    assert new_in(asked(store)) == []
    found = asked(write(settings, 6, first_axis=0.9))
    assert new_in(found) == [content("n5")]
    assert found.answer.hits[0].content_id == content("n5")
    assert new_in(asked(store)) == []


def test_where_nothing_was_found_the_first_hit_is_new(settings: Settings) -> None:
    strict = DELIVERY.model_copy(update={"paths": ("n5.jpg",)})
    assert ask(settings, strict).answer.hits == ()
    index(settings, 6, first_axis=0.9)
    assert new_in(ask(settings, strict)) == [content("n5")]


def test_a_source_that_is_not_indexed_yet_has_no_hits_and_its_first_ones_are_no_news(
    settings: Settings,
) -> None:
    new = DELIVERY.model_copy(update={"sources": ("garden",)})
    assert ask(settings, new).answer.hits == ()
    assert not Store(settings.home).saved_query("door").exists()
    assert (
        len(ask(settings, new.model_copy(update={"sources": ("garden", "cam")})).answer.hits) == 3
    )


def test_another_question_begins_anew(settings: Settings) -> None:
    ask(settings)
    index(settings, 6, first_axis=0.9)
    assert new_in(ask(settings, DELIVERY.model_copy(update={"text": "a parcel"}))) == []


def test_the_command_gets_the_news_as_json_and_only_news(
    settings: Settings, tmp_path: Path
) -> None:
    inbox = tmp_path / "inbox.json"
    code = f"import sys; open({str(inbox)!r}, 'w').write(sys.stdin.read())"
    saved = DELIVERY.model_copy(update={"notify": (sys.executable, "-c", code)})
    ask(settings, saved)
    assert not inbox.exists()
    index(settings, 6, first_axis=0.9)
    ask(settings, saved)
    told = json.loads(inbox.read_text())
    assert told["name"] == "door"
    assert [hit["content_id"] for hit in told["hits"]] == [content("n5")]


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ((sys.executable, "-c", "raise SystemExit('no mail today')"), "failed: no mail today"),
        (("/no/such/command",), "did not run"),
        (("sh", "-c", "printf 'no \\377 mail' >&2; exit 1"), "failed: no . mail"),
    ],
)
def test_news_that_could_not_be_told_are_news_again(
    settings: Settings, command: tuple[str, ...], message: str
) -> None:
    ask(settings)
    index(settings, 6, first_axis=0.9)
    with pytest.raises(QueryError, match=message):
        ask(settings, DELIVERY.model_copy(update={"notify": command}))
    assert new_in(ask(settings)) == [content("n5")]


def test_what_a_query_found_is_verified_and_named_when_damaged(settings: Settings) -> None:
    ask(settings)
    file = Store(settings.home).saved_query("door")
    assert not [finding for finding in verify(Store(settings.home)) if finding.problem]
    file.write_text("{")
    problems = [finding.problem for finding in verify(Store(settings.home)) if finding.problem]
    assert [str(file) in str(problem) for problem in problems] == [True]
    with pytest.raises(StoreError, match="the query begins anew"):
        ask(settings)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('name = "x"', "asks for nothing"),
        ('name = "x"\ntext = "y"\nsources = ["z"]', 'saved query "x": there is no source "z"'),
        ('name = "x/y"\ntext = "y"', "is not allowed"),
        (
            'name = "x"\ntext = "y"\n[[saved_queries]]\nname = "X"\ntext = "y"',
            'two saved queries are named "x"',
        ),
        ('name = "x"\ntext = "y"\nmin_relevanc = 1', "did you mean `min_relevance`?"),
    ],
)
def test_a_saved_query_that_cannot_be_is_refused(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "retrieval.toml"
    file.write_text(f"[[saved_queries]]\n{text}\n")
    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    assert message in str(caught.value)


def test_a_picture_of_a_saved_query_is_relative_to_the_settings(tmp_path: Path) -> None:
    file = tmp_path / "retrieval.toml"
    file.write_text('[[saved_queries]]\nname = "x"\nimages = ["door.jpg"]\n')
    assert load_settings(file).saved_query("x").images == (tmp_path / "door.jpg",)
