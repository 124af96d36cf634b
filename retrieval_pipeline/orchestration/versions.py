"""Data versions: the same for the same data, whoever made it and however often."""

from blake3 import blake3

from retrieval_pipeline.index.items import table_digest
from retrieval_pipeline.ingest.embed import embedded_ids
from retrieval_pipeline.ingest.missing_views import stored_views
from retrieval_pipeline.storage.store import Store
from retrieval_pipeline.storage.tables import read_manifest
from retrieval_pipeline.vectors import VectorSpace


def manifest_version(store: Store, source: str) -> str:
    """Return the version of a manifest: of its rows, not of what it counts beside pictures.

    Raises:
        StoreError: The table is damaged.
    """
    return table_digest(read_manifest(store, source).replace_schema_metadata())


def embeddings_version(store: Store, space: VectorSpace, source: str) -> str:
    """Return the version of what an index takes from a source: which vectors, for which files.

    Raises:
        StoreError: A table is damaged.
    """
    contents = set(read_manifest(store, source)["content_id"].to_pylist())
    digest = blake3(f"{space.key}\n{manifest_version(store, source)}\n".encode())
    for content in sorted(embedded_ids(store, space) & contents):
        digest.update(content.encode())
    for content, views in sorted(stored_views(store, space).items()):
        if content in contents:
            digest.update(f"{content} {sorted(views)}".encode())
    return digest.hexdigest(length=16)
