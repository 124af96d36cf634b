"""Data versions: the same for the same data, whoever made it and however often. Code versions."""

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from blake3 import blake3

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.index.items import table_digest
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest, read_sidecars
from retrieval_pipeline.vectors import VectorSpace
from retrieval_pipeline.views import View


def manifest_version(store: Store, source: str) -> str:
    """Return the version of a manifest: of its rows and sidecars, not of what else it counts.

    Raises:
        StoreError: A table is damaged.
    """
    sidecars = read_sidecars(store, source).replace_schema_metadata()
    beside = (table_digest(sidecars),) if len(sidecars) else ()
    return table_digest(read_manifest(store, source).replace_schema_metadata(), *beside)


def embeddings_version(
    store: Store,
    space: VectorSpace,
    source: str,
    embedded: AbstractSet[str],
    views: Mapping[str, AbstractSet[View]],
) -> str:
    """Return the version of what an index takes from a source: which vectors, for which files.

    Args:
        store: Holds the tables.
        space: The vector space of the embeddings.
        source: Name of the source.
        embedded: What `embedded_ids` returns.
        views: What `stored_views` returns.

    Raises:
        StoreError: A table is damaged.
    """
    contents = set(read_manifest(store, source)["content_id"].to_pylist())
    digest = blake3(f"{space.key}\n{manifest_version(store, source)}\n".encode())
    for content in sorted(embedded & contents):
        digest.update(content.encode())
    for content in sorted(views.keys() & contents):
        digest.update(f"{content} {sorted(views[content])}".encode())
    return digest.hexdigest(length=16)


def embeddings_code_version(settings: Settings) -> str:
    """Return the code version of embeddings: a change of model is a change of code."""
    return f"1 {settings.model} {settings.revision or ''} {settings.precision}"
