"""Partitions as they are when the definitions are loaded: one for each source, query, taste."""

from collections.abc import Sequence

import dagster as dg

from retrieval_pipeline.config.loading import find_settings_file, load_settings
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.recommend.votes import recommender_names
from retrieval_pipeline.storage.store import Store


def load_definition_settings() -> Settings:
    """Return the settings to define partitions from; without any file, there are none yet.

    Raises:
        SettingsError: The file is not right, or $RETRIEVAL_CONFIG names one that is not there;
            Dagster shows it as the location's error.
    """
    if find_settings_file() is None:
        return Settings()
    return load_settings()


def partitions_by_source(settings: Settings) -> dg.StaticPartitionsDefinition:
    """Return the partitions, in the order of the settings."""
    return dg.StaticPartitionsDefinition(settings.source_names)


def partitions_by_saved_query(settings: Settings) -> dg.StaticPartitionsDefinition:
    """Return a partition for each saved query, in the order of the settings."""
    return dg.StaticPartitionsDefinition([query.name for query in settings.saved_queries])


def partitions_by_recommender(settings: Settings) -> dg.StaticPartitionsDefinition:
    """Return a partition for each table of judgements.

    Static for the same reason as sources: no key can outlive its table, and nothing has to tell
    Dagster about a recommender that the command line starts. A new one shows after a reload.
    """
    return dg.StaticPartitionsDefinition(recommender_names(Store(settings.home)))


def all_partitions(names: Sequence[str]) -> dict[str, str]:
    """Return the tags that make one run cover all partitions; `names` is not empty."""
    return {
        "dagster/asset_partition_range_start": names[0],
        "dagster/asset_partition_range_end": names[-1],
    }
