"""How the definitions of one library are called in a code location, and what they share.

A code location may hold several libraries, and assets of others: names, keys and options are
decided here and nowhere else.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypedDict, TypeVar

import dagster as dg

from retrieval_pipeline.orchestration.resources import LibraryResource

Condition = TypeVar("Condition")

# Tag of a run that brings the whole flow up to date: assets of the flow need not follow it.
WHOLE_FLOW = {"retrieval/flow": "whole"}
# Work that nobody waits for; what people start has priority 0, and quick questions more.
BACKGROUND = {"dagster/priority": "-1"}
QUICK = {"dagster/priority": "1"}


# Names of the jobs, before prefixes.
JOBS = (
    "reindex_job",
    "query_job",
    "recommend_job",
    "verify_job",
    "gc_job",
    "saved_queries_job",
)


class AssetOptions(TypedDict):
    """Arguments that every asset of a library is defined with."""

    key: dg.AssetKey
    group_name: str
    owners: list[str]
    tags: dict[str, str]
    required_resource_keys: set[str]


@dataclass(frozen=True, kw_only=True)
class Flow:
    """Names and options of the definitions of one library.

    Attributes:
        name: Stands before the names of jobs, schedules, sensors and the resource; "" for none. Two
            libraries of one code location need different names and key prefixes.
        key_prefix: Stands before the names of the assets.
        group: Group of the assets.
        owners: Owners of the assets: email addresses, or teams such as "team:search".
        tags: Tags of the assets.
        upstream: Assets that the directories are filled by, such as a download.
        pool: Concurrency pool of the step that holds the model, for libraries that share a GPU. One
            library needs none: the lock of its home lets one run write at a time.
        automation: False leaves out sensors, schedules and conditions, for a team whose own
            automation starts the runs.
    """

    name: str = ""
    key_prefix: Sequence[str] = ()
    group: str = "retrieval"
    owners: Sequence[str] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    upstream: Sequence[dg.AssetKey] = ()
    pool: str | None = None
    automation: bool = True

    def key(self, asset: str) -> dg.AssetKey:
        """Return the key of an asset of this library, such as "retrieval_index"."""
        return dg.AssetKey([*self.key_prefix, asset])

    @property
    def jobs(self) -> set[str]:
        """The names of all jobs of this library."""
        return {self.named(job) for job in JOBS}

    def named(self, definition: str) -> str:
        """Return what a job, schedule, sensor, op or resource of this library is called."""
        return f"{self.name}_{definition}" if self.name else definition

    @property
    def resource(self) -> str:
        """Key of the resource that tells runs where the library is."""
        return self.named("library")

    @property
    def resources(self) -> set[str]:
        """The resources that every asset and op of this library needs."""
        return {self.resource}

    def library(self, context: Any) -> LibraryResource:
        """Return the library that a run, a check or a sensor works on, from its context."""
        library = getattr(context.resources, self.resource)
        assert isinstance(library, LibraryResource), library
        return library

    def when(self, condition: Condition) -> Condition | None:
        """Return the condition on which an asset or a check runs by itself, if it may."""
        return condition if self.automation else None

    def options(self, asset: str) -> AssetOptions:
        """Return the arguments that every asset of this library is defined with."""
        return {
            "key": self.key(asset),
            "group_name": self.group,
            "owners": list(self.owners),
            "tags": dict(self.tags),
            "required_resource_keys": self.resources,
        }
