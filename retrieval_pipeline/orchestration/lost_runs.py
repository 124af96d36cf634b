"""Runs whose process is gone: after a power cut Dagster goes on showing them as started.

Dagster's own monitoring asks the code server that started a run, and that server is gone too.
"""

import os
import socket
from functools import cache
from pathlib import Path

import dagster as dg

from retrieval_pipeline.orchestration.flow import Flow

# Tag of a run that names the process it lives in: machine, time since boot, process id.
PROCESS_TAG = "retrieval/process"
LOOK_SECONDS = 60


def name_process(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> None:
    """Note in the run which process it lives in."""
    context.instance.add_run_tags(context.run.run_id, {PROCESS_TAG: _process(os.getpid())})


def is_lost(process: str) -> bool:
    """Tell whether a process that `name_process` noted is gone.

    Of a process on another machine nothing can be told: it counts as alive.
    """
    machine, _, rest = process.partition(" ")
    number = rest.rpartition(" ")[2]
    return machine == socket.gethostname() and process != _process(int(number))


def _process(number: int) -> str:
    """Name a process: numbers are used again, but not with the same start after the same boot."""
    return f"{socket.gethostname()} {_boot()} {_started(number)} {number}"


@cache
def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return "?"


def _started(number: int) -> str:
    """Return when a process started, in clock ticks since boot; "gone" if there is none."""
    try:
        status = Path(f"/proc/{number}/stat").read_text()
    except OSError:
        return "gone" if Path("/proc/self").exists() or not _is_there(number) else "?"
    # The name of the program, in parentheses, may hold anything. Z: it ended, and waits for its
    # parent to look.
    fields = status.rpartition(")")[2].split()
    return "gone" if fields[0] == "Z" else fields[19]


def _is_there(number: int) -> bool:
    """Tell whether a process exists, where there is no /proc."""
    try:
        os.kill(number, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def build_lost_runs_sensor(flow: Flow) -> dg.SensorDefinition:
    """Return the sensor that ends runs whose process is gone."""

    @dg.sensor(
        name=flow.named("lost_runs"),
        minimum_interval_seconds=LOOK_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Marks runs as failed whose process is gone, as after a power cut.",
    )
    def lost_runs(context: dg.SensorEvaluationContext) -> dg.SkipReason:
        statuses = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]
        ended = 0
        for run in context.instance.get_runs(dg.RunsFilter(statuses=statuses)):
            if not is_lost(run.tags.get(PROCESS_TAG, "")):
                continue
            # It may have ended by itself since the list was made.
            now = context.instance.get_run_by_id(run.run_id)
            if now is None or now.is_finished:
                continue
            if now.status is dg.DagsterRunStatus.CANCELING:
                context.instance.report_run_canceled(now)
            else:
                context.instance.report_run_failed(
                    now, "The process of this run is gone: it was killed, or the machine stopped."
                )
            ended += 1
        return dg.SkipReason(f"{ended} runs had no process any more" if ended else "no run is lost")

    return lost_runs
