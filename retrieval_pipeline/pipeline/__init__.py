"""All steps in one call, and publication: may this build serve, and which one does.

Each step has its own folder: `ingest`, `index`, `latent_map`.
"""
