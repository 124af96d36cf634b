"""All steps of indexing in one call, the checks of a new build, and its publication.

The steps themselves are in `ingest`, `index` and `latent_map`.
"""
