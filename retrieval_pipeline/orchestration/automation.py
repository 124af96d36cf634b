"""What runs by itself: assets follow their upstream, but only when its data really changed."""

import dagster as dg

from retrieval_pipeline.config.settings import Settings

C = dg.AutomationCondition

# `eager` would follow every materialisation, also one that found nothing new.
_NEW_DATA = C.any_deps_match(C.data_version_changed() | C.will_be_requested()).with_label(
    "any_deps_have_new_data"
)

ON_NEW_DATA = C.eager().replace("any_deps_updated", _NEW_DATA).with_label("on_new_data")

# Another model in the settings is another code version.
ON_NEW_DATA_OR_MODEL = (
    C.eager()
    .replace("any_deps_updated", _NEW_DATA | C.code_version_changed())
    .with_label("on_new_data_or_model")
)

# A source that was never indexed does not keep the others from being found.
ON_NEW_DATA_OF_ANY = (
    C.eager()
    .without(~C.any_deps_missing())
    .replace("any_deps_updated", _NEW_DATA)
    .with_label("on_new_data_of_any_source")
)


def build_automation_sensor(settings: Settings) -> dg.AutomationConditionSensorDefinition:
    """Return the sensor that evaluates the conditions; it is on unless people stop it."""
    return dg.AutomationConditionSensorDefinition(
        "follow_new_data",
        target=dg.AssetSelection.all() | dg.AssetSelection.all_asset_checks(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        # Dagster's own default, or faster where directories are watched faster.
        minimum_interval_seconds=min(30, settings.schedule.watch_seconds),
        description="Embeds, indexes and maps what is new, when its upstream has changed.",
    )
