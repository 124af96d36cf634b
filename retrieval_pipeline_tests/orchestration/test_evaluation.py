"""The asset of the evaluation, and the check of a new model, on a real ephemeral instance."""

from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.encoders import load
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.orchestration import assets
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace
from synthetic.tables import random_vectors, write_manifest, write_part

pytestmark = pytest.mark.slow

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
THINGS = ("cat", "dog", "snow")
NAMES = [f"{thing}{number}" for thing in THINGS for number in range(3)]


def encode(texts: list[str]) -> Vectors:
    """Give the three things directions that fit the vocabulary's dimension, others random ones."""
    directions = random_vectors(len(THINGS), 384, seed=1)
    vectors = random_vectors(len(texts), 384, seed=2)
    for number, text in enumerate(texts):
        if text in THINGS:
            vectors[number] = directions[THINGS.index(text)]
    return vectors


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An index of nine pictures, three of each thing; the labels are the folders' names."""
    for thing in THINGS:
        (tmp_path / "a" / thing).mkdir(parents=True)
    for number, name in enumerate(NAMES):
        Image.new("RGB", (9, 9), (20 * number, 9, 0)).save(
            tmp_path / "a" / name[:-1] / f"{name}.png"
        )
    file = tmp_path / "retrieval.toml"
    text = settings_text([("a", tmp_path / "a")], model="offline", home="home")
    file.write_text(text + "[evaluation]\nfolders = true\n")
    store = Store(tmp_path / "home")
    write_manifest(store, "a", {f"{name[:-1]}/{name}.png": name for name in NAMES})
    former = VectorSpace("former", "r1", 384, "p")
    write_part(store, former, "a", NAMES, np.repeat(encode(list(THINGS)), 3, axis=0))
    build_index(store, former, ["a"], encode_texts=encode)
    monkeypatch.setattr(load, "load_text_encoder_of", lambda space: encode)
    encoder = SimpleNamespace(encode_texts=encode)
    monkeypatch.setattr(assets, "load_settings_encoder", lambda *_: encoder)
    return file


def run(config: Path, instance: dg.DagsterInstance, asset: str) -> dg.ExecuteInProcessResult:
    library = LibraryResource(config_file=str(config))
    job = build_definitions(load_settings(config), library).resolve_implicit_global_asset_job_def()
    return job.get_subset(asset_selection={dg.AssetKey(asset)}).execute_in_process(
        instance=instance, run_config=QUIET, raise_on_error=False
    )


def test_an_evaluation_has_numbers_to_plot_and_is_the_same_for_the_same_index(
    config: Path, instance: dg.DagsterInstance
) -> None:
    told, versions = [], []
    for _ in range(2):
        result = run(config, instance, "evaluation")
        (event,) = result.asset_materializations_for_node("evaluation")
        told.append({name: value.value for name, value in event.metadata.items()})
        versions.append((event.tags or {})["dagster/data_version"])
    plotted = ("recall_at_1", "recall_at_5", "recall_at_10", "mrr", "ndcg_at_10", "map")
    assert [told[0][name] for name in plotted] == [1.0] * 6
    assert (told[0]["index_misses"], told[0]["queries"], told[0]["model"]) == (0, 3, "former")
    assert 0 <= told[0]["false_alarms"] <= 1
    assert versions[0] == versions[1]


def test_without_labelled_queries_there_is_no_such_asset_and_no_such_check(config: Path) -> None:
    config.write_text(config.read_text().partition("[evaluation]")[0])
    graph = build_definitions(load_settings(config)).resolve_asset_graph()
    assert dg.AssetKey("evaluation") not in graph.get_all_asset_keys()
    assert "answers_as_well" not in {key.name for key in graph.asset_check_keys}


def test_a_new_model_that_answers_worse_fails_the_blocking_check(
    config: Path, instance: dg.DagsterInstance
) -> None:
    store = Store(config.parent / "home")
    before = store.current_build()
    space = describe_encoder(load_settings(config)).space
    wrong = encode(["dog", "snow", "cat"])
    write_part(store, space, "a", NAMES, np.repeat(wrong, 3, axis=0))
    result = run(config, instance, "retrieval_index")
    assert not result.success
    checks = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert {name: check.passed for name, check in checks.items()} == {
        "rows_agree": True,
        "recall_is_enough": True,
        "answers_as_well": False,
    }
    assert checks["answers_as_well"].blocking
    assert "and 1.000 with former" in str(checks["answers_as_well"].metadata["found"].value)
    assert store.current_build() == before
