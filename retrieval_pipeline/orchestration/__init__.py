"""Dagster only: assets, checks, jobs, schedules, sensors, partitions, metadata, resources.

What they run is in the folders below, which know nothing of Dagster.
"""
