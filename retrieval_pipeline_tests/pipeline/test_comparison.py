"""A change of model is judged by labelled queries; the models here know four words."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from retrieval_pipeline.config.settings import EvaluationSettings, Settings
from retrieval_pipeline.encoders import load
from retrieval_pipeline.errors import EncoderError, EvaluationError
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.index.builder import BuildReport, RefusedBuildError
from retrieval_pipeline.pipeline.publish import update_index
from retrieval_pipeline.pipeline.run import update_sources
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace
from retrieval_pipeline_tests.support.library import settings_of
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


@pytest.fixture
def settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """Three pictures of each thing in its folder; the model "old" of the current build is right."""
    settings = settings_of(tmp_path / "home", a=tmp_path / "a")
    write_manifest(Store(settings.home), "a", {f"{name[:-1]}/{name}.jpg": name for name in NAMES})
    monkeypatch.setattr(load, "load_text_encoder_of", lambda space: Encoder().encode_texts)
    evaluated = settings.model_copy(update={"evaluation": EvaluationSettings(folders=True)})
    change_model(evaluated, "old", THINGS)
    return evaluated


def change_model(settings: Settings, model: str, shown: Sequence[str]) -> BuildReport:
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
    before = open_current(Store(settings.home)).path
    with pytest.raises(RefusedBuildError) as error:
        change_model(settings, "worse", WRONG)
    said = str(error.value)
    assert len(said.splitlines()) == 1
    assert "with worse and 1.000 with old (4 labelled queries; difference -" in said
    assert "`tolerance` = 0.02 of [evaluation]" in said
    store = Store(settings.home)
    assert store.all_builds() == [before] == [store.current_build()]
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
    assert Store(settings.home).current_build() == better.build


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
