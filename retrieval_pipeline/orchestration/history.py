"""The history that Dagster keeps: how a run writes hundreds of events, and what is forgotten."""

import contextlib
import sqlite3
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
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
# Runs that one `gc_job` forgets, some 10 to 20 a second: the first after a year ends in minutes.
MOST_RUNS = 5_000


@dataclass(frozen=True)
class Pruned:
    """What was forgotten.

    Attributes:
        runs: Runs that made nothing.
        logs: Logs of runs that made something.
        left: Old runs that wait for the next time.
    """

    runs: int
    logs: int
    left: int


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
    instance: dg.DagsterInstance,
    jobs: AbstractSet[str],
    age: timedelta,
    most: int,
    *,
    dry_run: bool,
) -> Pruned:
    """Forget finished runs of these jobs that are old: at most so many, the oldest first.

    Of runs that made or checked an asset, only the log goes, and that only from SQLite, which keeps
    it in a file of its own: what they made stays on the pages of the assets, with its plots.
    """
    filters = dg.RunsFilter(statuses=FINISHED, updated_before=datetime.now(UTC) - age)
    # Dagster lists the last one first.
    old = [run.run_id for run in reversed(instance.get_runs(filters)) if run.job_name in jobs]
    made = _runs_that_made_something(instance)
    logs = {run: log for run in old if run in made and (log := _full_log(instance, run))}
    forgotten = [run for run in old if run not in made or run in logs]
    now = forgotten[:most]
    if not dry_run:
        for run in now:
            if run in logs:
                _empty(logs[run])
            else:
                instance.delete_run(run)
    emptied = sum(run in logs for run in now)
    return Pruned(len(now) - emptied, emptied, len(forgotten) - len(now))


def _runs_that_made_something(instance: dg.DagsterInstance) -> set[str]:
    storage = instance.event_log_storage
    assert isinstance(storage, SqlEventLogStorage), storage
    events = SqlEventLogStorageTable.c
    kinds = [kind.value for kind in KEPT_EVENTS]
    query = sqlalchemy.select(events.run_id).where(events.dagster_event_type.in_(kinds)).distinct()
    # SQLite has these events of all runs in one file, beside the logs.
    with storage.index_connection() as connection:
        return {run for (run,) in connection.execute(query)}


def _full_log(instance: dg.DagsterInstance, run: str) -> Path | None:
    """Return the file that holds the log of a run alone; None if there is none, or it is empty."""
    storage = instance.event_log_storage
    if not isinstance(storage, SqliteEventLogStorage):
        return None
    log = Path(storage.path_for_shard(run))
    if not log.exists():
        return None
    with contextlib.closing(sqlite3.connect(log)) as connection:
        is_full = connection.execute("SELECT 1 FROM event_logs LIMIT 1").fetchone() is not None
    return log if is_full else None


def _empty(log: Path) -> None:
    """Remove the events. The file stays: a web server that has read it expects its tables."""
    with contextlib.closing(sqlite3.connect(log, isolation_level=None)) as connection:
        connection.execute("DELETE FROM event_logs")
        connection.execute("VACUUM")
