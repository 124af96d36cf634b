"""How long Dagster takes with many sources: definitions, a tick, from a new file to the index.

python benchmarks/many_sources.py --sources 2000 --files 10           # definitions and ticks
python benchmarks/many_sources.py --sources 2000 --files 10 --pages   # and pages in Chromium
python benchmarks/many_sources.py --sources 300 --files 5 --service   # and `dagster dev`
"""

import argparse
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
from dagster_service import made, made_home, measure_pages, service, until_quiet
from PIL import Image

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.history import open_history
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.storage.store import Store

PATIENCE_SECONDS = 1_800
PAGES = {
    "automation": "automation",
    "asset, partitions": "assets/image_embeddings?view=partitions",
    "asset, overview": "assets/image_embeddings?view=overview",
    "asset, checks": "assets/image_embeddings?view=checks",
    "all assets": "assets",
    "asset graph": "asset-groups",
    "runs": "runs",
}


def cpu_seconds(process: int) -> float:
    """Return the CPU seconds of a process and all below it, also of those that have ended."""
    parents: dict[int, int] = {}
    used: dict[int, float] = {}
    for status in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = status.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        number = int(status.parent.name)
        parents[number] = int(fields[1])
        used[number] = sum(map(int, fields[11:15])) / os.sysconf("SC_CLK_TCK")

    def below(number: int) -> float:
        return used.get(number, 0) + sum(below(each) for each in parents if parents[each] == number)

    return below(process)


def measure_definitions(file: Path) -> None:
    """Print how long the definitions load, and how long a first and a second tick take."""
    started = time.monotonic()
    library = LibraryResource(config_file=str(file))
    defs = build_definitions(load_settings(file), library)
    dg.Definitions.validate_loadable(defs)
    print(f"definitions: {time.monotonic() - started:.1f} s")
    with dg.DagsterInstance.ephemeral() as instance:
        cursor = None
        for name in ("first tick", "second tick"):
            context = dg.build_sensor_context(instance, cursor, resources={"library": library})
            started = time.monotonic()
            tick = defs.get_sensor_def("watch").evaluate_tick(context)
            cursor = tick.cursor
            runs = len(tick.run_requests or ())
            print(f"{name}: {time.monotonic() - started:.1f} s, {runs} runs")
        started = time.monotonic()
        result = dg.evaluate_automation_conditions(
            defs, instance, defs.get_sensor_def("follow_new_data").asset_selection
        )
        seconds = time.monotonic() - started
        print(f"evaluation of the automation: {seconds:.1f} s, {result.total_requested} requested")


def measure_service(file: Path, images: int) -> None:
    """Start `dagster dev`; print when all is indexed, when one more file is, and its history."""
    home = made_home(file.parent)
    store = Store(file.parent / "home")
    # What comes before the web server answers counts, too.
    begun = time.monotonic()

    def until(count: int, what: str, started: float, before: float) -> None:
        while store.current_build() is None or len(open_current(store)) < count:
            if time.monotonic() - started > PATIENCE_SECONDS:
                raise SystemExit(f"{what}: not within {PATIENCE_SECONDS} s")
            time.sleep(0.5)
        seconds, cpu = time.monotonic() - started, cpu_seconds(dev.process) - before
        load = os.getloadavg()[0]
        print(f"{what}: {seconds:.0f} s, {cpu:.0f} s of CPU (load {load:.0f})", flush=True)

    with service(file, home, "dagster", "dev") as dev:
        until(images, "from the start of `dagster dev` to an index of all", begun, 0.0)
        until_quiet(home)
        new = file.parent / "pictures" / "source0000" / "new.png"
        started, before = time.monotonic(), cpu_seconds(dev.process)
        Image.new("RGB", (50, 50), (255, 255, 255)).save(new)
        until(images + 1, "from a new file to the index", started, before)
        until_quiet(home)
    with dg.DagsterInstance.from_config(str(home)) as instance:
        records = instance.get_run_records()
        jobs = sorted(record.dagster_run.job_name for record in records)
        for record in reversed(records):
            run, asked = record.dagster_run, record.create_timestamp.timestamp()
            start, end = record.start_time or asked, record.end_time or asked
            print(f"{run.job_name}: queued for {start - asked:.0f} s, ran for {end - start:.0f} s")
    size = sum(each.stat().st_size for each in home.rglob("*.db"))
    print(f"{len(jobs)} runs ({', '.join(sorted(set(jobs)))}), {size / 1e6:.1f} MB of history")


def open_pages(file: Path) -> None:
    """Record every source as embedded, and open the pages that operators use."""
    home = file.parent / "dagster"
    if not home.exists():
        made_home(file.parent)

    @dg.op(out={})
    def record(context: dg.OpExecutionContext) -> Iterator[dg.AssetMaterialization]:
        with open_history(context.instance, context.run.run_id):
            for name in load_settings(file).source_names:
                for asset in ("file_manifest", "image_embeddings"):
                    yield dg.AssetMaterialization(
                        asset,
                        partition=name,
                        tags={"dagster/data_version": "1"},
                        metadata={"dagster/partition_row_count": 10},
                    )

    with dg.DagsterInstance.from_config(str(home)) as instance:
        job = dg.GraphDefinition(name="recording", node_defs=[record]).to_job()
        job.execute_in_process(instance=instance)
    with service(file, home, "dagster_webserver") as running:
        measure_pages(running.address, PAGES)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, default=300)
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--service", action="store_true")
    parser.add_argument("--pages", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        settings_file = made(Path(directory), given.sources, given.files)
        measure_definitions(settings_file)
        if given.service:
            measure_service(settings_file, given.sources * given.files)
        if given.pages:
            open_pages(settings_file)
