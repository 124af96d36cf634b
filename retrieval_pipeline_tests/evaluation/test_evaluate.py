import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from retrieval_pipeline.cli.main import cli
from retrieval_pipeline.encoders import load
from retrieval_pipeline.errors import EvaluationError
from retrieval_pipeline.evaluation import models
from retrieval_pipeline.evaluation.evaluate import difference, evaluate
from retrieval_pipeline.evaluation.labels import LabelledQuery, folder_queries, vote_queries
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.pipeline import run as pipeline
from retrieval_pipeline.recommend.votes import add_judgements
from retrieval_pipeline.search.embedded_index import EmbeddedIndex
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace
from retrieval_pipeline_tests.support.encoders import DESCRIPTION, MeanColour
from retrieval_pipeline_tests.support.library import settings_of
from synthetic.tables import content, random_vectors, write_manifest, write_part

DIM = 64
SPACE = VectorSpace("offline", "r1", DIM, "p")
THINGS = ("dog", "cat", "red_car", "snow")
DIRECTIONS = random_vectors(len(THINGS) + 1, DIM, seed=1)
WORDS = dict(zip([*THINGS, "piano"], DIRECTIONS, strict=True))


class Encoder:
    """Knows a few words; each has a direction of its own."""

    def encode_texts(self, texts: list[str]) -> Vectors:
        return np.stack([WORDS[text.replace(" ", "_").split("/")[0]] for text in texts])


@pytest.fixture(scope="module")
def searcher(tmp_path_factory: pytest.TempPathFactory) -> Searcher:
    """Five pictures of each of four things, in a folder each; one of "snow" looks like a cat."""
    home = tmp_path_factory.mktemp("evaluation") / "home"
    store = Store(home)
    names = [f"{thing}{number}" for thing in THINGS for number in range(5)]
    vectors = np.repeat(DIRECTIONS[:-1], 5, axis=0) + 0.1 * random_vectors(20, DIM, seed=2)
    vectors[-1] = vectors[5]
    vectors[-1, 0] += 0.2
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_manifest(store, "a", {f"{name[:-1]}/{name}.jpg": name for name in names})
    write_part(store, SPACE, "a", names, vectors.astype(np.float32))
    build_index(store, SPACE, ["a"], encode_texts=lambda texts: random_vectors(len(texts), DIM, 3))
    settings = settings_of(home, a=home.parent / "A")
    return Searcher(settings, EmbeddedIndex(open_current(store)), Encoder())  # type: ignore[arg-type]


def test_each_folder_s_name_asks_for_its_pictures(searcher: Searcher) -> None:
    queries = folder_queries(searcher.corpus)
    assert [query.text for query in queries] == ["cat", "dog", "red car", "snow"]
    found = evaluate(searcher, queries)
    assert found.queries == 4
    assert found.metrics["recall@1"].mean == 1
    assert 0.9 < found.metrics["mAP"].mean < 1
    assert found.worst[0].query.text == "snow"
    assert (found.missed, found.near) == (0, 19)
    assert (found.alarms, found.alarms_asked) == (1, 4)  # The cat among the pictures of snow.
    sure = found.reliability[-1]
    assert sure.right / sure.hits > 0.9


def test_paths_globs_and_names_say_what_is_right_and_unknown_ones_are_told(
    searcher: Searcher,
) -> None:
    labels = ("dog/dog0.jpg", "a/dog/dog1.jpg", "dog2.jpg", "dog/*3.jpg", "gone.jpg")
    found = evaluate(
        searcher,
        [
            LabelledQuery("dog", labels),
            LabelledQuery("cat", ("nowhere/*.jpg",)),
            LabelledQuery("piano", ()),
        ],
    )
    assert (found.queries, found.unanswerable, found.unknown) == (1, 1, 2)
    assert found.examples == ("gone.jpg", "nowhere/*.jpg")
    assert found.worst[0].meant == (5, 6, 7, 8)
    # The piano, and the dogs without those that are labelled: one is left.
    assert (found.alarms, found.alarms_asked) == (1, 2)
    with pytest.raises(EvaluationError, match=r"no query has a right answer .* gone\.jpg"):
        evaluate(searcher, [LabelledQuery("dog", ("gone.jpg",))])


def test_a_picture_that_is_liked_asks_for_the_others(searcher: Searcher) -> None:
    store = Store(searcher.settings.home)
    votes = [(content(f"dog{number}"), True) for number in range(3)]
    add_judgements(store, "dogs", [*votes, (content("cat0"), False)])
    found = evaluate(searcher, vote_queries(store, "dogs"))
    assert (found.queries, found.metrics["recall@5"].mean) == (3, 1)
    add_judgements(store, "few", votes[:1])
    with pytest.raises(EvaluationError, match="fewer than two"):
        vote_queries(store, "few")


def test_two_indexes_are_compared_by_the_queries_that_both_hold_answers_to(
    searcher: Searcher,
) -> None:
    queries = folder_queries(searcher.corpus)
    one = evaluate(searcher, queries)
    same = difference(one, one)
    assert same is not None
    assert all(each.low == each.mean == each.high == 0 for each in same.metrics.values())
    gone = replace(queries[0], relevant=(content("gone"),))
    without_cats = evaluate(searcher, [gone, *queries[1:]])
    found = difference(one, without_cats)
    assert found is not None
    # Of different queries in the same number, only those of the same place are paired.
    assert (found.queries, found.metrics["mAP"].mean) == (3, 0)
    assert found.means["mAP"][0] == pytest.approx(one.values[1:, -1].mean())
    assert difference(without_cats, evaluate(searcher, queries[:1])) is None


def test_the_command_prints_a_table_json_and_a_page(
    searcher: Searcher, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = tmp_path / "retrieval.toml"
    home = searcher.settings.home
    settings.write_text(
        f'home = "{home}"\nmodel = "offline"\n[[sources]]\nname = "a"\npath = "{home}-A"\n'
    )
    monkeypatch.setattr(Searcher, "open", lambda _: searcher)
    file, page = tmp_path / "queries.csv", tmp_path / "page.html"
    file.write_text("query,relevant\ndog,dog/*\nsnow,snow/*\nsnow,snow/*\n")
    asked = ["evaluate", str(file), "--config", str(settings)]
    run = CliRunner()
    done = run.invoke(cli, [*asked, "--page", str(page)])
    assert done.exit_code == 0, done.output
    assert "recall@10    1.000  1.000 to 1.000" in done.stdout
    assert "3 entries ask 2 different queries" in done.stderr
    html = page.read_text("utf-8")
    assert html.index("first right answer at rank 1") < html.index("what was meant")
    done = run.invoke(cli, [*asked, "--json"])
    assert done.exit_code == 0, done.exception
    (found,) = json.loads(done.stdout)
    assert found["queries"] == 2
    assert found["metrics"]["recall@1"] == {"mean": 1.0, "low": 1.0, "high": 1.0}
    assert found["index"] == {"right_in_exact_top_10": 9, "missed": 0}
    wrong = run.invoke(cli, ["evaluate", "--folders", *asked[1:]])
    assert (wrong.exit_code, "give one of FILE" in wrong.stderr) == (2, True)


class Colours(MeanColour):
    """Embeds pictures by their colour; what texts mean is random."""

    def encode_texts(self, texts: Sequence[str]) -> Vectors:
        return random_vectors(len(texts), self.dim, seed=4)


@pytest.mark.slow
def test_a_model_without_an_index_gets_one_that_does_not_take_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, thing in enumerate(("cat", "dog")):
        (tmp_path / "a" / thing).mkdir(parents=True)
        Image.new("RGB", (8, 8), (250 * number, 9, 9)).save(tmp_path / "a" / thing / "it.png")
    settings = tmp_path / "retrieval.toml"
    settings.write_text(
        'home = "home"\nmodel = "offline"\nprecision = "reference"\nworkers = 1\n'
        '[[sources]]\nname = "a"\npath = "a"\n'
    )
    for module in (pipeline, models):
        monkeypatch.setattr(module, "describe_encoder", lambda _: DESCRIPTION)
    monkeypatch.setattr(pipeline, "load_settings_encoder", lambda *_: Colours())
    monkeypatch.setattr(load, "load_text_encoder_of", lambda _: Colours().encode_texts)
    store = Store(tmp_path / "home")
    write_manifest(store, "a", {"cat/it.png": "cat"})
    write_part(store, SPACE, "a", ["cat"], random_vectors(1, DIM, 1))
    current = build_index(store, SPACE, ["a"]).build
    asked = ["evaluate", "--folders", "--model", "colour", "--config", str(settings)]
    run = CliRunner()
    missing = run.invoke(cli, asked)
    assert '"colour" has no index here: with --embed' in str(missing.exception)
    done = run.invoke(cli, [*asked, "--embed", "--json"])
    assert done.exit_code == 0, done.stderr
    (found,) = json.loads(done.stdout)
    assert (found["items"], found["queries"]) == (2, 2)
    assert store.current_build() == current != store.builds(DESCRIPTION.space)[-1]
