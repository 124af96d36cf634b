"""The component that `dg scaffold defs` offers: a library of pictures in a file `defs.yaml`.

type: retrieval_pipeline.orchestration.component.RetrievalLibraryComponent
attributes:
  config_file: retrieval.toml
  key_prefix: [pictures]
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import dagster as dg

from retrieval_pipeline.orchestration.library import RetrievalLibrary


@dataclass
class RetrievalLibraryComponent(dg.Component, dg.Resolvable):
    """Directories of pictures, searched with words: manifests, embeddings, index and map.

    Attributes:
        config_file: Settings file of `retrieval`, relative to this file.
        name: Stands before the names of jobs and sensors, for a second library.
        key_prefix: Stands before the names of the assets.
        group: Group of the assets.
        owners: Owners of the assets.
        tags: Tags of the assets.
        upstream: Assets that fill the directories, as in "raw/download".
        automation: False leaves out sensors, schedules and conditions.
    """

    config_file: str = "retrieval.toml"
    name: str = ""
    key_prefix: Sequence[str] = ()
    group: str = "retrieval"
    owners: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    upstream: Sequence[str] = ()
    automation: bool = True

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        """Return the definitions of the settings file."""
        library = RetrievalLibrary(
            config_file=context.path / self.config_file,
            name=self.name,
            key_prefix=self.key_prefix,
            group=self.group,
            owners=self.owners,
            tags=self.tags,
            upstream=[dg.AssetKey.from_user_string(key) for key in self.upstream],
            automation=self.automation,
        )
        return library.definitions()
