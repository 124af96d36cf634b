"""How long a run of the whole flow takes with each of Dagster's executors.

    python benchmarks/executors.py DIRECTORY [--rounds 2]

A run is `reindex_job` over a directory of pictures with the offline model, from an empty home, in a
process of its own as the daemon starts it. The rounds alternate between the executors. Processor
time is that of all its processes, and says more than the clock where other work is going on.
"""

import argparse
import contextlib
import ctypes
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import dagster as dg

from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.config.template import settings_text
from retrieval_pipeline.orchestration import code_location
from retrieval_pipeline.orchestration.resources import LibraryResource

PR_SET_CHILD_SUBREAPER = 36
PRELOAD = {"forkserver": {"preload_modules": ["torch", "retrieval_pipeline.definitions"]}}
EXECUTORS = {
    "in process": dg.in_process_executor,
    "multiprocess, spawn": dg.multiprocess_executor.configured({"start_method": {"spawn": {}}}),
    "multiprocess, forkserver": dg.multiprocess_executor.configured({"start_method": PRELOAD}),
}


def job() -> dg.JobDefinition:
    """The job as a step's process loads it again."""
    code_location.EXECUTOR = EXECUTORS[os.environ["BENCHMARK_EXECUTOR"]]
    config = Path(os.environ["RETRIEVAL_CONFIG"])
    built = code_location.build_definitions(
        load_settings(config), LibraryResource(config_file=str(config))
    )
    return built.resolve_job_def("reindex_job")


def run() -> None:
    with dg.DagsterInstance.local_temp() as instance:
        done = dg.execute_job(
            dg.reconstructable(job),
            instance,
            tags={"dagster/partition": "pictures"},
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        sys.exit(0 if done.success else 1)


def measure(pictures: Path, executor: str) -> tuple[float, float]:
    """Return the seconds by the clock and of the processors."""
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "retrieval.toml"
        text = settings_text([("pictures", pictures)], model="offline", home="home")
        file.write_text(text)
        environment = {"BENCHMARK_EXECUTOR": executor, "RETRIEVAL_CONFIG": str(file)}
        started, before = time.perf_counter(), processor_seconds()
        subprocess.run(
            [sys.executable, __file__, "--run"], env={**os.environ, **environment}, check=True
        )
        seconds = time.perf_counter() - started
        return seconds, processor_seconds() - before


def processor_seconds() -> float:
    """Return the processor time of all processes that have ended, also of orphans."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-1, 0)
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("directory", type=Path, nargs="?")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--run", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.run:
        run()
    # Processes that a run leaves behind become children of this one.
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in EXECUTORS}
    for _ in range(arguments.rounds):
        for name in EXECUTORS:
            runs[name].append(measure(arguments.directory.absolute(), name))
    medians = {
        name: [statistics.median(column) for column in zip(*each, strict=True)]
        for name, each in runs.items()
    }
    least = min(processor for _, processor in medians.values())
    print("| executor | seconds | processor seconds | ratio |\n|---|--:|--:|--:|")
    for name, (clock, processor) in medians.items():
        print(f"| {name} | {clock:.1f} | {processor:.1f} | {processor / least:.2f} |")


if __name__ == "__main__":
    main()
