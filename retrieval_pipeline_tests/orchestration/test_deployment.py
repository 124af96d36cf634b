"""What stands in deploy/ keeps to what the README says and to what Dagster reads."""

import ast
import os
import re
import shutil
import subprocess
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from click.testing import CliRunner
from dagster._cli import create_dagster_cli
from dagster._daemon.cli import create_dagster_daemon_cli
from dagster_webserver.cli import create_dagster_webserver_cli

from retrieval_pipeline.cli.commands.serve import serve
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest
from synthetic.tables import write_manifest

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
# A substitution of Compose's: the name, and what stands there without it.
VARIABLE = re.compile(r"\$\{(\w+)(?::([-?])([^}]*))?\}")


@pytest.fixture(scope="module")
def compose() -> dict[str, Any]:
    loaded = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
    assert isinstance(loaded, dict)
    return loaded


def test_milvus_stands_beside_the_services_and_only_they_reach_it(compose: dict[str, Any]) -> None:
    added = yaml.safe_load((DEPLOY / "compose-milvus.yaml").read_text())
    services, known = added["services"], {**compose["services"], **added["services"]}
    for name, service in services.items():
        assert "ports" not in service, name
        assert {*service.get("depends_on", ())} <= known.keys()
        mounted = {volume.partition(":")[0] for volume in service.get("volumes", ())}
        assert mounted <= added["volumes"].keys()
        # Passwords come from the environment, and Compose refuses to start without them.
        for key, value in service.get("environment", {}).items():
            if any(word in key for word in ("PASSWORD", "SECRET_", "TOKEN")):
                assert VARIABLE.search(value)[2] == "?", (name, key)  # type: ignore[index]
    for name in ("code", "search"):
        assert "RETRIEVAL_MILVUS_TOKEN" in services[name]["environment"]
    values = yaml.safe_load((DEPLOY / "helm-values.yaml").read_text())
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    assert "RETRIEVAL_MILVUS_TOKEN" in {each["name"] for each in deployment["env"]}
    assert yaml.safe_load((DEPLOY / "helm-milvus-values.yaml").read_text())["cluster"]["enabled"]


def commands(compose: dict[str, Any]) -> dict[str, list[str]]:
    return {
        name: service["command"]
        for name, service in compose["services"].items()
        if "command" in service
    }


def test_the_main_command_of_the_readme_makes_an_environment_of_its_own() -> None:
    readme = (ROOT / "README.md").read_text()
    first, second = re.findall(r"^python3 -m venv .*$", readme, re.MULTILINE)[:2]
    install = r"python3 -m venv \.venv && \.venv/bin/pip install -c constraints\.txt -e "
    assert re.fullmatch(install + r'"\.\[offline,demo\]" && \.venv/bin/retrieval demo', first)
    assert re.fullmatch(install + r'"\.\[test\]" && \.venv/bin/pytest', second)


def test_the_container_has_what_the_demo_and_the_services_need() -> None:
    steps = (DEPLOY / "Containerfile").read_text()
    assert re.search(
        r'pip install -c constraints\.txt .*"\.\[offline,demo,web,postgres,milvus\]"', steps
    )
    for copied in re.findall(r"^COPY (?!--from)(.*) \S+$", steps, re.MULTILINE):
        for name in copied.split():
            assert (ROOT / name).exists(), name
    # The last user is not root.
    assert re.findall(r"^USER (\w+)$", steps, re.MULTILINE)[-1] == "retrieval"


def test_the_example_of_dagster_yaml_is_read_as_it_is_meant(tmp_path: Path) -> None:
    shutil.copy(DEPLOY / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.telemetry_enabled is False
        assert instance.nux_enabled is False
        assert instance.run_monitoring_enabled is True
        concurrency = instance.get_concurrency_config()
        # Work is serialised by the lock of the home, which the kernel frees when a process dies; a
        # place in a pool would stay taken.
        assert concurrency.pool_config.default_pool_limit is None
        assert instance.run_retries_enabled
        assert not instance.get_settings("run_retries")["retry_on_asset_or_op_failure"]
        assert concurrency.run_queue_config is not None
        assert concurrency.run_queue_config.max_concurrent_runs == 4


def test_the_example_of_logging_writes_what_runs_say_to_a_file(tmp_path: Path) -> None:
    @dg.op
    def speak(context: dg.OpExecutionContext) -> None:
        context.log.info("three pictures are new")

    text = (DEPLOY / "logging.yaml").read_text().replace("/var/log/retrieval", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text((DEPLOY / "dagster.yaml").read_text() + text)
    job = dg.GraphDefinition(name="speaking", node_defs=[speak]).to_job()
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        job.execute_in_process(instance=instance)
    assert "three pictures are new" in (tmp_path / "runs.log").read_text()


def test_with_postgres_only_the_places_differ() -> None:
    alone = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    shared = yaml.safe_load((DEPLOY / "dagster-postgres.yaml").read_text())
    storage = shared.pop("storage")["postgres"]["postgres_db"]
    del shared["compute_logs"], shared["local_artifact_storage"]
    assert shared == alone
    # Nothing secret stands in the file, and the services are given all that it asks for.
    asked = {value["env"] for value in storage.values() if isinstance(value, dict)}
    assert {"hostname", "username", "password", "db_name"} == {
        key for key, value in storage.items() if isinstance(value, dict)
    }
    services = yaml.safe_load((DEPLOY / "compose.yaml").read_text())["services"]
    for name in ("code", "webserver", "daemon"):
        assert asked <= set(services[name]["environment"]), name


def test_compose_starts_all_services_with_care(compose: dict[str, Any]) -> None:
    services = compose["services"]
    assert set(services) == {"postgres", "code", "webserver", "daemon", "search"}
    for name, service in services.items():
        assert service["healthcheck"]["test"][0] == "CMD", name
        for volume in service["volumes"]:
            source, target = VARIABLE.sub("VARIABLE", volume).split(":", 1)
            assert source == "VARIABLE" or source in compose["volumes"], volume
            assert not target.startswith("/pictures") or target == "/pictures:ro"
        for port in service.get("ports", ()):
            assert port.startswith("127.0.0.1:"), port
        for needed in service.get("depends_on", {}):
            assert services[needed]["healthcheck"]
        if name != "postgres":
            assert service["user"] == "1000:1000"
            assert service["cap_drop"] == ["ALL"]


def test_what_is_secret_has_no_value_in_compose() -> None:
    text = (DEPLOY / "compose.yaml").read_text()
    for name in ("POSTGRES_PASSWORD", "RETRIEVAL_TOKEN", "PICTURES"):
        used = [match for match in VARIABLE.finditer(text) if match[1] == name]
        assert used
        assert all(match[2] == "?" for match in used), name
    for line in text.splitlines():
        if re.search(r"^\s+\w*(PASSWORD|TOKEN):", line):
            assert VARIABLE.search(line), line


def test_the_commands_of_compose_are_understood(compose: dict[str, Any]) -> None:
    """Each one is there, and knows the options that it is given."""
    installed = {script.name for script in entry_points(group="console_scripts")}
    clis = {
        "dagster": create_dagster_cli(),
        "dagster-daemon": create_dagster_daemon_cli(),
        "dagster-webserver": create_dagster_webserver_cli(),
    }
    checked = {
        name: compose["services"][name]["healthcheck"]["test"][1:] for name in commands(compose)
    }
    for command in [*commands(compose).values(), *checked.values()]:
        program, *arguments = command
        if program == "python3":
            ast.parse(arguments[1])
            continue
        assert program in installed
        if program == "retrieval":
            assert arguments[0] == "serve"
            cli: Any = serve
            arguments = arguments[1:]
        else:
            cli = clis[program]
        # With --help at the end all options before it are parsed, and nothing is started.
        result = CliRunner().invoke(cli, [*arguments, "--help"])
        assert result.exit_code == 0, result.output


def test_the_services_find_each_other(compose: dict[str, Any]) -> None:
    (location,) = yaml.safe_load((DEPLOY / "workspace-compose.yaml").read_text())["load_from"]
    server = location["grpc_server"]
    code = commands(compose)[server["host"]]
    assert code[code.index("--port") + 1] == str(server["port"])
    assert code[code.index("--location-name") + 1] == server["location_name"]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert code[code.index("--module-name") + 1] == project["code_location_target_module"]
    (own,) = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    assert own["python_module"]["module_name"] == project["code_location_target_module"]
    assert own["python_module"]["location_name"] == project["code_location_name"]
    assert (
        compose["services"]["code"]["environment"]["DAGSTER_POSTGRES_HOST"] in compose["services"]
    )


def test_the_values_of_helm_start_the_same_code_and_keep_to_the_same_rules() -> None:
    values = yaml.safe_load((DEPLOY / "helm-values.yaml").read_text())
    (code,) = values["dagster-user-deployments"]["deployments"]
    assert code["codeServerArgs"] == ["--module-name", "retrieval_pipeline.definitions"]
    assert code["readinessProbe"]["enabled"]
    own = yaml.safe_load((DEPLOY / "dagster.yaml").read_text())
    daemon = values["dagsterDaemon"]
    assert daemon["runMonitoring"]["enabled"] is own["run_monitoring"]["enabled"]
    assert daemon["runRetries"] == {
        "enabled": own["run_retries"]["enabled"],
        "maxRetries": own["run_retries"]["max_retries"],
        "retryOnAssetOrOpFailure": own["run_retries"]["retry_on_asset_or_op_failure"],
    }


def test_a_backup_can_be_restored(tmp_path: Path) -> None:
    home, history, target = tmp_path / "home", tmp_path / "dagster", tmp_path / "backup"
    with Store(home).locked():
        write_manifest(Store(home), "a", {"one.png": "one"})
    shutil.copytree(DEPLOY, history, ignore=lambda _, names: set(names) - {"dagster.yaml"})
    with dg.DagsterInstance.from_config(str(history)) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("retrieval_index"))
        (tmp_path / "retrieval.toml").write_text("")
        variables = {"DAGSTER_HOME": str(history), "RETRIEVAL_CONFIG": f"{tmp_path}/retrieval.toml"}
        command = [DEPLOY / "backup", home, target]
        subprocess.run(command, env={**os.environ, **variables}, check=True)
    restored = Store(target / "home")
    assert read_manifest(restored, "a").num_rows == 1
    with dg.DagsterInstance.from_config(str(target / "dagster")) as again:
        assert again.get_latest_materialization_event(dg.AssetKey("retrieval_index")) is not None
