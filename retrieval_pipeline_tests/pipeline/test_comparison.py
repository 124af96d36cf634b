"""A change of model is judged by labelled queries; the models here know four words."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from retrieval_pipeline.config.settings import EvaluationSettings, Settings
from retrieval_pipeline.encoders import load
from retrieval_pipeline.errors import EncoderError, EvaluationError
from retrieval_pipeline.evaluation import models
from retrieval_pipeline.evaluation.evaluate import evaluate
from retrieval_pipeline.evaluation.labels import folder_queries
from retrieval_pipeline.evaluation.models import open_newest
from retrieval_pipeline.index.builder import BuildReport, RefusedBuildError
from retrieval_pipeline.index.milvus.publication import PublicationReport
from retrieval_pipeline.pipeline.publish import answering_build, update_index
from retrieval_pipeline.pipeline.run import update_sources
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace
from retrieval_pipeline_tests.support.engines import ENGINES, Engines
from retrieval_pipeline_tests.support.library import settings_of
from retrieval_pipeline_tests.support.milvus import without_waiting
from synthetic.tables import random_vectors, write_manifest, write_part

DIM = 32
THINGS = ("dog", "cat", "car", "snow")
DIRECTIONS = random_vectors(len(THINGS), DIM, seed=1)
NAMES = [f"{thing}{number}" for thing in THINGS for number in range(3)]
OLD = VectorSpace("old", "r1", DIM, "p")


class Encoder:
    """Gives each thing its direction, and other texts random ones."""

    def encode_texts(self, texts: list[str]) -> Vectors:
        vectors = random_vectors(len(texts), DIM, seed=2)
        for number, text in enumerate(texts):
            if text in THINGS:
                vectors[number] = DIRECTIONS[THINGS.index(text)]
        return vectors


@pytest.fixture(params=ENGINES)
def settings(
    request: pytest.FixtureRequest,
    engines: Engines,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Settings]:
    """Three pictures of each thing in its folder; the model "old" of the current index is right."""
    settings = settings_of(tmp_path / "home", a=tmp_path / "a")
    if request.param == "milvus":
        index = engines.settings_of(Store(settings.home)).index
        settings = settings.model_copy(update={"index": index})
    write_manifest(Store(settings.home), "a", {f"{name[:-1]}/{name}.jpg": name for name in NAMES})
    monkeypatch.setattr(load, "load_text_encoder_of", lambda space: Encoder().encode_texts)
    evaluated = settings.model_copy(update={"evaluation": EvaluationSettings(folders=True)})
    with without_waiting():
        change_model(evaluated, "old", THINGS)
        yield evaluated


def change_model(
    settings: Settings, model: str, shown: Sequence[str]
) -> BuildReport | PublicationReport:
    """Embed with a model that takes the pictures of each thing for what stands in its place."""
    directions = DIRECTIONS[[THINGS.index(thing) for thing in shown]]
    vectors = np.repeat(directions, 3, axis=0) + 0.1 * random_vectors(len(NAMES), DIM, seed=3)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    space = VectorSpace(model, "r1", DIM, "p")
    store = Store(settings.home)
    if not store.parts(space):
        write_part(store, space, "a", NAMES, vectors.astype(np.float32))
    return update_index(settings, space, Encoder)  # type: ignore[arg-type]


WRONG = ("cat", "dog", "snow", "car")


def test_a_model_that_answers_worse_does_not_take_over(settings: Settings) -> None:
    before = answering_build(settings)
    with pytest.raises(RefusedBuildError) as error:
        change_model(settings, "worse", WRONG)
    said = str(error.value)
    assert len(said.splitlines()) == 1
    assert "with worse and 1.000 with old (4 labelled queries; difference -" in said
    assert "`tolerance` = 0.02 of [evaluation]" in said
    assert answering_build(settings) == before
    # Nothing is left of the refused one.
    assert len(Store(settings.home).all_builds()) == (0 if settings.has_engine else 1)
    # Who wants it all the same, raises the tolerance or leaves out the table.
    lenient = EvaluationSettings(folders=True, tolerance=1)
    raised = settings.model_copy(update={"evaluation": lenient})
    assert change_model(raised, "worse", WRONG).published


def test_a_model_that_answers_as_well_takes_over_and_the_index_says_so(settings: Settings) -> None:
    report = change_model(settings, "new", THINGS)
    assert report.published
    check = {check.name: check for check in report.info.checks}["answers_as_well"]
    assert check.found.startswith("nDCG@10 is 1.000 with new and 1.000 with old (4 labelled")


def test_one_worse_answer_of_four_may_be_chance(settings: Settings) -> None:
    assert change_model(settings, "new", (*THINGS[:3], "dog")).published


def test_an_index_of_another_model_is_also_judged_when_it_exists_already(
    settings: Settings,
) -> None:
    change_model(settings.model_copy(update={"evaluation": None}), "worse", WRONG)
    better = change_model(settings, "old", THINGS)
    assert better.published
    with pytest.raises(RefusedBuildError, match=r"1\.000 with old"):
        change_model(settings, "worse", WRONG)
    assert answering_build(settings) == better.build


def test_what_cannot_answer_any_more_keeps_no_model_away(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(space: VectorSpace) -> Encoder:
        raise EncoderError(f"{space.model} is gone")

    monkeypatch.setattr(load, "load_text_encoder_of", gone)
    report = change_model(settings, "worse", WRONG)
    assert report.published
    assert report.info.checks[-1].found.endswith("cannot be asked labelled queries: old is gone")


def test_labels_that_cannot_be_read_stop_a_change_of_model_before_it_embeds(
    settings: Settings, tmp_path: Path
) -> None:
    labels = EvaluationSettings(file=tmp_path / "gone.toml")
    broken = settings.model_copy(update={"evaluation": labels, "max_shrink": 1.0})
    (tmp_path / "a").mkdir()
    with pytest.raises(EvaluationError, match=r"gone\.toml: No such file"):
        update_sources(broken)


def test_the_newest_index_of_a_model_is_asked_whichever_answers(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    unjudged = settings.model_copy(update={"evaluation": None})
    change_model(unjudged, "worse", WRONG)
    described = SimpleNamespace(space=OLD)
    monkeypatch.setattr(models, "describe_encoder", lambda _: described)
    former = open_newest(settings)
    assert former.index.info.model == "old"
    assert evaluate(former, folder_queries(former.corpus)).metrics["MRR"].mean == 1
    described.space = VectorSpace("unknown", "r1", DIM, "p")
    with pytest.raises(EvaluationError, match="has no index here"):
        open_newest(settings)
