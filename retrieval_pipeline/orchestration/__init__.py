"""Dagster only: assets, jobs, resources and partitions over the same functions as the rest."""

import warnings

import dagster as dg

# The beta parts that are used here (backfill policies, observable sources) are pinned and tested;
# a page of warnings at every start would hide what matters.
warnings.filterwarnings("ignore", category=dg.BetaWarning)
