"""The code location that Dagster loads: the definitions of the settings file."""

import dagster as dg

from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.partitions import load_definition_settings

# Each run has a process of its own, and the lock on the tables lets one write at a time: processes
# for the steps would only import everything again (docs/benchmarks.md, "Executors of Dagster").
defs = dg.Definitions.merge(
    build_definitions(load_definition_settings()),
    dg.Definitions(executor=dg.in_process_executor),
)
