"""Runs whose process is gone, as after a power cut, end by themselves."""

from types import SimpleNamespace
from typing import Any, cast

import dagster as dg
import pytest

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.lost_runs import PROCESS_TAG, name_process

STARTED, CANCELING = dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING


@pytest.fixture
def own(instance: dg.DagsterInstance) -> dg.DagsterRun:
    """A run that lives in this process."""
    job = build_definitions(Settings()).resolve_job_def("verify_job")
    run = instance.create_run_for_job(job, status=STARTED)
    name_process(cast(Any, SimpleNamespace(instance=instance, run=run)))
    return run


def look(instance: dg.DagsterInstance) -> None:
    context = dg.build_sensor_context(instance)
    build_definitions(Settings()).get_sensor_def("lost_runs").evaluate_tick(context)


@pytest.mark.parametrize(
    ("place", "status", "ends_as"),
    [
        (2, STARTED, "FAILURE"),  # the number of the process, which another one has now
        (1, CANCELING, "CANCELED"),  # another boot of the machine
        (0, STARTED, "STARTED"),  # another machine, where nothing can be looked at
    ],
)
def test_a_run_without_a_process_ends_and_others_go_on(
    instance: dg.DagsterInstance,
    own: dg.DagsterRun,
    place: int,
    status: dg.DagsterRunStatus,
    ends_as: str,
) -> None:
    named = instance.get_run_by_id(own.run_id)
    assert named is not None
    process = named.tags[PROCESS_TAG].split()
    process[place] = "1"
    job = build_definitions(Settings()).resolve_job_def("verify_job")
    tags = {PROCESS_TAG: " ".join(process)}
    other = instance.create_run_for_job(job, status=status, tags=tags)
    look(instance)
    found = instance.get_run_by_id(other.run_id)
    assert found is not None
    assert found.status.value == ends_as
    still = instance.get_run_by_id(own.run_id)
    assert still is not None
    assert still.status is STARTED
