"""One partition a source, as listed in the settings when the definitions are loaded."""

import dagster as dg

from retrieval_pipeline.config import Settings, find_settings_file, load_settings


def load_definition_settings() -> Settings:
    """Return the settings to define partitions from; without a file, there are none yet.

    Raises:
        SettingsError: The file is there but not right; Dagster shows it as the location's error.
    """
    return load_settings() if find_settings_file().exists() else Settings()


def partitions_by_source(settings: Settings) -> dg.StaticPartitionsDefinition:
    """Return the partitions, in the order of the settings."""
    return dg.StaticPartitionsDefinition(settings.source_names)
