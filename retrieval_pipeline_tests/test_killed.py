"""SIGKILL wherever the store changes: the previous build answers, and the next run ends the same.

The kills and the checks are in `kill_points.py`; this module starts it, once for each kind of run.
"""

import contextlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc"),
]

KillEverywhere = Callable[[str], dict[str, Any]]


@pytest.fixture(scope="module")
def kill_everywhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KillEverywhere]:
    """Runs a scenario, which fails at the first kill that costs anything."""
    directory = tmp_path_factory.mktemp("killed")
    with (directory / "errors").open("w+") as errors:
        process = subprocess.Popen(
            [sys.executable, "-m", "retrieval_pipeline_tests.support.kill_points", str(directory)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
            # Threads of OpenMP do not survive a fork.
            env=os.environ | {"OMP_NUM_THREADS": "1"},
        )
        assert process.stdin and process.stdout
        answers = process.stdout

        def run(scenario: str) -> dict[str, Any]:
            with contextlib.suppress(BrokenPipeError):
                process.stdin.write(f"{scenario}\n")
                process.stdin.flush()
            # A harness that hangs is ended, and its answer an empty line.
            limit = threading.Timer(1_200, process.kill)
            limit.start()
            line = answers.readline()
            limit.cancel()
            assert line, (directory / "errors").read_text()[-5_000:]
            told: dict[str, Any] = json.loads(line)
            assert "error" not in told, told["error"][-5_000:]
            return told

        yield run
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        answers.close()
        process.kill()
        process.wait()


def test_an_index_run_killed_anywhere_loses_nothing_and_the_next_ends_the_same(
    kill_everywhere: KillEverywhere,
) -> None:
    told = kill_everywhere("index")
    # Before and after the moment in which each of them becomes visible.
    for name in ("pictures.parquet", "part-000003.parquet", "quarantine.parquet", "CURRENT"):
        assert {f"before replace {name}", f"after replace {name}"} <= set(told["points"])
    written = {label.split()[-1] for label in told["points"] if label.startswith("before fsync")}
    assert written >= {
        "vectors.npy",
        "segment.json",
        "runs.npy",
        "build.json",
        "map.json",
        "map.png",
    }
    assert len(told["points"]) >= 100
    assert len(told["tried"]) >= 30
    assert told["finished"] >= 8


def test_a_vote_killed_anywhere_is_counted_or_not_and_the_others_stay(
    kill_everywhere: KillEverywhere,
) -> None:
    told = kill_everywhere("vote")
    assert {"before replace taste.parquet", "after replace taste.parquet"} <= set(told["points"])
    assert (len(told["tried"]), told["finished"]) == (3, 2)


def test_gc_killed_anywhere_loses_nothing_and_the_next_finishes(
    kill_everywhere: KillEverywhere,
) -> None:
    told = kill_everywhere("gc")
    assert "after replace part-000001-000004.parquet" in told["tried"]
    assert len(told["tried"]) >= 10


def test_a_repair_killed_anywhere_can_be_repeated(kill_everywhere: KillEverywhere) -> None:
    told = kill_everywhere("repair")
    assert {"after replace pictures.parquet", "after replace CURRENT"} <= set(told["points"])
    assert len(told["tried"]) >= 8
