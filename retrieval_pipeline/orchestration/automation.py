"""What runs by itself: assets follow their upstream, but only when its data really changed."""

import dagster as dg

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.orchestration.flow import BACKGROUND, WHOLE_FLOW, Flow

C = dg.AutomationCondition

_MADE_BY_THE_FLOW = C.any_new_update_has_run_tags(tag_values=WHOLE_FLOW)
# `eager` would follow every materialisation, also one that found nothing new.
_NEW_DATA = C.any_deps_match(C.data_version_changed() | C.will_be_requested()).with_label(
    "any_deps_have_new_data"
)

# For what uses the index, such as saved queries.
ON_NEW_DATA = C.eager().replace("any_deps_updated", _NEW_DATA).with_label("on_new_data")

# Reset by a run over the whole flow, which makes all that follows its data itself.
_WAITS_IN_THE_FLOW = C.any_deps_match(C.data_version_changed() & ~_MADE_BY_THE_FLOW).since(
    C.newly_requested()
    | C.newly_updated()
    | C.initial_evaluation()
    | C.any_deps_match(_MADE_BY_THE_FLOW)
)

# For the assets of the flow, when people have materialised something upstream alone. What was never
# made is left to the first run over the whole flow. New data waits for the next evaluation: of an
# event that comes during one, `data_version_changed` knows, but not yet which run it is from.
ON_NEW_DATA_IN_THE_FLOW = (
    (
        (_WAITS_IN_THE_FLOW & ~_WAITS_IN_THE_FLOW.newly_true())
        | C.any_deps_match(C.will_be_requested())
    )
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
