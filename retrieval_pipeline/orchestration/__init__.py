"""Dagster only: assets, jobs, resources and partitions over the same functions as the rest."""
