"""Telling people of runs and checks that failed, by a command of the settings."""

import json
from collections.abc import Set as AbstractSet

import dagster as dg

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.errors import CommandError
from retrieval_pipeline.orchestration.flow import Flow
from retrieval_pipeline.processes import tell_command

# Less than the minute that Dagster gives a sensor.
NOTIFY_SECONDS = 20.0


def build_alert_sensors(
    flow: Flow, settings: Settings, keys: AbstractSet[dg.AssetKey]
) -> list[dg.SensorDefinition]:
    """Return the sensors that look at the runs of this library when they end.

    Args:
        flow: Names of the jobs.
        settings: Which command to run.
        keys: The assets of this library.
    """
    if not settings.alerts.notify:
        return []

    def sensor(name: str, status: dg.DagsterRunStatus) -> dg.SensorDefinition:
        @dg.run_status_sensor(
            run_status=status,
            name=flow.named(name),
            minimum_interval_seconds=30,
            default_status=dg.DefaultSensorStatus.RUNNING,
            description="Runs `alerts.notify` of the settings, with JSON on its standard input.",
        )
        def tell(context: dg.RunStatusSensorContext) -> dg.SkipReason:
            run = context.dagster_run
            ours = run.job_name in flow.jobs or not keys.isdisjoint(run.asset_selection or ())
            failed = status is dg.DagsterRunStatus.FAILURE
            checks = _failed_checks(context.instance, keys, run.run_id)
            if not ours or not (failed or checks):
                return dg.SkipReason(f"nothing to tell of run {run.run_id[:8]}")
            told = {
                "library": flow.name,
                "run": run.run_id,
                "job": run.job_name,
                "failed": failed,
                "error": _error(context.instance, run.run_id) if failed else "",
                "checks": checks,
            }
            try:
                tell_command(settings.alerts.notify, json.dumps(told), NOTIFY_SECONDS)
            except CommandError as error:
                raise dg.Failure(f"alerts.notify: {error}", allow_retries=False) from None
            return dg.SkipReason(f"told of run {run.run_id[:8]}")

        return tell

    return [
        sensor("tell_of_failed_runs", dg.DagsterRunStatus.FAILURE),
        sensor("tell_of_failed_checks", dg.DagsterRunStatus.SUCCESS),
    ]


def _failed_checks(
    instance: dg.DagsterInstance, keys: AbstractSet[dg.AssetKey], run: str
) -> list[dict[str, str | None]]:
    kind = dg.DagsterEventType.ASSET_CHECK_EVALUATION
    events = [
        record.event_log_entry.dagster_event
        for record in instance.get_records_for_run(run, of_type=kind).records
    ]
    found = [event.asset_check_evaluation_data for event in events if event]
    return [
        {
            "asset": each.asset_key.to_user_string(),
            "check": each.check_name,
            "partition": each.partition,
            "severity": each.severity.value,
        }
        for each in found
        if not each.passed and each.asset_key in keys
    ]


def _error(instance: dg.DagsterInstance, run: str) -> str:
    """Return why a run failed: what its step said, or Dagster of its process."""
    for kind in (dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE):
        for record in instance.get_records_for_run(run, of_type=kind, limit=1).records:
            event = record.event_log_entry.dagster_event
            assert event is not None
            said = getattr(event.event_specific_data, "user_failure_data", None)
            return str((said and said.description) or event.message)
    return ""
