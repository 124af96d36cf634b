"""The code location that Dagster loads: the definitions of the settings file."""

from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.partitions import load_definition_settings

defs = build_definitions(load_definition_settings())
