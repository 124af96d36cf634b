"""What assets and jobs are given: the user's settings. Neither tables nor models live here."""

from pathlib import Path

import dagster as dg

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.storage.store import Store


class LibraryResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The settings file that a run works from, read anew in each run.

    Attributes:
        config_file: Its path; empty means $RETRIEVAL_CONFIG, then ./retrieval.toml.
    """

    config_file: str = ""

    @property
    def settings(self) -> Settings:
        """The settings as they are now."""
        return load_settings(Path(self.config_file) if self.config_file else None)

    @property
    def store(self) -> Store:
        """The tables of these settings."""
        return Store(self.settings.home)
