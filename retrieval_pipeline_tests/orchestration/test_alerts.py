"""People are told of runs and checks that failed, by a command of the settings."""

import json
import sys
from pathlib import Path

import dagster as dg
import pytest

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.orchestration.checks import FEW_ARE_QUARANTINED
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.flow import Flow
from retrieval_pipeline.orchestration.resources import LibraryResource

COMMAND = "import sys; open(sys.argv[1], 'a').write(sys.stdin.read())"


@pytest.fixture
def definitions(tmp_path: Path) -> dg.Definitions:
    """Definitions with a command that writes what it is told into a file."""
    (tmp_path / "a").mkdir()
    file = tmp_path / "retrieval.toml"
    command = json.dumps([sys.executable, "-c", COMMAND, str(tmp_path / "told.json")])
    text = settings_text([("a", tmp_path / "a")], model="offline", home="home")
    file.write_text(f"{text}[alerts]\nnotify = {command}\n")
    return build_definitions(load_settings(file), LibraryResource(config_file=str(file)))


def look(
    defs: dg.Definitions, instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult
) -> str | None:
    """Look at a run that has ended, as the daemon does."""
    what = "checks" if result.success else "runs"
    context = dg.build_run_status_sensor_context(
        sensor_name="tell",
        dagster_event=result.all_events[-1],
        dagster_instance=instance,
        dagster_run=result.dagster_run,
    )
    skipped = defs.get_sensor_def(f"tell_of_failed_{what}")(context)
    assert isinstance(skipped, dg.SkipReason)
    return skipped.skip_message


def test_a_run_that_failed_is_told_with_its_one_line(
    definitions: dg.Definitions, instance: dg.DagsterInstance, tmp_path: Path
) -> None:
    job = definitions.resolve_job_def("verify_job")
    result = job.execute_in_process(instance=instance, raise_on_error=False)
    look(definitions, instance, result)
    told = json.loads((tmp_path / "told.json").read_text())
    assert (told["job"], told["failed"], told["checks"]) == ("verify_job", True, [])
    assert "nothing is stored" in told["error"]


@pytest.mark.parametrize("passed", [True, False])
def test_a_check_that_failed_is_told_also_if_the_run_did_not(
    definitions: dg.Definitions, instance: dg.DagsterInstance, tmp_path: Path, passed: bool
) -> None:
    @dg.op(out={})
    def look_at_it() -> object:
        yield FEW_ARE_QUARANTINED.found(Flow(), passed, {}, "a")

    job = dg.GraphDefinition(name="reindex_job", node_defs=[look_at_it]).to_job()
    message = look(definitions, instance, job.execute_in_process(instance=instance))
    assert (tmp_path / "told.json").exists() != passed
    if not passed:
        told = json.loads((tmp_path / "told.json").read_text())
        assert told["checks"][0]["check"] == "few_are_quarantined"
        assert told["checks"][0]["partition"] == "a"
    else:
        assert "nothing to tell" in str(message)


def test_the_jobs_of_a_library_are_known_by_their_names(definitions: dg.Definitions) -> None:
    jobs = {job.name for job in definitions.resolve_all_job_defs()}
    assert {name for name in jobs if not name.startswith("__")} == Flow().jobs
