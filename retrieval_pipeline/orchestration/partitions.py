"""One partition a source, as listed in the settings when the definitions are loaded."""

import os

import dagster as dg

from retrieval_pipeline.config import Settings, find_settings_file, load_settings


def load_definition_settings() -> Settings:
    """Return the settings to define partitions from; without any file, there are none yet.

    Raises:
        SettingsError: The file is not right, or $RETRIEVAL_CONFIG names one that is not there;
            Dagster shows it as the location's error.
    """
    if "RETRIEVAL_CONFIG" not in os.environ and not find_settings_file().exists():
        return Settings()
    return load_settings()


def partitions_by_source(settings: Settings) -> dg.StaticPartitionsDefinition:
    """Return the partitions, in the order of the settings."""
    return dg.StaticPartitionsDefinition(settings.source_names)
