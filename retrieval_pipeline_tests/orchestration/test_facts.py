"""The asset of the facts alone, in process, without a model."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import dagster as dg
import pytest
from PIL import Image

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.ingest.crawl import update_manifest
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.storage.store import Store


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def test_the_facts_of_a_source_are_told_by_month_and_dates_of_the_future_are_found(
    instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    later = f"{datetime.now() + timedelta(days=400):%Y%m%d}_120000.png"
    for number, name in enumerate(("20190812_1.png", "20190813_1.png", "20200101_1.png", later)):
        Image.new("RGB", (8, 8), (90 * number // 2, 0, 0)).save(pictures / name)
    file = tmp_path / "retrieval.toml"
    file.write_text(settings_text([("pictures", pictures)], model="offline", home="home"))
    settings = load_settings(file)
    update_manifest(Store(settings.home), settings.sources[0])
    definitions = build_definitions(settings, LibraryResource(config_file=str(file)))
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(
        asset_selection={dg.AssetKey("picture_facts")}
    )
    result = job.execute_in_process(instance=instance, partition_key="pictures")
    (event,) = result.get_asset_materialization_events()
    told = {name: value.value for name, value in event.materialization.metadata.items()}
    assert (told["dated"], told["headers_read"]) == (4, 4)
    assert told["dates_from"] == {"file_name": 4, "none": 0}
    rows = str(told["by_month"]).splitlines()[2:]
    assert [row.split("|")[1:3] for row in rows[1:]] == [
        [" 2020-01 ", " 1 "],
        [" 2019-08 ", " 2 "],
    ]
    checks = {each.check_name: each for each in result.get_asset_check_evaluations()}
    assert checks["most_are_dated"].passed
    late = checks["none_is_of_the_future"]
    assert (late.passed, late.metadata["for_example"].value) == (False, later)
