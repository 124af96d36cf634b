"""The event log of Dagster on one machine, which is SQLite: how a run writes hundreds of events."""

import contextlib
import sqlite3
from collections.abc import Iterator

import dagster as dg
from dagster._core.storage.event_log.sqlite.sqlite_event_log import (
    INDEX_SHARD_NAME,
    SqliteEventLogStorage,
)


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
