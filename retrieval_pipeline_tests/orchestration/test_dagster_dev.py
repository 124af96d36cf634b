"""Everything as people run it: `dagster dev` with its daemon, asked through GraphQL and a browser.

One process serves all tests of this module; the directory it watches is looked at every second.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.index.build import open_current
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
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, sample_photos: dict[str, Path]) -> Path:
    """Settings with a directory of two photographs."""
    directory = tmp_path_factory.mktemp("dagster")
    pictures = directory / "pictures"
    pictures.mkdir()
    for name in ("cat", "coffee"):
        shutil.copy(sample_photos[name], pictures)
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


def test_a_new_file_is_found_without_anyone_doing_anything(
    dev: DagsterDev, config: Path, sample_photos: dict[str, Path]
) -> None:
    store = Store(load_settings(config).home)

    def indexed(count: int) -> bool | None:
        return (store.current_build() is not None and len(open_current(store)) == count) or None

    eventually(lambda: indexed(2), "what was there is indexed")
    shutil.copy(sample_photos["rocket"], config.parent / "pictures")
    eventually(lambda: indexed(3), "the new file is indexed")
    done = subprocess.run(
        [sys.executable, "-m", "retrieval_pipeline", "query", "a rocket launch", "--json"],
        env={**os.environ, "RETRIEVAL_CONFIG": str(config), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert Path(json.loads(done.stdout)["hits"][0]["path"]).name == "rocket.jpg"


def test_when_all_is_done_it_is_quiet_and_nothing_failed(dev: DagsterDev, config: Path) -> None:
    seen = Store(load_settings(config).home).saved_query("launches")

    def rocket_is_news() -> bool | None:
        return (seen.exists() and len(json.loads(seen.read_text())["hits"]) >= 1) or None

    def quiet() -> dict[str, list[str]] | None:
        statuses = runs_by_status(dev)
        return statuses if set(statuses) <= {"SUCCESS", "FAILURE"} else None

    eventually(rocket_is_news, "the saved query has found the new file")
    assert "FAILURE" not in eventually(quiet, "all runs are over")


def test_a_run_can_be_launched_from_the_launchpad(dev: DagsterDev) -> None:
    data = dev.ask(
        """mutation ($params: ExecutionParams!) {
            launchRun(executionParams: $params) {
                __typename
                ... on LaunchRunSuccess {run {runId}}
                ... on PythonError {message}
                ... on RunConfigValidationInvalid {errors {message}}
            }
        }""",
        params={
            "selector": {
                "repositoryName": "__repository__",
                "repositoryLocationName": "retrieval_pipeline",
                "jobName": "reindex_job",
            },
            "runConfigData": {"ops": {"reindex": {"config": {"rehash": True}}}},
        },
    )
    assert data["launchRun"]["__typename"] == "LaunchRunSuccess", data
    run = data["launchRun"]["run"]["runId"]

    def ended() -> str | None:
        status = dev.ask("query ($id: ID!) {runOrError(runId: $id) {... on Run {status}}}", id=run)[
            "runOrError"
        ]["status"]
        return str(status) if status in ("SUCCESS", "FAILURE", "CANCELED") else None

    assert eventually(ended, "the run is over") == "SUCCESS"
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
    assert statuses.pop("nothing_new") in ("SUCCEEDED", "FAILED")
    assert set(statuses.values()) == {"SUCCEEDED"}
    assert {"rows_agree", "recall_is_enough", "vectors_are_unit"} <= set(statuses)


@pytest.mark.skipif(CHROMIUM is None, reason="Chromium is not installed")
def test_the_graph_shows_every_asset_in_a_browser(dev: DagsterDev, tmp_path: Path) -> None:
    sync_api = pytest.importorskip("playwright.sync_api")
    picture = Path(os.environ.get("ASSET_GRAPH_PNG") or tmp_path / "graph.png")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 900})
        page.goto(f"{dev.url}/asset-groups", timeout=120_000)
        for asset in sorted(ASSETS):
            page.get_by_text(asset, exact=True).first.wait_for(timeout=120_000)
        page.wait_for_timeout(1_000)
        page.screenshot(path=str(picture))
        browser.close()
    assert picture.stat().st_size > 20_000
