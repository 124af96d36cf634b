"""What stands in deploy/ keeps to what the README says and to what Dagster reads."""

import re
import shutil
from pathlib import Path

import dagster as dg

ROOT = Path(__file__).parents[2]


def test_the_container_is_installed_with_the_command_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text()
    command = re.search(r"^(pip install .*) && retrieval demo$", readme, re.MULTILINE)
    assert command is not None
    steps = (ROOT / "deploy" / "Containerfile").read_text().splitlines()
    assert f"RUN {command[1]}" in steps
    assert steps.index(f"RUN {command[1]}") > steps.index("COPY . .")


def test_the_example_of_dagster_yaml_is_read_as_it_is_meant(tmp_path: Path) -> None:
    shutil.copy(ROOT / "deploy" / "dagster.yaml", tmp_path)
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        assert instance.telemetry_enabled is False
        assert instance.nux_enabled is False
        assert instance.run_monitoring_enabled is True
        concurrency = instance.get_concurrency_config()
        assert concurrency.pool_config.default_pool_limit == 1
        assert concurrency.run_queue_config is not None
        assert concurrency.run_queue_config.max_concurrent_runs == 4
