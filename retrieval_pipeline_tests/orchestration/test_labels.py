"""The asset of the labels, on a real ephemeral instance, with a made-up encoder."""

from pathlib import Path

import dagster as dg
import numpy as np
import pytest

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.encoders import load
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.search.labels import read_labels
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import Vectors, VectorSpace
from synthetic.tables import random_vectors, write_manifest, write_part

pytestmark = pytest.mark.slow

SPACE = VectorSpace("test", "r1", 32, "p")
DOG = random_vectors(1, 32, seed=7)[0]


def encode(texts: list[str]) -> Vectors:
    vectors = random_vectors(len(texts), 32, seed=2)
    for number, text in enumerate(texts):
        if text == "dog":
            vectors[number] = DOG
    return vectors


def test_words_of_the_settings_are_labelled_and_counted(
    tmp_path: Path, instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").mkdir()
    file = tmp_path / "retrieval.toml"
    text = settings_text([("a", tmp_path / "a")], model="offline", home="home")
    file.write_text(f'{text}[labels]\nwords = ["dog", "spaceship"]\n')
    store, names = Store(tmp_path / "home"), [f"n{number}" for number in range(30)]
    write_manifest(store, "a", {f"{name}.png": name for name in names})
    vectors = random_vectors(len(names), 32, seed=1)
    vectors[:10] = DOG + 0.2 * vectors[:10]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    write_part(store, SPACE, "a", names, vectors)
    build_index(store, SPACE, ["a"], encode_texts=encode)
    monkeypatch.setattr(load, "load_text_encoder_of", lambda space: encode)
    library = LibraryResource(config_file=str(file))
    job = build_definitions(load_settings(file), library).resolve_implicit_global_asset_job_def()
    result = job.get_subset(asset_selection={dg.AssetKey("picture_labels")}).execute_in_process(
        instance=instance
    )
    (event,) = result.get_asset_materialization_events()
    told = {name: value.value for name, value in event.materialization.metadata.items()}
    labels = read_labels(store)
    assert labels is not None
    assert labels.counts["dog"] >= 10
    assert told["pictures"] == 30
    assert told["labels"] == len(labels.table)
    records = event.materialization.metadata["words"].records
    assert [record.data["word"] for record in records] == ["dog", "spaceship"]


def test_without_words_there_is_no_such_asset(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    file = tmp_path / "retrieval.toml"
    file.write_text(settings_text([("a", tmp_path / "a")], model="offline", home="home"))
    definitions = build_definitions(load_settings(file), LibraryResource(config_file=str(file)))
    keys = definitions.resolve_all_asset_keys()
    assert dg.AssetKey("retrieval_index") in keys
    assert dg.AssetKey("picture_labels") not in keys
