"""The history that Dagster keeps: how a run writes hundreds of events, and what is forgotten."""

import contextlib
import sqlite3
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
import sqlalchemy
from dagster._core.storage.event_log import SqlEventLogStorage, SqlEventLogStorageTable
from dagster._core.storage.event_log.sqlite.sqlite_event_log import (
    INDEX_SHARD_NAME,
    SqliteEventLogStorage,
)

# What Dagster tells of assets comes from these events.
KEPT_EVENTS = (
    dg.DagsterEventType.ASSET_MATERIALIZATION,
    dg.DagsterEventType.ASSET_OBSERVATION,
    dg.DagsterEventType.ASSET_CHECK_EVALUATION,
)
FINISHED = [
    dg.DagsterRunStatus.SUCCESS,
    dg.DagsterRunStatus.FAILURE,
    dg.DagsterRunStatus.CANCELED,
]


@contextlib.contextmanager
def open_history(instance: dg.DagsterInstance, run: str) -> Iterator[None]:
    """Keep the event log open while a run writes many events: each then takes half the time.

    Dagster opens and closes a connection for every statement. When the last connection to a
    database closes, SQLite copies its write-ahead log back and syncs it (sqlite.org/wal.html); with
    one that stays open, that waits until the log has 1,000 pages. Other storages need nothing.
    """
    storage = instance.event_log_storage
    with contextlib.ExitStack() as connections:
        if isinstance(storage, SqliteEventLogStorage):
            for shard in (INDEX_SHARD_NAME, run):
                connection = sqlite3.connect(storage.path_for_shard(shard))
                connections.enter_context(contextlib.closing(connection))
                # The file is opened by the first statement that reads it.
                connection.execute("SELECT 1 FROM event_logs LIMIT 1").fetchall()
        yield


def prune(
    instance: dg.DagsterInstance, jobs: AbstractSet[str], age: timedelta, *, dry_run: bool
) -> tuple[int, int]:
    """Forget finished runs of these jobs that are old.

    Of runs that made or checked an asset, only the log goes, and that only from SQLite, which keeps
    it in a file of its own: what they made stays on the pages of the assets, with its plots.

    Returns:
        How many runs are forgotten, and of how many more the log is.
    """
    filters = dg.RunsFilter(statuses=FINISHED, updated_before=datetime.now(UTC) - age)
    old = {run.run_id for run in instance.get_runs(filters) if run.job_name in jobs}
    made = old & _runs_that_made_something(instance)
    logs = [log for run in sorted(made) if (log := _log(instance, run)) and _is_full(log)]
    if not dry_run:
        for run in sorted(old - made):
            instance.delete_run(run)
        for log in logs:
            _empty(log)
    return len(old - made), len(logs)


def _runs_that_made_something(instance: dg.DagsterInstance) -> set[str]:
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage), storage
    events = SqlEventLogStorageTable.c
    kinds = [kind.value for kind in KEPT_EVENTS]
    query = sqlalchemy.select(events.run_id).where(events.dagster_event_type.in_(kinds)).distinct()
    # SQLite has these events of all runs in one file, beside the logs.
    with storage.index_connection() as connection:
        return {run for (run,) in connection.execute(query)}


def _log(instance: dg.DagsterInstance, run: str) -> Path | None:
    """Return the file that holds the log of a run alone; None where there is no such file."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        return None
    return Path(storage.path_for_shard(run))


def _is_full(log: Path) -> bool:
    if not log.exists():
        return False
    with contextlib.closing(sqlite3.connect(log)) as connection:
        return connection.execute("SELECT 1 FROM event_logs LIMIT 1").fetchone() is not None


def _empty(log: Path) -> None:
    """Remove the events. The file stays: a web server that has read it expects its tables."""
    with contextlib.closing(sqlite3.connect(log, isolation_level=None)) as connection:
        connection.execute("DELETE FROM event_logs")
        connection.execute("VACUUM")
