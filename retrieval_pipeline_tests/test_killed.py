"""SIGKILL wherever the store changes: the previous build answers, and the next run ends the same.

The kills and the checks are in `kill_points.py`; this module starts it, once for each kind of run.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")


def kill_everywhere(directory: Path, scenario: str) -> dict[str, Any]:
    """Run a scenario; it fails at the first kill that costs anything."""
    result = subprocess.run(
        [
            sys.executable,
            "-m",
            "retrieval_pipeline_tests.support.kill_points",
            str(directory),
            scenario,
        ],
        capture_output=True,
        text=True,
        # Threads of OpenMP do not survive a fork.
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        timeout=1_200,
    )
    assert result.returncode == 0, result.stderr[-5_000:]
    told: dict[str, Any] = json.loads(result.stdout)
    return told


def test_an_index_run_killed_anywhere_loses_nothing_and_the_next_ends_the_same(
    tmp_path: Path,
) -> None:
    told = kill_everywhere(tmp_path, "index")
    # Before and after the moment in which each of them becomes visible.
    for name in ("pictures.parquet", "part-000003.parquet", "quarantine.parquet", "CURRENT"):
        assert {f"before replace {name}", f"after replace {name}"} <= set(told["points"])
    written = {label.split()[-1] for label in told["points"] if label.startswith("before fsync")}
    assert written >= {"items.arrow", "vectors.annoy", "build.json", "map.json", "map.png"}
    assert len(told["points"]) >= 100
    assert len(told["tried"]) >= 30
    assert told["finished"] >= 8


def test_a_vote_killed_anywhere_is_counted_or_not_and_the_others_stay(tmp_path: Path) -> None:
    told = kill_everywhere(tmp_path, "vote")
    assert {"before replace taste.parquet", "after replace taste.parquet"} <= set(told["points"])
    assert (len(told["tried"]), told["finished"]) == (3, 2)


def test_gc_killed_anywhere_loses_nothing_and_the_next_finishes(tmp_path: Path) -> None:
    told = kill_everywhere(tmp_path, "gc")
    assert "after replace part-000001-000004.parquet" in told["tried"]
    assert len(told["tried"]) >= 10


def test_a_repair_killed_anywhere_can_be_repeated(tmp_path: Path) -> None:
    told = kill_everywhere(tmp_path, "repair")
    assert {"after replace pictures.parquet", "after replace CURRENT"} <= set(told["points"])
    assert len(told["tried"]) >= 8
