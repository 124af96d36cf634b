"""Libraries within the Dagster project of somebody else."""

import shutil
from dataclasses import replace
from pathlib import Path
from runpy import run_path

import dagster as dg
from dagster.components.testing import create_defs_folder_sandbox

from retrieval_pipeline import RetrievalLibrary, load_settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.orchestration.component import RetrievalLibraryComponent
from retrieval_pipeline.storage.store import Store
from synthetic.tables import random_vectors, write_manifest, write_part

EXAMPLE = Path(__file__).parents[2] / "examples" / "dagster_project"


def library(folder: Path, name: str) -> RetrievalLibrary:
    (folder / name).mkdir()
    file = folder / f"{name}.toml"
    file.write_text(settings_text([("a", folder / name)], model="offline", home=f"home-{name}"))
    return RetrievalLibrary(
        config_file=file,
        name=name,
        key_prefix=[name],
        owners=["team:search"],
        tags={"domain": name},
        upstream=[dg.AssetKey("download")],
    )


def test_two_libraries_live_in_one_location_with_assets_and_an_executor_of_a_team(
    tmp_path: Path,
) -> None:
    one, two = library(tmp_path, "one"), library(tmp_path, "two")

    @dg.asset(automation_condition=dg.AutomationCondition.eager())
    def download() -> None: ...

    @dg.asset(deps=[one.key("retrieval_index"), two.key("latent_map")])
    def report() -> None: ...

    team = dg.Definitions(assets=[download, report], executor=dg.in_process_executor)
    defs = dg.Definitions.merge(one.definitions(), two.definitions(), team)
    defs = defs.map_asset_specs(func=lambda spec: spec.merge_attributes(kinds={"mapped"}))
    dg.Definitions.validate_loadable(defs)

    graph = defs.resolve_asset_graph()
    manifest = graph.get(dg.AssetKey(["one", "file_manifest"]))
    assert manifest.parent_keys == {dg.AssetKey("download")}
    assert manifest.owners == ["team:search"]
    assert manifest.tags["domain"] == "one"
    assert manifest.group_name == "retrieval"
    assert graph.get(dg.AssetKey("report")).parent_keys == {
        dg.AssetKey(["one", "retrieval_index"]),
        dg.AssetKey(["two", "latent_map"]),
    }
    # The automation of a library leaves the assets of others alone.
    selection = defs.get_sensor_def("one_follow_new_data").asset_selection
    assert selection is not None
    assert {key.path[0] for key in selection.resolve(graph)} == {"one"}


def test_a_team_may_keep_the_automation_to_itself(tmp_path: Path) -> None:
    defs = replace(library(tmp_path, "one"), automation=False).definitions()
    dg.Definitions.validate_loadable(defs)
    repository = defs.get_repository_def()
    assert not repository.sensor_defs
    assert not repository.schedule_defs


def test_the_example_reads_the_tables_of_its_library(
    tmp_path: Path, instance: dg.DagsterInstance
) -> None:
    here = shutil.copytree(EXAMPLE, tmp_path / "project")
    defs = run_path(str(here / "definitions.py"))["defs"]
    dg.Definitions.validate_loadable(defs)
    job = defs.resolve_implicit_global_asset_job_def()

    def materialise(asset: str) -> dg.ExecuteInProcessResult:
        return job.get_subset(asset_selection={dg.AssetKey(asset)}).execute_in_process(
            instance=instance
        )

    assert materialise("download").success
    settings = load_settings(here / "retrieval.toml")
    store, space = Store(settings.home), describe_encoder(settings).space
    write_manifest(store, "pictures", {"red.png": "red", "blue.png": "blue"})
    write_part(store, space, "pictures", ["red", "blue"], random_vectors(2, space.dim))
    (event,) = materialise("widest").asset_materializations_for_node("widest")
    assert isinstance(event.metadata["pixels"].value, int)


def test_the_component_reads_the_settings_beside_its_file(tmp_path: Path) -> None:
    with create_defs_folder_sandbox() as sandbox:
        path = sandbox.scaffold_component(
            component_cls=RetrievalLibraryComponent,
            defs_yaml_contents={
                "type": "retrieval_pipeline.orchestration.component.RetrievalLibraryComponent",
                "attributes": {"key_prefix": ["pictures"], "upstream": ["raw/download"]},
            },
        )
        text = settings_text([("a", tmp_path)], model="offline", home=str(tmp_path / "home"))
        (path / "retrieval.toml").write_text(text)
        with sandbox.load_component_and_build_defs(defs_path=path) as (component, defs):
            assert isinstance(component, RetrievalLibraryComponent)
            manifest = defs.resolve_asset_graph().get(dg.AssetKey(["pictures", "file_manifest"]))
            assert manifest.parent_keys == {dg.AssetKey(["raw", "download"])}
            assert manifest.partitions_def is not None
            assert manifest.partitions_def.get_partition_keys() == ["a"]
