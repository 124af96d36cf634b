"""How long Dagster takes with many sources: definitions, a tick, from a new file to the index.

python benchmarks/many_sources.py --sources 2000 --files 10           # definitions and ticks
python benchmarks/many_sources.py --sources 300 --files 5 --service   # and `dagster dev`
"""

import argparse
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES
from PIL import Image

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.index.build import open_current
from retrieval_pipeline.orchestration.code_location import build_definitions
from retrieval_pipeline.orchestration.resources import LibraryResource
from retrieval_pipeline.storage.store import Store

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 1_800


def made(folder: Path, sources: int, files: int) -> Path:
    """Write small pictures, each of another colour, and a settings file; return the file."""
    pairs = []
    number = 0
    for source in range(sources):
        directory = folder / "pictures" / f"source{source:04}"
        directory.mkdir(parents=True)
        pairs.append((directory.name, directory))
        for file in range(files):
            number += 1
            colour = (number % 256, number // 256 % 256, number // 65_536)
            Image.new("RGB", (48, 32), colour).save(directory / f"{file}.png")
    settings = folder / "retrieval.toml"
    settings.write_text(settings_text(pairs, model="offline", home="home"))
    return settings


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


def until_quiet(home: Path) -> None:
    """Wait until no run of the Dagster of this home is on its way."""
    with dg.DagsterInstance.from_config(str(home)) as instance:
        while instance.get_runs_count(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)):
            time.sleep(1)


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


def measure_service(file: Path, images: int, port: int) -> None:
    """Start `dagster dev`; print when all is indexed, when one more file is, and its history."""
    home = file.parent / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "deploy" / "dagster.yaml").read_text())
    command = ["-m", "dagster", "dev", "-w", str(ROOT / "workspace.yaml"), "-p", str(port)]
    env = {
        **os.environ,
        "DAGSTER_HOME": str(home),
        "RETRIEVAL_CONFIG": str(file),
        "PYTHONPATH": str(ROOT),
    }
    store = Store(file.parent / "home")

    def until(count: int, what: str) -> None:
        started, before = time.monotonic(), cpu_seconds(process.pid)
        while store.current_build() is None or len(open_current(store)) < count:
            if time.monotonic() - started > PATIENCE_SECONDS:
                raise SystemExit(f"{what}: not within {PATIENCE_SECONDS} s")
            time.sleep(0.5)
        seconds, cpu = time.monotonic() - started, cpu_seconds(process.pid) - before
        load = os.getloadavg()[0]
        print(f"{what}: {seconds:.0f} s, {cpu:.0f} s of CPU (load {load:.0f})", flush=True)

    with (file.parent / "dev.log").open("w") as log:
        process = subprocess.Popen(
            [sys.executable, *command],
            env=env,
            cwd=home,
            stdout=log,
            stderr=log,
            process_group=0,
        )
    try:
        until(images, "from the start of `dagster dev` to an index of all")
        until_quiet(home)
        new = file.parent / "pictures" / "source0000" / "new.png"
        Image.new("RGB", (50, 50), (255, 255, 255)).save(new)
        until(images + 1, "from a new file to the index")
        time.sleep(30)
    finally:
        process.terminate()
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            # With its daemon and servers, which would go on without it.
            os.killpg(process.pid, signal.SIGKILL)
    os.environ["DAGSTER_HOME"] = str(home)
    with dg.DagsterInstance.get() as instance:
        records = instance.get_run_records()
        jobs = sorted(record.dagster_run.job_name for record in records)
        for record in reversed(records):
            run, asked = record.dagster_run, record.create_timestamp.timestamp()
            start, end = record.start_time or asked, record.end_time or asked
            print(f"{run.job_name}: queued for {start - asked:.0f} s, ran for {end - start:.0f} s")
    size = sum(each.stat().st_size for each in home.rglob("*.db"))
    print(f"{len(jobs)} runs ({', '.join(sorted(set(jobs)))}), {size / 1e6:.1f} MB of history")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sources", type=int, default=300)
    parser.add_argument("--files", type=int, default=10)
    parser.add_argument("--service", action="store_true")
    parser.add_argument("--port", type=int, default=3107)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        settings_file = made(Path(directory), given.sources, given.files)
        measure_definitions(settings_file)
        if given.service:
            measure_service(settings_file, given.sources * given.files, given.port)
