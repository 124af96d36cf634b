"""Everything as people run it: `dagster dev` with its daemon, asked through GraphQL.

One process serves all tests of this module; the directory it watches is looked at every second.
"""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.storage.content_id import content_id_of_file
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline_tests.support.dagster_dev import ROOT, DagsterDev, eventually

pytestmark = pytest.mark.slow

ASSETS = {
    "file_manifest",
    "image_embeddings",
    "picture_facts",
    "retrieval_index",
    "latent_map",
    "saved_query",
    "recommender",
    "judgements",
}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Settings with a directory that is not there yet."""
    directory = tmp_path_factory.mktemp("dagster")
    pictures = directory / "pictures"
    file = directory / "retrieval.toml"
    text = settings_text([("pictures", pictures)], model="offline", home="home")
    saved = '[[saved_queries]]\nname = "launches"\ntext = "a rocket launch"\n'
    file.write_text(f"{text}{saved}[schedule]\nwatch_seconds = 1\n")
    return file


@pytest.fixture(scope="module")
def dev(config: Path) -> Iterator[DagsterDev]:
    home = config.parent / "dagster-home"
    home.mkdir()
    shutil.copy(ROOT / "deploy" / "dagster.yaml", home)
    with DagsterDev(config, home) as running:
        yield running


def runs_by_status(dev: DagsterDev) -> dict[str, list[str]]:
    """Return the ids of all runs, by status."""
    data = dev.ask(
        "{runsOrError {... on Runs {results {runId status}}}}",
    )
    statuses: dict[str, list[str]] = {}
    for run in data["runsOrError"]["results"]:
        statuses.setdefault(run["status"], []).append(run["runId"])
    return statuses


def test_the_assets_and_their_checks_are_there_and_what_runs_by_itself_is_on(
    dev: DagsterDev,
) -> None:
    data = dev.ask(
        """{
            assetNodes {
                assetKey {path}
                assetChecksOrError {... on AssetChecks {checks {name blocking}}}
            }
            sensorsOrError(repositorySelector: {
                repositoryName: "__repository__", repositoryLocationName: "retrieval_pipeline"
            }) {... on Sensors {results {name sensorState {status}}}}
            schedulesOrError(repositorySelector: {
                repositoryName: "__repository__", repositoryLocationName: "retrieval_pipeline"
            }) {... on Schedules {results {name scheduleState {status}}}}
        }"""
    )
    assert {node["assetKey"]["path"][0] for node in data["assetNodes"]} == ASSETS
    blocking = {
        check["name"]
        for node in data["assetNodes"]
        for check in node["assetChecksOrError"]["checks"]
        if check["blocking"]
    }
    assert blocking == {"source_is_whole", "vectors_are_unit", "rows_agree", "recall_is_enough"}
    sensors = data["sensorsOrError"]["results"]
    assert {each["name"]: each["sensorState"]["status"] for each in sensors} == {
        "watch": "RUNNING",
        "lost_runs": "RUNNING",
        "follow_new_data": "RUNNING",
    }
    schedules = data["schedulesOrError"]["results"]
    assert {each["name"]: each["scheduleState"]["status"] for each in schedules} == {
        "nightly": "RUNNING",
        "saved_queries": "STOPPED",
    }


def test_pictures_that_appear_are_found_without_anyone_doing_anything(
    dev: DagsterDev, config: Path, sample_photos: dict[str, Path]
) -> None:
    # The directory is not there at first, as of a disk that nobody has plugged in: no run starts.
    assert runs_by_status(dev) == {}
    arriving = config.parent / "arriving"
    arriving.mkdir()
    for name in ("cat", "coffee", "rocket"):
        shutil.copy(sample_photos[name], arriving)
    arriving.rename(config.parent / "pictures")
    store = Store(load_settings(config).home)
    seen = store.saved_query("launches")

    def indexed() -> bool | None:
        return (store.current_build() is not None and len(open_current(store)) == 3) or None

    def hits() -> set[str] | None:
        return set(json.loads(seen.read_text())["hits"]) if seen.exists() else None

    eventually(indexed, "the pictures are indexed")
    rocket = content_id_of_file(sample_photos["rocket"])
    assert rocket in eventually(hits, "the saved query is asked")


def test_when_all_is_done_it_is_quiet_and_nothing_failed(dev: DagsterDev) -> None:
    def quiet() -> dict[str, list[str]] | None:
        statuses = runs_by_status(dev)
        return statuses if set(statuses) <= {"SUCCESS", "FAILURE"} else None

    assert "FAILURE" not in eventually(quiet, "all runs are over")
    checks = dev.ask(
        """{assetNodes {assetChecksOrError {... on AssetChecks {checks {
            name executionForLatestMaterialization {status}
        }}}}}"""
    )
    statuses = {
        check["name"]: check["executionForLatestMaterialization"]["status"]
        for node in checks["assetNodes"]
        for check in node["assetChecksOrError"]["checks"]
        if check["executionForLatestMaterialization"]
    }
    # These warn of what the pictures are like.
    for name in ("nothing_new", "most_are_dated"):
        assert statuses.pop(name, "SUCCEEDED") in ("SUCCEEDED", "FAILED")
    assert set(statuses.values()) == {"SUCCEEDED"}
    assert {"rows_agree", "recall_is_enough", "vectors_are_unit"} <= set(statuses)
