"""Asset checks as Dagster records them, on a real ephemeral instance."""

import os
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import numpy as np
import pytest
from PIL import Image

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.errors import VectorError
from retrieval_pipeline.index import builder, inputs
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.ingest.embed import EmbedReport
from retrieval_pipeline.orchestration import assets, checks
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.flow import Flow
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest
from retrieval_pipeline.vectors import VectorSpace
from synthetic.tables import random_vectors, write_manifest, write_part

pytestmark = pytest.mark.slow

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
NAMES = [f"n{number}" for number in range(12)]


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings and a directory of twelve small pictures."""
    (tmp_path / "a").mkdir()
    for number, name in enumerate(NAMES):
        Image.new("RGB", (60, 40), (20 * number, 90, 0)).save(tmp_path / "a" / f"{name}.png")
    file = tmp_path / "retrieval.toml"
    file.write_text(settings_text([("a", tmp_path / "a")], model="offline", home="home"))
    return file


@pytest.fixture
def settings(config: Path) -> Settings:
    return load_settings(config)


@pytest.fixture
def space(settings: Settings) -> VectorSpace:
    return describe_encoder(settings).space


@pytest.fixture
def embedded(settings: Settings, space: VectorSpace, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store with random vectors for the pictures; no model is ever loaded."""
    store = Store(settings.home)
    write_manifest(store, "a", {f"{name}.png": name for name in NAMES})
    write_part(store, space, "a", NAMES, random_vectors(len(NAMES), space.dim))

    def encode(texts: list[str]) -> object:
        return random_vectors(len(texts), space.dim, seed=9)

    monkeypatch.setattr(
        assets, "load_settings_encoder", lambda *_: SimpleNamespace(encode_texts=encode)
    )
    return store


def run(
    config: Path, instance: dg.DagsterInstance, *names: str, partition: str | None = None
) -> dg.ExecuteInProcessResult:
    library = LibraryResource(config_file=str(config))
    defs = build_definitions(load_settings(config), library)
    keys = [dg.AssetKey(name) for name in names]
    return (
        defs.resolve_implicit_global_asset_job_def()
        .get_subset(asset_selection=set(keys))
        .execute_in_process(
            instance=instance, partition_key=partition, run_config=QUIET, raise_on_error=False
        )
    )


def found(result: dg.ExecuteInProcessResult) -> dict[str, dg.AssetCheckEvaluation]:
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


def test_a_source_that_shrank_fails_its_blocking_check_and_keeps_its_table(
    config: Path, settings: Settings, instance: dg.DagsterInstance
) -> None:
    result = run(config, instance, "file_manifest", partition="a")
    assert found(result)["source_is_whole"].passed
    for name in NAMES[:8]:
        (config.parent / "a" / f"{name}.png").unlink()
    result = run(config, instance, "file_manifest", partition="a")
    check = found(result)["source_is_whole"]
    assert not check.passed
    assert check.blocking
    assert check.partition == "a"
    assert "8 of 12 files are gone" in str(check.metadata["why"].value)
    assert not result.success
    assert len(read_manifest(Store(settings.home), "a")) == 12


def test_a_vector_that_is_not_of_unit_length_is_named(
    settings: Settings, space: VectorSpace
) -> None:
    store = Store(settings.home)
    good = write_part(store, space, "a", NAMES[:2], random_vectors(2, space.dim))
    assert checks.stored_vectors([good], space) == 2
    bad = write_part(store, space, "a", NAMES[2:4], 2 * random_vectors(2, space.dim))
    with pytest.raises(VectorError, match="vector 0 has length 2"):
        checks.stored_vectors([good, bad], space)


def test_an_index_shows_rows_and_recall_and_a_map_its_drift(
    config: Path, embedded: Store, instance: dg.DagsterInstance
) -> None:
    result = run(config, instance, "retrieval_index", "latent_map")
    assert result.success
    checked = found(result)
    assert set(checked) == {"rows_agree", "recall_is_enough", "map_is_steady"}
    assert all(check.passed for check in checked.values())
    assert "12 images" in str(checked["rows_agree"].metadata["found"].value)
    again = run(config, instance, "retrieval_index", "latent_map")
    assert found(again)["rows_agree"].metadata == checked["rows_agree"].metadata


def test_an_index_that_fails_its_check_is_not_published_and_nothing_follows(
    config: Path,
    embedded: Store,
    space: VectorSpace,
    instance: dg.DagsterInstance,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    run(config, instance, "retrieval_index", "latent_map")
    before = open_current(embedded).path
    write_part(embedded, space, "a", ["more"], random_vectors(1, space.dim, seed=5))
    write_manifest(embedded, "a", {f"{name}.png": name for name in [*NAMES, "more"]})
    whole = inputs.join(embedded, space, ["a"])
    located = whole.located.only(np.arange(len(whole)) < 5)
    short = replace(whole, keys=whole.keys[:5], rows=whole.rows[:5], located=located)
    monkeypatch.setattr(inputs, "join", lambda *_: short)
    result = run(config, instance, "retrieval_index", "latent_map")
    assert not result.success
    assert not found(result)["rows_agree"].passed
    assert not result.asset_materializations_for_node("retrieval_index")
    assert not result.asset_materializations_for_node("latent_map")
    failure = result.failure_data_for_node("retrieval_index")
    assert failure is not None
    assert "was not published, since the index holds 5 images" in str(failure.user_failure_data)
    assert open_current(embedded).path == before


def test_a_new_model_takes_over_in_dagster_when_it_has_embedded_everything(
    config: Path, embedded: Store, space: VectorSpace, instance: dg.DagsterInstance
) -> None:
    former = VectorSpace("former", "r1", 16, "p")
    write_part(embedded, former, "a", NAMES, random_vectors(len(NAMES), former.dim))
    builder.build_index(embedded, former, ["a"])
    (part,) = embedded.parts(space)
    away = part.rename(embedded.home / "away")

    def build() -> dict[str, object]:
        result = run(config, instance, "retrieval_index")
        (event,) = result.asset_materializations_for_node("retrieval_index")
        return {name: value.value for name, value in event.metadata.items()}

    waiting = build()
    assert waiting["model"] == "former"
    assert waiting["published"] is False
    assert waiting["kept"] == ("before offline can take over, it has images to embed: 12 of a")
    away.rename(part)
    assert build()["published"] is True
    assert open_current(embedded).info.model == "offline"


def is_fresh(config: Path, instance: dg.DagsterInstance) -> dg.AssetCheckEvaluation:
    library = LibraryResource(config_file=str(config))
    defs = build_definitions(load_settings(config), library)
    key = dg.AssetCheckKey(dg.AssetKey("file_manifest"), "is_fresh")
    job = dg.define_asset_job("freshness", selection=dg.AssetSelection.checks(key))
    resolved = dg.Definitions.merge(defs, dg.Definitions(jobs=[job])).resolve_job_def("freshness")
    result = resolved.execute_in_process(instance=instance, run_config=QUIET)
    (evaluation,) = result.get_asset_check_evaluations()
    return evaluation


def test_a_source_that_nobody_looked_at_for_long_is_not_fresh(
    config: Path, settings: Settings, instance: dg.DagsterInstance
) -> None:
    assert not is_fresh(config, instance).passed
    store = Store(settings.home)
    update_manifest(store, settings.source("a"))
    assert is_fresh(config, instance).passed
    long_ago = time.time() - 37 * 3600
    os.utime(store.manifest("a"), (long_ago, long_ago))
    assert not is_fresh(config, instance).passed
    update_manifest(store, settings.source("a"))
    assert is_fresh(config, instance).passed


def test_many_quarantined_images_of_one_source_are_a_warning_that_others_do_not_hide(
    settings: Settings,
) -> None:
    report = EmbedReport(
        source="a",
        files=10,
        companions=0,
        duplicates=0,
        known=0,
        embedded=8,
        quarantined=2,
        newly_quarantined=2,
        left=0,
        seconds=1.0,
    )
    found = checks.few_quarantined(Flow(), settings, report)
    assert (found.passed, found.partition) == (False, "a")
    assert found.severity is dg.AssetCheckSeverity.WARN
    tolerant = settings.model_copy(
        update={"checks": settings.checks.model_copy(update={"max_quarantined": 0.2})}
    )
    assert checks.few_quarantined(Flow(), tolerant, report).passed
