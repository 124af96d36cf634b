"""Recommenders as Dagster runs them, on a real ephemeral instance."""

from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._core.loader import LoadingContextForTest
from PIL import Image

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.index.builder import build_index
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.recommend.votes import add_judgements, undo_judgement
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.vectors import VectorSpace
from synthetic.tables import content, random_vectors, write_manifest, write_part

SPACE = VectorSpace("offline", "r1", 16, "p")
NAMES = [f"image{number}" for number in range(30)]
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Settings and an index of thirty small pictures; "pets" has ten votes of each kind."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number, name in enumerate(NAMES):
        Image.new("RGB", (60, 40), (8 * number, 90, 200)).save(pictures / f"{name}.png")
    store = Store(tmp_path / "home")
    write_manifest(store, "pictures", {f"{name}.png": name for name in NAMES})
    vectors = random_vectors(len(NAMES), SPACE.dim)
    write_part(store, SPACE, "pictures", NAMES, vectors)
    build_index(store, SPACE, ["pictures"])
    liked = vectors[:, 0] > 0
    votes = [(content(name), bool(good)) for name, good in zip(NAMES, liked, strict=True)]
    add_judgements(store, "pets", votes[:20])
    add_judgements(store, "few", votes[:2])
    file = tmp_path / "retrieval.toml"
    file.write_text(settings_text([("pictures", pictures)], model="offline", home="home"))
    return file


def definitions(config: Path) -> dg.Definitions:
    return build_definitions(load_settings(config), LibraryResource(config_file=str(config)))


def materialise(config: Path, instance: dg.DagsterInstance, name: str) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        [definitions(config).get_assets_def("recommender")],
        resources={"library": LibraryResource(config_file=str(config))},
        partition_key=name,
        instance=instance,
        run_config=QUIET,
        raise_on_error=False,
    )


def observe(config: Path, instance: dg.DagsterInstance) -> None:
    """Look at the votes as the sensor does, for the first time."""
    watch(config, instance, None)


def watch(
    config: Path, instance: dg.DagsterInstance, remembered: str | None
) -> SensorExecutionData:
    """Look at the votes as the sensor does, and record what it found."""
    context = dg.build_sensor_context(
        instance, remembered, resources={"library": LibraryResource(config_file=str(config))}
    )
    result = definitions(config).get_sensor_def("watch").evaluate_tick(context)
    for event in result.asset_events:
        instance.report_runless_asset_event(event)
    return result


def stale(config: Path, instance: dg.DagsterInstance, name: str) -> StaleStatus:
    graph = definitions(config).resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    return resolver.get_status(dg.AssetKey("recommender"), name)


def test_a_recommender_shows_how_well_it_predicts_and_what_it_likes(
    config: Path, instance: dg.DagsterInstance
) -> None:
    result = materialise(config, instance, "pets")
    assert result.success
    found = result.asset_materializations_for_node("recommender")[0]
    assert found.partition == "pets"
    metadata = {name: value.value for name, value in found.metadata.items()}
    assert metadata["votes"] == metadata["liked"] + metadata["not_liked"] == 20
    assert 0 <= metadata["cross_validated_accuracy"] <= 1
    assert 0 < metadata["cross_validated_average_precision"] <= 1
    assert metadata["not_in_the_index"] == 0
    assert metadata["best"].startswith("![](data:image/png;base64,")
    assert len(metadata["best"]) < 140_000


def test_a_recommender_with_too_few_votes_tells_what_is_missing(
    config: Path, instance: dg.DagsterInstance
) -> None:
    result = materialise(config, instance, "few")
    found = result.asset_materializations_for_node("recommender")[0].metadata
    assert 'recommender "few" cannot rank yet' in str(found["no_ranking"].value)
    assert "best" not in found


def test_a_recommender_is_stale_when_votes_or_index_change_and_only_then(
    config: Path, instance: dg.DagsterInstance
) -> None:
    store = Store(config.parent / "home")
    observe(config, instance)
    assert stale(config, instance, "pets") is StaleStatus.MISSING
    materialise(config, instance, "pets")
    observe(config, instance)
    assert stale(config, instance, "pets") is StaleStatus.FRESH
    add_judgements(store, "few", [(content("image9"), True)])
    observe(config, instance)
    assert stale(config, instance, "pets") is StaleStatus.FRESH
    undo_judgement(store, "pets")
    observe(config, instance)
    assert stale(config, instance, "pets") is StaleStatus.STALE
    materialise(config, instance, "pets")
    assert stale(config, instance, "pets") is StaleStatus.FRESH
    instance.report_runless_asset_event(
        dg.AssetMaterialization("retrieval_index", tags={"dagster/data_version": "another build"})
    )
    assert stale(config, instance, "pets") is StaleStatus.STALE


def test_new_votes_make_their_recommender_follow_and_no_other(
    config: Path, instance: dg.DagsterInstance
) -> None:
    defs = definitions(config)
    remembered: str | None = None
    cursor = None

    def changed() -> list[str | None]:
        """Return whose votes the sensor sees changed."""
        nonlocal remembered
        result = watch(config, instance, remembered)
        remembered = result.cursor
        return [event.partition for event in result.asset_events]

    def follow() -> set[str]:
        nonlocal cursor
        result = dg.evaluate_automation_conditions(defs, instance, cursor=cursor)
        cursor = result.cursor
        return {str(name) for name in result.get_requested_partitions(dg.AssetKey("recommender"))}

    assert changed() == ["few", "pets"]
    instance.report_runless_asset_event(dg.AssetMaterialization("retrieval_index"))
    for name in ("few", "pets"):
        instance.report_runless_asset_event(dg.AssetMaterialization("recommender", partition=name))
    follow()
    assert changed() == []
    assert follow() == set()
    add_judgements(Store(config.parent / "home"), "few", [(content("image9"), True)])
    assert changed() == ["few"]
    assert follow() == {"few"}


def test_partitions_are_the_recommenders_that_have_votes(config: Path) -> None:
    partitions = definitions(config).get_assets_def("recommender").partitions_def
    assert partitions is not None
    assert list(partitions.get_partition_keys()) == ["few", "pets"]


def test_definitions_load_before_anybody_voted(config: Path) -> None:
    for table in Store(config.parent / "home").all_judgements():
        table.unlink()
    dg.Definitions.validate_loadable(definitions(config))


def test_the_job_ranks_what_nobody_voted_on(config: Path, instance: dg.DagsterInstance) -> None:
    job = definitions(config).resolve_job_def("recommend_job")
    run_config = {"ops": {"recommend": {"config": {"name": "pets", "k": 5}}}, **QUIET}
    result = job.execute_in_process(instance=instance, run_config=run_config)
    output = next(
        event for event in result.all_events if event.event_type_value == "STEP_OUTPUT"
    ).step_output_data
    rows = [record.data for record in output.metadata["ranking"].records]
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert [row["score"] for row in rows] == sorted((row["score"] for row in rows), reverse=True)
    voted = {f"image{number}.png" for number in range(20)}
    assert not voted & {Path(str(row["path"])).name for row in rows}


def test_the_job_names_the_recommenders_there_are(
    config: Path, instance: dg.DagsterInstance
) -> None:
    job = definitions(config).resolve_job_def("recommend_job")
    run_config = {"ops": {"recommend": {"config": {"name": "cats"}}}, **QUIET}
    result = job.execute_in_process(instance=instance, run_config=run_config, raise_on_error=False)
    failure = result.failure_data_for_node("recommend")
    assert failure is not None
    assert "recommenders: few, pets" in str(failure.user_failure_data)
