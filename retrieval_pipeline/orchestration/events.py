"""How runs tell Dagster what they made, of which version, and why they failed."""

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import dagster as dg

from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.orchestration.lost_runs import name_process

Event: TypeAlias = (
    dg.MaterializeResult[Any] | dg.AssetMaterialization | dg.AssetCheckEvaluation | dg.Output[Any]
)
Events = Iterator[Event]

# Waits of 10, 20 and 40 seconds: a network share that comes back is worth as much, not more.
RETRIES, BACKOFF_SECONDS = 3, 10.0
# What passes by itself; a full disk or a missing permission does not.
TRANSIENT = frozenset(
    {
        errno.EAGAIN,
        errno.EBUSY,
        errno.ECONNABORTED,
        errno.ECONNRESET,
        errno.EHOSTDOWN,
        errno.EHOSTUNREACH,
        errno.EINTR,
        errno.EIO,
        errno.ENETDOWN,
        errno.ENETUNREACH,
        errno.ENOTCONN,
        errno.ESTALE,
        errno.ETIMEDOUT,
    }
)


@dataclass(frozen=True)
class Made:
    """What a run made of an asset, or of one partition of it.

    Attributes:
        version: The same for the same data, so that only a change makes others follow.
        metadata: For people.
        inputs: Versions of what it was made from, by asset.
    """

    version: str
    metadata: Mapping[str, Any]
    inputs: Mapping[dg.AssetKey, str] = field(default_factory=dict)


def materialised(
    context: dg.AssetExecutionContext,
    made: Mapping[str, Made],
    checks: Sequence[dg.AssetCheckEvaluation] = (),
) -> Events:
    """Yield the events of a run of an asset over these partitions, each with its own data version.

    One result gives all partitions of a run the same version; so those of several partitions
    are told one by one after it, and what is told last counts.
    """
    if len(made) == 1:
        (one,) = made.values()
        yield from result(context, one, checks)
        return
    yield dg.MaterializeResult()
    yield from partitions_made(context, made)
    yield from _checked(context, checks)


def result(
    context: dg.AssetExecutionContext, made: Made, checks: Sequence[dg.AssetCheckEvaluation] = ()
) -> Events:
    """Yield the events of a run over one partition, or of an asset without partitions.

    Metadata of a result is stored twice, with the step's output too; what is added to the context
    is stored once.
    """
    # A run over a partition may also make assets that have none.
    partition = context.partition_key if context.assets_def.partitions_def else None
    context.add_asset_metadata(made.metadata, partition_key=partition)
    yield dg.MaterializeResult(data_version=dg.DataVersion(made.version))
    yield from _checked(context, checks)


def _checked(
    context: dg.AssetExecutionContext, checks: Sequence[dg.AssetCheckEvaluation]
) -> Events:
    """Yield what checks have found, and the outputs that Dagster expects of them in the step.

    A result of a check would give both, but of one partition only.
    """
    yield from checks
    outputs = context.op_execution_context.selected_output_names
    asset = context.assets_def.get_output_name_for_asset_key(context.asset_key)
    yield from (dg.Output(None, output_name=name) for name in outputs if name != asset)


def partitions_made(
    context: dg.AssetExecutionContext, made: Mapping[str, Made]
) -> Iterator[dg.AssetMaterialization]:
    """Yield an event for each partition; alone, they record what was done before a failure."""
    code_version = context.assets_def.code_versions_by_key[context.asset_key] or ""
    events = InputEvents(context.instance)
    for partition, each in made.items():
        yield materialisation(events, context.asset_key, each, code_version, partition)


class InputEvents:
    """The last event of each input: asked for once, also when hundreds of partitions need it.

    Make a new one when inputs may have got events since.
    """

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._of_partitions: dict[dg.AssetKey, Mapping[str, int]] = {}

    def latest(self, asset: dg.AssetKey, partition: str | None) -> int | None:
        """Return the number of an input's last event: of that partition, if it has any."""
        if partition is not None:
            if asset not in self._of_partitions:
                kind = dg.DagsterEventType.ASSET_MATERIALIZATION
                storage = self._instance.event_log_storage
                events = storage.get_latest_storage_id_by_partition(asset, kind)
                self._of_partitions[asset] = events
            if event := self._of_partitions[asset].get(partition):
                return event
        for fetch in (self._instance.fetch_materializations, self._instance.fetch_observations):
            for partitions in ([partition], None) if partition else (None,):
                wanted = dg.AssetRecordsFilter(asset, asset_partitions=partitions)
                if records := fetch(wanted, limit=1).records:
                    return records[0].storage_id
        return None


def materialisation(
    events: InputEvents,
    asset: dg.AssetKey,
    made: Made,
    code_version: str,
    partition: str | None = None,
) -> dg.AssetMaterialization:
    """Return the event of an asset that a run has made outside of the asset's own step.

    The tags are those that Dagster itself writes; they decide what is stale.
    """
    tags = {
        "dagster/data_version": made.version,
        "dagster/data_version_is_user_provided": "true",
        "dagster/code_version": code_version,
    }
    for source, version in made.inputs.items():
        name = source.to_user_string()
        tags[f"dagster/input_data_version/{name}"] = version
        event = events.latest(source, partition)
        tags[f"dagster/input_event_pointer/{name}"] = str(event or "NULL")
    return dg.AssetMaterialization(asset, partition=partition, metadata=made.metadata, tags=tags)


def recorded_versions(instance: dg.DagsterInstance, asset: dg.AssetKey) -> dict[str, str]:
    """Return the data version of each partition of an asset, as it was recorded last."""
    key = "dagster/data_version"
    tags = instance.event_log_storage.get_latest_tags_by_partition(
        asset, event_type=dg.DagsterEventType.ASSET_MATERIALIZATION, tag_keys=[key]
    )
    return {partition: each[key] for partition, each in tags.items() if key in each}


@contextlib.contextmanager
def explained(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> Iterator[None]:
    """Turn an error that people can cause or meet into one line of the run.

    Input and output that failed for a moment is tried again, with a longer wait each time; nothing
    else is, since it would fail again. The run is told apart from one whose process is gone.
    """
    name_process(context)
    try:
        yield
    except RetrievalError as error:
        if is_transient(error) and context.retry_number < RETRIES:
            wait = BACKOFF_SECONDS * 2**context.retry_number
            context.log.warning(f"{error}; trying again in {wait:.0f} s")
            raise dg.RetryRequested(max_retries=RETRIES, seconds_to_wait=wait) from error
        raise failure(error) from None


def failure(error: RetrievalError) -> dg.Failure:
    """Return the error as a failure of the run: one line, and no retry, which would not help."""
    return dg.Failure(description=str(error), allow_retries=False)


def is_transient(error: BaseException | None) -> bool:
    """Tell whether input or output that may work next time is at the bottom of an error."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in TRANSIENT:
            return True
        error = error.__cause__ or error.__context__
    return False
