"""What a year of operation does to Dagster's pages: runs and ticks by the thousand, in SQLite.

python benchmarks/dagster_year.py --runs 20000 --ticks 500000

A short session of `dagster dev` over ten sources gives real rows: of a run that embedded a picture,
and of ticks. They are copied with other ids, times and sources, as if each had happened. Then the
pages that operators use are opened in Chromium, and the slowest request of each is printed: before
and after the ticks are purged as the daemon does it, and the runs by `gc_job`.
"""

import argparse
import os
import re
import shutil
import sqlite3
import tempfile
import time
import uuid
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorType
from dagster_service import made, made_home, measure_pages, service, until_quiet
from PIL import Image

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.history import MOST_RUNS
from retrieval_pipeline.orchestration.resources import LibraryResource

SOURCES, FILES = 10, 5
YEAR = timedelta(days=365)
SESSION_SECONDS = 60
PAGES = {
    "runs": "runs",
    "overview": "overview",
    "automation": "automation",
    "ticks of the sensor": "locations/retrieval_pipeline/sensors/watch",
    "all assets": "assets",
    "asset, events": "assets/image_embeddings?view=events",
    "asset, partitions": "assets/image_embeddings?view=partitions",
    "asset, checks": "assets/image_embeddings?view=checks",
    "asset, plots": "assets/retrieval_index?view=overview",
    "asset graph": "asset-groups",
}
TIME = re.compile(r'"timestamp": \d{9,}\.\d+')


def session(file: Path, home: Path) -> None:
    """Index everything, then one new picture, as `dagster dev` does by itself."""
    with service(file, home, "dagster", "dev"):
        for number in range(2):
            while run_count(home) <= number:
                time.sleep(1)
            until_quiet(home)
            new = file.parent / "pictures" / "source0000" / f"new{number}.png"
            Image.new("RGB", (50, 50), (255, 255, number)).save(new)
        time.sleep(SESSION_SECONDS)
        until_quiet(home)


def run_count(home: Path) -> int:
    """Return how many runs there are."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        return instance.get_runs_count()


def at(moment: datetime, body: str) -> str:
    """Return an event or tick as if it had happened at another time."""
    return TIME.sub(f'"timestamp": {moment.timestamp()}', body)


def copy_runs(home: Path, count: int) -> None:
    """Copy the last run over a source until there are so many in a year, with all its events."""
    history = home / "history"
    with (
        closing(sqlite3.connect(history / "runs.db")) as runs,
        closing(sqlite3.connect(history / "runs" / "index.db")) as index,
        runs,
        index,
    ):
        tagged = "SELECT run_id FROM run_tags WHERE key = 'retrieval/source' ORDER BY id DESC"
        (model,) = runs.execute(tagged).fetchone()
        run = row_of(runs, "runs", model)
        tags = rows_of(runs, "run_tags", model)
        events = rows_of(index, "event_logs", model)
        checks = rows_of(index, "asset_check_executions", model)
        of_events = {
            event["id"]: list(rows(index, "asset_event_tags", "event_id", event["id"]))
            for event in events
        }
        shard = history / "runs" / f"{model}.db"
        first = datetime.now(UTC) - YEAR
        for number in range(count):
            name, moment = str(uuid.uuid4()), first + YEAR * number / count
            source = f"source{number % SOURCES:04}"
            text = f"{moment:%Y-%m-%d %H:%M:%S.%f}"

            def told(body: str, name: str = name, source: str = source) -> str:
                return body.replace(model, name).replace("source0000", source)

            insert(
                runs,
                "runs",
                {
                    **run,
                    "run_id": name,
                    "run_body": told(run["run_body"]),
                    "create_timestamp": text,
                    "update_timestamp": text,
                    "start_time": moment.timestamp() + 5,
                    "end_time": moment.timestamp() + 25,
                },
            )
            for tag in tags:
                insert(runs, "run_tags", {**tag, "run_id": name, "value": told(tag["value"])})
            for event in events:
                body = at(moment, told(event["event"]))
                partition = event["partition"] and source
                changed = {"run_id": name, "event": body, "partition": partition, "timestamp": text}
                new = insert(index, "event_logs", {**event, **changed})
                for tag in of_events[event["id"]]:
                    changed = {"event_id": new, "value": told(tag["value"] or "")}
                    insert(index, "asset_event_tags", {**tag, **changed, "event_timestamp": text})
            for check in checks:
                changed = {
                    "run_id": name,
                    "partition": check["partition"] and source,
                    "evaluation_event": at(moment, told(check["evaluation_event"])),
                    "evaluation_event_timestamp": text,
                    "create_timestamp": text,
                }
                insert(index, "asset_check_executions", {**check, **changed})
            # One file for all that `gc_job` does not reach: 20,000 would take 4 GB, and no page
            # reads more than one.
            copied = shutil.copyfile if number < MOST_RUNS else os.link
            copied(shard, history / "runs" / f"{name}.db")


def copy_ticks(home: Path, count: int) -> None:
    """Copy the ticks of the session until there are so many in a year."""
    with closing(sqlite3.connect(home / "schedules" / "schedules.db")) as ticks, ticks:
        models = rows(ticks, "job_ticks", "status", "SKIPPED")
        first = datetime.now(UTC) - YEAR
        for number in range(count):
            model, moment = models[number % len(models)], first + YEAR * number / count
            text = f"{moment:%Y-%m-%d %H:%M:%S.%f}"
            body = at(moment, model["tick_body"])
            times = {"timestamp": text, "create_timestamp": text, "update_timestamp": text}
            insert(ticks, "job_ticks", {**model, "tick_body": body, **times})


def rows(database: sqlite3.Connection, table: str, column: str, value: object) -> list[dict]:
    """Return the rows of a table that hold a value, with the names of the columns."""
    cursor = database.execute(f"SELECT * FROM {table} WHERE {column} = ?", (value,))
    names = [each[0] for each in cursor.description]
    return [dict(zip(names, row, strict=True)) for row in cursor]


def rows_of(database: sqlite3.Connection, table: str, run: str) -> list[dict]:
    """Return the rows of a run."""
    return rows(database, table, "run_id", run)


def row_of(database: sqlite3.Connection, table: str, run: str) -> dict:
    """Return the only row of a run."""
    (row,) = rows_of(database, table, run)
    return row


def insert(database: sqlite3.Connection, table: str, row: dict) -> int:
    """Insert a row with a new id, and return it."""
    row = {name: value for name, value in row.items() if name != "id"}
    names, marks = ", ".join(f'"{name}"' for name in row), ", ".join("?" * len(row))
    statement = f"INSERT INTO {table} ({names}) VALUES ({marks})"
    return database.execute(statement, tuple(row.values())).lastrowid or 0


def purge_ticks(home: Path) -> None:
    """Purge ticks as the daemon does at each tick of a sensor."""
    started = time.monotonic()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        settings = instance.get_tick_retention_settings(InstigatorType.SENSOR)
        for state in instance.all_instigator_state():
            for status, days in settings.items():
                before = (datetime.now(UTC) - timedelta(days=days)).timestamp()
                if days > 0:
                    instance.purge_ticks(
                        state.instigator_origin_id, state.selector_id, before, [status]
                    )
    with closing(sqlite3.connect(home / "schedules" / "schedules.db")) as ticks:
        (left,) = ticks.execute("SELECT count(*) FROM job_ticks").fetchone()
    print(f"purge of ticks: {time.monotonic() - started:.0f} s, {left:,} left", flush=True)


def prune_runs(file: Path, home: Path) -> None:
    """Run `gc_job`."""
    started = time.monotonic()
    library = LibraryResource(config_file=str(file))
    job = build_definitions(load_settings(file), library).resolve_job_def("gc_job")
    with dg.DagsterInstance.from_config(str(home)) as instance:
        assert job.execute_in_process(instance=instance).success
    print(f"gc_job: {time.monotonic() - started:.0f} s, {run_count(home):,} runs left", flush=True)


def print_size(home: Path) -> None:
    """Print how large the history is; files that are linked count once for each run."""
    index = (home / "history" / "runs" / "index.db").stat().st_size
    shards = sum(each.stat().st_size for each in home.glob("history/runs/*-*.db"))
    ticks = (home / "schedules" / "schedules.db").stat().st_size
    print(f"events of assets {index / 1e6:,.0f} MB, logs of runs {shards / 1e6:,.0f} MB, ", end="")
    print(f"ticks {ticks / 1e6:,.0f} MB", flush=True)


def main(folder: Path, runs: int, ticks: int) -> None:
    """Fill an instance, and measure."""
    file, home = made(folder, SOURCES, FILES), made_home(folder)
    session(file, home)
    print_size(home)
    started = time.monotonic()
    copy_ticks(home, ticks)
    copy_runs(home, runs)
    print(f"filled in {time.monotonic() - started:.0f} s", flush=True)
    print_size(home)
    for what in ("as filled", "after the purge of ticks and gc_job"):
        print(what, flush=True)
        with service(file, home, "dagster_webserver") as running:
            measure_pages(running.address, PAGES)
        if what == "as filled":
            purge_ticks(home)
            prune_runs(file, home)
            print_size(home)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20_000)
    parser.add_argument("--ticks", type=int, default=500_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        main(Path(directory), given.runs, given.ticks)
