"""What runs by itself: assets follow their upstream, but only when its data really changed."""

import dagster as dg

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.orchestration.flow import BACKGROUND, WHOLE_FLOW, Flow

C = dg.AutomationCondition

# A run over the whole flow makes all that follows itself. `any_new_update_has_run_tags` would not
# tell: it leaves out events that come while the conditions are evaluated, which
# `data_version_changed` sees.
_DATA_OF_OTHER_RUNS = C.data_version_changed() & ~C.executed_with_tags(tag_values=WHOLE_FLOW)
# `eager` would follow every materialisation, also one that found nothing new.
_NEW_DATA = C.any_deps_match(C.data_version_changed() | C.will_be_requested()).with_label(
    "any_deps_have_new_data"
)
_NEW_DATA_IN_THE_FLOW = C.any_deps_match(_DATA_OF_OTHER_RUNS | C.will_be_requested()).with_label(
    "any_deps_have_new_data_that_no_run_over_the_whole_flow_made"
)

# For what uses the index, such as saved queries.
ON_NEW_DATA = C.eager().replace("any_deps_updated", _NEW_DATA).with_label("on_new_data")

# For the assets of the flow, when people have materialised something upstream alone. What was never
# made is left to the first run over the whole flow.
ON_NEW_DATA_IN_THE_FLOW = (
    _NEW_DATA_IN_THE_FLOW.since(C.newly_requested() | C.newly_updated() | C.initial_evaluation())
    & ~C.any_deps_in_progress()
    & ~C.in_progress()
).with_label("on_new_data_in_the_flow")


def build_automation_sensor(
    settings: Settings, flow: Flow, target: dg.AssetSelection
) -> dg.AutomationConditionSensorDefinition:
    """Return the sensor that evaluates the conditions; it is on unless people stop it."""
    return dg.AutomationConditionSensorDefinition(
        flow.named("follow_new_data"),
        target=target,
        default_status=dg.DefaultSensorStatus.RUNNING,
        # Dagster's own default, or faster where directories are watched faster.
        minimum_interval_seconds=min(30, settings.schedule.watch_seconds),
        run_tags=BACKGROUND,
        description="Asks saved queries, trains recommenders, and follows what people materialise.",
    )
