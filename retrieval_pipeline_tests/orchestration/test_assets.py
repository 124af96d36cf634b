"""The Dagster definitions, run on a real ephemeral instance."""

import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import dagster as dg
import pyarrow.parquet as pq
import pytest
from dagster._core.definitions.data_version import CachingStaleStatusResolver, StaleStatus
from dagster._core.events import StepMaterializationData
from dagster._core.loader import LoadingContextForTest

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.encoders.base import Encoder
from retrieval_pipeline.encoders.from_settings import describe_encoder, load_settings_encoder
from retrieval_pipeline.errors import SettingsError
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.history import Pruned, prune
from retrieval_pipeline.orchestration.partitions import all_partitions
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.pipeline import run
from retrieval_pipeline.pipeline.run import index_sources
from retrieval_pipeline.storage.store import Store

pytestmark = pytest.mark.slow

QUIET = {"loggers": {"console": {"config": {"log_level": "ERROR"}}}}


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory, sample_photos: dict[str, Path]) -> Path:
    """Settings with two sources, "animals" and "things"."""
    directory = tmp_path_factory.mktemp("orchestration")
    for source, names in {"animals": ["cat"], "things": ["coffee", "rocket"]}.items():
        (directory / source).mkdir()
        for name in names:
            shutil.copy(sample_photos[name], directory / source)
    file = directory / "retrieval.toml"
    sources = [("animals", directory / "animals"), ("things", directory / "things")]
    saved = '[[saved_queries]]\nname = "launches"\ntext = "a rocket launch"\nk = 1\n'
    text = settings_text(sources, model="offline", home="home")
    bad = '[[saved_queries]]\nname = "bad"\nimages = ["nowhere.jpg"]\n'
    file.write_text(f"{text}{saved}min_relevance = 0\n{bad}")
    return file


@pytest.fixture(scope="module")
def definitions(config: Path) -> dg.Definitions:
    return build_definitions(load_settings(config), LibraryResource(config_file=str(config)))


@pytest.fixture(scope="module")
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as ephemeral:
        yield ephemeral


@pytest.fixture(scope="module")
def loads() -> list[Encoder]:
    """Filled with each model that `reindexed` loads."""
    return []


@pytest.fixture(scope="module")
def reindexed(
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    loads: list[Encoder],
) -> dg.ExecuteInProcessResult:
    def load(settings: Settings, *more: int) -> Encoder:
        loads.append(load_settings_encoder(settings, *more))
        return loads[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run, "load_settings_encoder", load)
        return reindex(definitions, instance)


def reindex(
    definitions: dg.Definitions, instance: dg.DagsterInstance, *sources: str
) -> dg.ExecuteInProcessResult:
    """Run the job over these sources, or over all of them."""
    ops = {"reindex": {"config": {"sources": list(sources)}}}
    return definitions.resolve_job_def("reindex_job").execute_in_process(
        instance=instance, run_config={**QUIET, "ops": ops}, raise_on_error=False
    )


def metadata(
    result: dg.ExecuteInProcessResult, asset: str, partition: str | None = None
) -> dict[str, object]:
    # Of several partitions in one run, the last event of each is its own.
    found = materialisations(result, asset)
    if partition not in found:
        raise AssertionError(f"{asset} was not materialised for {partition}")
    return {name: value.value for name, value in found[partition].metadata.items()}


def materialisations(
    result: dg.ExecuteInProcessResult, asset: str
) -> dict[str | None, dg.AssetMaterialization]:
    """Return the last event of each partition of an asset."""
    found = [
        event.step_materialization_data.materialization
        for event in result.all_events
        if event.is_step_materialization
    ]
    return {each.partition: each for each in found if each.asset_key == dg.AssetKey(asset)}


def test_definitions_load_without_torch_or_transformers(config: Path) -> None:
    code = (
        "import sys\n"
        "from retrieval_pipeline.definitions import defs\n"
        "import dagster as dg\n"
        "dg.Definitions.validate_loadable(defs)\n"
        "sys.exit('heavy' if {'torch', 'transformers'} & set(sys.modules) else 0)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "RETRIEVAL_CONFIG": str(config)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr


def test_bad_settings_are_the_error_of_the_location(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "retrieval.toml"
    file.write_text("modle = 1\n")
    monkeypatch.setenv("RETRIEVAL_CONFIG", str(file))
    with pytest.raises(SettingsError, match="modle: unknown key"):
        importlib.import_module("retrieval_pipeline.definitions")


def test_each_source_is_a_partition(definitions: dg.Definitions) -> None:
    asset = definitions.resolve_assets_def("file_manifest")
    assert asset.partitions_def is not None
    assert asset.partitions_def.get_partition_keys() == ["animals", "things"]


def test_without_settings_the_assets_are_there_and_have_no_partitions() -> None:
    definitions = build_definitions(Settings())
    dg.Definitions.validate_loadable(definitions)
    asset = definitions.resolve_assets_def("image_embeddings")
    assert asset.partitions_def is not None
    assert asset.partitions_def.get_partition_keys() == []


def test_one_run_brings_every_source_up_to_date(reindexed: dg.ExecuteInProcessResult) -> None:
    assert reindexed.success
    assert metadata(reindexed, "file_manifest", "animals")["dagster/partition_row_count"] == 1
    embeddings = metadata(reindexed, "image_embeddings", "things")
    assert embeddings["embedded"] == 2
    assert str(embeddings["pictures"]).startswith("![](data:image/png;base64,")
    assert len(str(embeddings["pictures"])) < 100_000
    facts = metadata(reindexed, "picture_facts", "things")
    assert (facts["dagster/partition_row_count"], facts["headers_read"]) == (2, 0)
    assert str(facts["summary"]).startswith("0 of 2 pictures are dated")
    assert facts["dates_from"] == {"file_time": 2, "none": 0}
    index = metadata(reindexed, "retrieval_index")
    assert index["dagster/row_count"] == 3
    assert index["model"] == "offline"
    assert (index["segments"], index["blocks"]) == (1, 1)


def test_a_run_over_all_sources_loads_the_model_once(
    reindexed: dg.ExecuteInProcessResult, loads: list[Encoder]
) -> None:
    assert metadata(reindexed, "image_embeddings", "animals")["embedded"] == 1
    assert metadata(reindexed, "image_embeddings", "things")["embedded"] == 2
    assert len(loads) == 1


def test_after_a_run_over_all_sources_nothing_is_stale(
    reindexed: dg.ExecuteInProcessResult, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    graph = definitions.resolve_asset_graph()
    resolver = CachingStaleStatusResolver(instance, graph, LoadingContextForTest(instance))
    for asset in ("file_manifest", "image_embeddings", "picture_facts"):
        for source in ("animals", "things"):
            status = resolver.get_status(dg.AssetKey(asset), source)
            assert status is StaleStatus.FRESH, (asset, source)
    for asset in ("retrieval_index", "latent_map"):
        assert resolver.get_status(dg.AssetKey(asset)) is StaleStatus.FRESH


def test_no_event_is_large(reindexed: dg.ExecuteInProcessResult) -> None:
    sizes = [len(dg.serialize_value(event)) for event in reindexed.all_events]
    assert max(sizes) < 100_000


def test_dagster_and_the_command_line_write_the_same_tables(
    reindexed: dg.ExecuteInProcessResult,
    loads: list[Encoder],
    config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(run, "load_settings_encoder", lambda *_: loads[0])
    settings = load_settings(config)
    twin = settings.model_copy(update={"home": tmp_path / "twin"})
    index_sources(twin)
    space = describe_encoder(settings).space
    for source in settings.source_names:
        for path in (
            lambda store, name=source: store.manifest(name),
            lambda store, name=source: store.parts(space, name)[0],
        ):
            ours, theirs = path(Store(settings.home)), path(Store(twin.home))
            assert pq.read_table(ours).equals(pq.read_table(theirs))


def test_a_run_that_finds_nothing_new_records_only_that_the_index_is_fresh(
    reindexed: dg.ExecuteInProcessResult, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    result = reindex(definitions, instance)
    assert metadata(result, "retrieval_index")["published"] is False
    for asset in ("file_manifest", "image_embeddings", "picture_facts"):
        assert materialisations(result, asset) == {}
    assert sum(len(dg.serialize_value(event)) for event in result.all_events) < 300_000
    # The checks of a source that was asked for are made anew.
    checked = reindex(definitions, instance, "animals").get_asset_check_evaluations()
    assert {each.partition for each in checked} == {"animals"}
    assert {each.check_name for each in checked} == {
        *("source_is_whole", "few_are_quarantined", "most_are_dated", "none_is_of_the_future"),
    }


def test_people_can_materialise_one_asset_of_one_source(
    reindexed: dg.ExecuteInProcessResult, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    keys = {dg.AssetKey("file_manifest"), dg.AssetKey("image_embeddings")}
    job = definitions.resolve_implicit_global_asset_job_def().get_subset(asset_selection=keys)
    result = job.execute_in_process(
        instance=instance, partition_key="animals", run_config=QUIET, raise_on_error=False
    )
    assert result.success
    assert metadata(result, "image_embeddings", "animals")["embedded"] == 0
    tags = [
        materialisations(each, "image_embeddings")["animals"].tags for each in (reindexed, result)
    ]
    for tag in ("dagster/data_version", "dagster/code_version"):
        assert tags[0][tag] == tags[1][tag]


def test_a_query_job_shows_its_hits_with_thumbnails(
    reindexed: dg.ExecuteInProcessResult, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    result = definitions.resolve_job_def("query_job").execute_in_process(
        instance=instance,
        run_config={**QUIET, "ops": {"query": {"config": {"text": "a rocket", "k": 2}}}},
    )
    output = next(event for event in result.all_events if event.is_successful_output)
    shown = output.step_output_data.metadata
    records = [record.data for record in shown["hits"].records]
    assert [record["rank"] for record in records] == [1, 2]
    assert str(records[0]["path"]).endswith("rocket.jpg")
    assert str(shown["pictures"].value).count("data:image/") == 2


def test_a_query_without_hits_is_no_failure(
    reindexed: dg.ExecuteInProcessResult, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    nothing = {"text": "a rocket", "path": ["*.tiff"]}
    result = definitions.resolve_job_def("query_job").execute_in_process(
        instance=instance, run_config={**QUIET, "ops": {"query": {"config": nothing}}}
    )
    output = next(event for event in result.all_events if event.is_successful_output)
    assert output.step_output_data.metadata["hits"].records == []


@pytest.mark.parametrize(
    ("config_of_query", "message"),
    [
        ({"text": ""}, "the query is empty"),
        ({"text": "x", "sources": ["y"]}, "no source"),
        ({"text": "x", "k": 0}, "k is 0: ask for at least one hit"),
        ({"image": "/nowhere.jpg"}, "/nowhere.jpg"),
        ({"text": "x", "albums": ["summer"]}, "summer"),
        ({"text": "x", "labels": ["invoice"]}, "invoice"),
        ({"like_albums": ["summer"]}, "summer"),
    ],
)
def test_a_query_job_that_cannot_answer_fails_with_one_line(
    reindexed: dg.ExecuteInProcessResult,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    config_of_query: dict[str, object],
    message: str,
) -> None:
    result = definitions.resolve_job_def("query_job").execute_in_process(
        instance=instance,
        run_config={**QUIET, "ops": {"query": {"config": config_of_query}}},
        raise_on_error=False,
    )
    failure = next(event for event in result.all_events if event.is_step_failure)
    description = failure.step_failure_data.user_failure_data.description
    assert message in description
    assert "\n" not in description


@pytest.mark.parametrize(
    ("job", "config_of_op", "message"),
    [
        ("query_job", {"query": {"txt": "a dog"}}, 'unexpected config entry "txt"'),
        ("query_job", {"query": {"k": "many"}}, 'Value "many" of type'),
        ("gc_job", {"gc": {"dry_run": 3}}, "not valid for expected type"),
        ("recommend_job", {"recommend": {}}, 'Missing required config entry "name"'),
    ],
)
def test_the_launchpad_refuses_a_configuration_that_cannot_be_in_one_line(
    definitions: dg.Definitions, job: str, config_of_op: dict[str, object], message: str
) -> None:
    ops = {name: {"config": config} for name, config in config_of_op.items()}
    with pytest.raises(dg.DagsterInvalidConfigError) as caught:
        definitions.resolve_job_def(job).execute_in_process(run_config={**QUIET, "ops": ops})
    lines = str(caught.value).strip().splitlines()
    assert message in lines[1]


@pytest.mark.parametrize(
    ("job", "partition"),
    [
        *((name, None) for name in ("reindex_job", "query_job", "verify_job", "gc_job")),
        ("saved_queries_job", "launches"),
    ],
)
def test_every_job_runs_with_what_the_launchpad_begins_with(
    reindexed: dg.ExecuteInProcessResult,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
    job: str,
    partition: str | None,
) -> None:
    found = definitions.resolve_job_def(job)
    assert found.execute_in_process(instance=instance, partition_key=partition).success


def output_metadata(result: dg.ExecuteInProcessResult) -> dict[str, object]:
    output = next(event for event in result.all_events if event.is_successful_output)
    return {name: value.value for name, value in output.step_output_data.metadata.items()}


def test_the_verify_job_passes_and_then_names_what_is_damaged(
    reindexed: dg.ExecuteInProcessResult,
    config: Path,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
) -> None:
    job = definitions.resolve_job_def("verify_job")
    sound = job.execute_in_process(instance=instance, run_config=QUIET)
    assert int(str(output_metadata(sound)["files"])) >= 6
    manifest = Store(load_settings(config).home).manifest("animals")
    whole = manifest.read_bytes()
    manifest.write_bytes(whole[:-3])
    try:
        result = job.execute_in_process(instance=instance, run_config=QUIET, raise_on_error=False)
    finally:
        manifest.write_bytes(whole)
    failure = next(event for event in result.all_events if event.is_step_failure)
    description = failure.step_failure_data.user_failure_data.description
    assert str(manifest) in description
    assert "retrieval verify --repair" in description


def test_the_gc_job_says_what_would_go_and_then_removes_it(
    reindexed: dg.ExecuteInProcessResult,
    config: Path,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
) -> None:
    store = Store(load_settings(config).home)
    former = store.manifest("former")
    shutil.copy(store.manifest("animals"), former)
    job = definitions.resolve_job_def("gc_job")
    dry = {**QUIET, "ops": {"gc": {"config": {"dry_run": True}}}}
    dry_run = job.execute_in_process(instance=instance, run_config=dry)
    assert former.exists()
    assert output_metadata(dry_run)["removed"] is False
    old = {**QUIET, "ops": {"gc": {"config": {"keep_runs_days": 0}}}}
    result = job.execute_in_process(instance=instance, run_config=old)
    assert not former.exists()
    assert "manifest/former.parquet" in str(output_metadata(result)["files"])
    # The history of what was made stays, else Dagster would not know the assets any more.
    assert instance.get_run_by_id(reindexed.run_id) is not None
    assert instance.get_run_by_id(dry_run.run_id) is None


def test_of_an_old_run_that_made_something_only_the_log_goes(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        job = build_definitions(Settings()).resolve_job_def("verify_job")
        made, idle = (instance.create_run_for_job(job) for _ in range(2))
        event = dg.AssetMaterialization("file_manifest", metadata={"rows": 3})
        data = StepMaterializationData(event)
        told = dg.DagsterEvent("ASSET_MATERIALIZATION", "verify_job", event_specific_data=data)
        instance.report_dagster_event(told, made.run_id)
        for run in (made, idle):
            instance.report_run_canceled(run)
        log = Path(instance.event_log_storage.path_for_shard(made.run_id))  # type: ignore[attr-defined]

        def pruned(age: timedelta = timedelta(), most: int = 9, *, dry_run: bool = False) -> Pruned:
            return prune(instance, {"verify_job"}, age, most, dry_run=dry_run)

        assert pruned(timedelta(days=1)) == Pruned(0, 0, 0)
        assert pruned(dry_run=True) == Pruned(1, 1, 0)
        assert len(instance.all_logs(made.run_id)) > 1
        size = log.stat().st_size
        # Not more than was allowed at once, the oldest first.
        assert pruned(most=1) == Pruned(0, 1, 1)
        assert pruned(most=1) == Pruned(1, 0, 0)
        assert log.stat().st_size <= size
        # Neither the run nor what it made is forgotten, also when somebody looks at the run.
        assert instance.all_logs(made.run_id) == []
        assert pruned() == Pruned(0, 0, 0)
        assert [each.run_id for each in instance.get_runs()] == [made.run_id]
        found = instance.get_latest_materialization_event(dg.AssetKey("file_manifest"))
        assert found is not None
        assert found.run_id == made.run_id


def test_a_saved_query_is_an_asset_with_its_hits_and_what_is_new(
    reindexed: dg.ExecuteInProcessResult,
    config: Path,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
) -> None:
    def ask() -> dg.ExecuteInProcessResult:
        return definitions.resolve_job_def("saved_queries_job").execute_in_process(
            instance=instance, partition_key="launches", run_config=QUIET
        )

    first = ask()
    shown = metadata(first, "saved_query", "launches")
    assert shown["dagster/partition_row_count"] == 1
    assert "rocket.jpg" in str(shown["hits"])
    assert first.get_asset_check_evaluations()[0].passed
    seen = Store(load_settings(config).home).saved_query("launches")
    text = json.loads(seen.read_text())
    seen.write_text(json.dumps({**text, "hits": {}}))
    second = ask()
    assert metadata(second, "saved_query", "launches")["new"] == 1
    (check,) = second.get_asset_check_evaluations()
    assert (check.check_name, check.passed) == ("nothing_new", False)
    assert check.severity is dg.AssetCheckSeverity.WARN


def test_a_saved_query_that_cannot_be_asked_keeps_no_other_from_it(
    reindexed: dg.ExecuteInProcessResult, definitions: dg.Definitions, instance: dg.DagsterInstance
) -> None:
    result = definitions.resolve_job_def("saved_queries_job").execute_in_process(
        instance=instance,
        tags=all_partitions(["launches", "bad"]),
        run_config=QUIET,
        raise_on_error=False,
    )
    assert not result.success
    assert set(materialisations(result, "saved_query")) == {"launches"}
    failure = result.failure_data_for_node("saved_query")
    assert failure is not None
    assert "nowhere.jpg" in str(failure.user_failure_data)


def test_a_source_that_is_away_fails_the_run_when_all_else_is_done(
    reindexed: dg.ExecuteInProcessResult,
    config: Path,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
) -> None:
    settings = load_settings(config)
    animals, things = settings.source("animals").path, settings.source("things").path
    before = Store(settings.home).manifest("animals").read_bytes()
    animals.rename(animals.with_name("unplugged"))
    shutil.copy(things / "coffee.png", things / "more.png")
    try:
        result = reindex(definitions, instance)
    finally:
        animals.with_name("unplugged").rename(animals)
        (things / "more.png").unlink()
    assert not result.success
    assert Store(settings.home).manifest("animals").read_bytes() == before
    assert metadata(result, "file_manifest", "things")["new"] == 1
    assert metadata(result, "retrieval_index")["files"] == 4
    whole = {
        each.partition: each.passed
        for each in result.get_asset_check_evaluations()
        if each.check_name == "source_is_whole"
    }
    assert whole == {"animals": False, "things": True}
    (run,) = instance.get_runs(limit=1)
    assert run.tags["retrieval/refused_sources"] == "animals"
    assert reindex(definitions, instance).success


def test_a_source_that_left_the_settings_leaves_the_index_and_comes_back_as_it_was(
    reindexed: dg.ExecuteInProcessResult,
    config: Path,
    definitions: dg.Definitions,
    instance: dg.DagsterInstance,
) -> None:
    before = open_current(Store(load_settings(config).home))
    text = config.read_text()
    animals = f'[[sources]]\nname = "animals"\npath = "{config.parent / "animals"}"\n'
    assert animals in text
    config.write_text(text.replace(animals, ""))
    try:
        fewer = build_definitions(load_settings(config), LibraryResource(config_file=str(config)))
        assert reindex(fewer, instance).success
        assert list(open_current(Store(load_settings(config).home)).info.sources) == ["things"]
    finally:
        config.write_text(text)
    back = reindex(definitions, instance)
    assert materialisations(back, "image_embeddings") == {}
    assert open_current(Store(load_settings(config).home)).path == before.path
