"""A library of pictures within the Dagster project of somebody else, in one call."""

from dataclasses import dataclass
from pathlib import Path

import dagster as dg

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.flow import Flow
from retrieval_pipeline.orchestration.resources import LibraryResource


@dataclass(frozen=True, kw_only=True)
class RetrievalLibrary(Flow):
    """The definitions of one settings file, to be merged with those of a team.

        pictures = RetrievalLibrary(config_file="retrieval.toml", key_prefix=["pictures"])

        @dg.asset(deps=[pictures.key("retrieval_index")])
        def report(library: LibraryResource) -> None:
            table = library.embeddings("holidays")

        defs = dg.Definitions.merge(pictures.definitions(), dg.Definitions(assets=[report]))

    A second library of the same code location gets a `name` and another `key_prefix`; its resource
    is then called "<name>_library".

    Attributes:
        config_file: Path of the settings file. Empty means the one that
            `config.loading.find_settings_file` finds, when the definitions are loaded and again in
            each run.
    """

    config_file: str | Path = ""

    @property
    def settings(self) -> Settings:
        """The settings as they are now.

        Raises:
            SettingsError: The file is missing or not valid.
        """
        return load_settings(Path(self.config_file) if self.config_file else None)

    def definitions(self, resource: LibraryResource | None = None) -> dg.Definitions:
        """Return assets, checks and jobs, with what runs by itself and the resource.

        Args:
            resource: Where runs find the settings, if that is another place than here.

        Raises:
            SettingsError: The file is missing or not valid.
        """
        file = str(Path(self.config_file).absolute()) if self.config_file else ""
        library = resource or LibraryResource(config_file=file)
        return build_definitions(self.settings, library, self)
