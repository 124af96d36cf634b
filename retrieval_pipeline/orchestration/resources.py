"""What assets and jobs are given: the user's settings, and the tables that belong to them."""

from pathlib import Path

import dagster as dg
import pyarrow as pa

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.encoders.from_settings import describe_encoder
from retrieval_pipeline.search.searcher import Searcher
from retrieval_pipeline.storage.schemas import embedding_schema
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, read_table


class LibraryResource(dg.ConfigurableResource):  # type: ignore[type-arg]
    """The settings file that a run works from, read anew in each run, and what is stored for it.

    Assets of other people take it as a resource to read the tables.

    Attributes:
        config_file: Its path; empty means the one that `find_settings_file` finds.
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

    def manifest(self, source: str) -> pa.Table:
        """Return the files of a source: path, size, mtime_ns, content_id, status, error.

        Raises:
            SettingsError: There is no such source.
            StoreError: The table is damaged.
        """
        settings = self.settings
        return read_manifest(Store(settings.home), settings.source(source).name)

    def embeddings(self, source: str) -> pa.Table:
        """Return what the model of the settings embedded while it looked through a source.

        Columns: content_id (string), embedding (unit vectors, fixed_size_list<float>[dimension]),
        width, height (pixels of the upright picture), format. A content that another source had
        first is in the table of that source.

        Raises:
            SettingsError: There is no such source.
            StoreError: A part is damaged.
        """
        settings, store = self.settings, self.store
        space = describe_encoder(settings).space
        schema = embedding_schema(space.dim)
        parts = store.parts(space, settings.source(source).name)
        return pa.concat_tables([schema.empty_table(), *(read_table(p, schema) for p in parts)])

    def searcher(self) -> Searcher:
        """Open the current build, to ask it.

        Raises:
            BuildError: Nothing is indexed yet, or the build is damaged.
        """
        return Searcher.open(self.settings)
