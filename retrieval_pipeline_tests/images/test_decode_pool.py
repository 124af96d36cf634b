"""The workers are real processes, and what befalls them is real: signals, limits, broken files."""

import os
import pickle
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from retrieval_pipeline.images import decode_pool as decode_module
from retrieval_pipeline.images import worker as worker_module
from retrieval_pipeline.images.decode_pool import (
    Changed,
    DecodePool,
    Job,
    Outcome,
    default_workers,
)
from retrieval_pipeline.images.errors import ImageError, Limits, Reason
from retrieval_pipeline.images.transform import Decoded, Fit, ImageTransform
from retrieval_pipeline.images.worker import Worker, WorkerError
from retrieval_pipeline.storage.content_id import content_id
from retrieval_pipeline_tests.support.decoding import decode, one_bit_png
from retrieval_pipeline_tests.support.library import FORMATS

pytestmark = pytest.mark.slow

TRANSFORM = ImageTransform(
    resize=32, crop=(32, 32), resample="bicubic", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)
)
LIMITS = Limits()
ROOT = Path(__file__).parents[2]


def picture(size: int, colour: str = "teal", format: str = "PNG") -> bytes:
    buffer = BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, format)
    return buffer.getvalue()


@pytest.fixture
def files(tmp_path: Path) -> list[str]:
    """Twelve pictures, of which the first takes the longest."""
    paths = []
    for number in range(12):
        path = tmp_path / f"{number}.png"
        path.write_bytes(picture(2_000 if number == 0 else 20 + number))
        paths.append(str(path))
    return paths


def outcomes(pool: DecodePool, paths: list[str]) -> list[Outcome]:
    return [outcome for _, outcome in pool.map(Job(path) for path in paths)]


def summary(outcome: Outcome) -> str:
    return outcome.reason if isinstance(outcome, ImageError) else type(outcome).__name__


def exists(pid: int) -> bool:
    """Whether there is such a process, be it a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.fixture
def strike(monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, list[int]]]:
    """Signals that a worker gets right before its job of that path: the first of each list."""
    signals: dict[str, list[int]] = {}
    original = Worker.answer

    def struck(self: Worker, task: Any, seconds: float) -> Any:
        if signals.get(task[0]):
            os.kill(self.pid, signals[task[0]].pop(0))
        return original(self, task, seconds)

    monkeypatch.setattr(Worker, "answer", struck)
    yield signals
    assert not any(signals.values()), "a signal was not sent"


# What the pool gives


def test_outcomes_come_in_the_order_of_the_jobs_with_the_right_pixels(files: list[str]) -> None:
    jobs = [Job(path) for path in files]
    with DecodePool(TRANSFORM, LIMITS, workers=3) as pool:
        results = list(pool.map(jobs))
    assert [job for job, _ in results] == jobs
    for job, outcome in results:
        expected = decode(job.path, TRANSFORM, LIMITS)
        assert isinstance(outcome, Decoded)
        assert (outcome.width, outcome.height, outcome.format) == (
            expected.width,
            expected.height,
            "PNG",
        )
        np.testing.assert_array_equal(outcome.pixels, expected.pixels)
        assert outcome.pixels.flags.writeable


def test_a_worker_makes_thumbnails_too(tmp_path: Path) -> None:
    wide = tmp_path / "wide.png"
    Image.new("RGB", (400, 100), "teal").save(wide)
    with DecodePool(Fit(80), LIMITS, workers=1) as pool:
        outcome = pool.submit(Job(str(wide))).result()
    assert isinstance(outcome, Decoded)
    assert outcome.pixels.shape == (20, 80, 3)
    assert (outcome.width, outcome.height) == (400, 100)


def test_jobs_are_read_only_as_far_ahead_as_asked(files: list[str]) -> None:
    read = count()
    jobs = (Job(files[1 + next(read) % 11]) for _ in range(1_000))
    with DecodePool(TRANSFORM, LIMITS, workers=2, look_ahead=5) as pool:
        results = pool.map(jobs)
        for _ in range(10):
            next(results)
        assert next(read) == 10 + 5


def test_a_pool_can_be_used_again_after_a_consumer_has_stopped_early(files: list[str]) -> None:
    with DecodePool(TRANSFORM, LIMITS, workers=2) as pool:
        next(pool.map(Job(path) for path in files))
        pids = pool.pids
        assert len(outcomes(pool, files)) == len(files)
        assert set(pids) <= set(pool.pids)


def test_one_picture_at_a_time_starts_one_worker(files: list[str]) -> None:
    with DecodePool(TRANSFORM, LIMITS, workers=3) as pool:
        for path in files[1:6]:
            assert isinstance(pool.submit(Job(path)).result(), Decoded)
        assert len(pool.pids) == 1


def test_a_job_may_have_a_transform_of_its_own(files: list[str]) -> None:
    with DecodePool(TRANSFORM, LIMITS, workers=1) as pool:
        sizes = [pool.submit(Job(files[0]), Fit(size)).result() for size in (10, 20)]
        assert [found.pixels.shape[0] for found in sizes if isinstance(found, Decoded)] == [10, 20]


def test_no_jobs_start_no_workers() -> None:
    with DecodePool(TRANSFORM, LIMITS, workers=2) as pool:
        assert list(pool.map([])) == []
        assert pool.pids == []


def test_a_file_with_other_content_than_expected_or_none_is_changed(files: list[str]) -> None:
    data = Path(files[3]).read_bytes()
    jobs = [Job(files[3], content_id(data)), Job(files[4], content_id(data)), Job(files[5])]
    jobs.append(Job(f"{files[3]}.gone", content_id(data)))
    with DecodePool(TRANSFORM, LIMITS, workers=1) as pool:
        results = [summary(outcome) for _, outcome in pool.map(jobs)]
    assert results == ["Decoded", "Changed", "Decoded", "Changed"]
    assert Changed() == Changed()


def test_names_that_are_no_text_and_files_that_are_gone_are_fine(tmp_path: Path) -> None:
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff\xfe\nodd .jpg")
    Path(odd).write_bytes(picture(20))
    os.mkfifo(tmp_path / "pipe.jpg")
    paths = [odd, str(tmp_path / "gone.jpg"), str(tmp_path / "pipe.jpg"), str(tmp_path)]
    with DecodePool(TRANSFORM, LIMITS, workers=2) as pool:
        results = [summary(outcome) for outcome in outcomes(pool, paths)]
    assert results == ["Decoded", "unreadable", "unreadable", "unreadable"]


# Workers that hang, crash or are killed


@pytest.mark.parametrize("number", [signal.SIGSEGV, signal.SIGABRT, signal.SIGBUS])
def test_a_crash_costs_one_image_and_one_worker(
    files: list[str], strike: dict[str, list[int]], number: signal.Signals
) -> None:
    strike[files[4]] = [number]
    with DecodePool(TRANSFORM, LIMITS, workers=1) as pool:
        results = outcomes(pool, files)
    assert [i for i, result in enumerate(results) if not isinstance(result, Decoded)] == [4]
    assert isinstance(results[4], ImageError)
    assert results[4].reason == Reason.CRASHED
    assert number.name in results[4].detail


def test_a_decoder_that_hangs_times_out(files: list[str], strike: dict[str, list[int]]) -> None:
    strike[files[4]] = [signal.SIGSTOP]
    with DecodePool(TRANSFORM, Limits(seconds=5), workers=2) as pool:
        results = [summary(outcome) for outcome in outcomes(pool, files[1:])]
    assert results == ["Decoded"] * 3 + ["timed_out"] + ["Decoded"] * 7


def test_a_worker_that_is_killed_from_outside_costs_no_image(
    files: list[str], strike: dict[str, list[int]]
) -> None:
    strike[files[4]] = [signal.SIGKILL]
    strike[files[5]] = [signal.SIGTERM]
    with DecodePool(TRANSFORM, LIMITS, workers=2) as pool:
        assert {summary(outcome) for outcome in outcomes(pool, files)} == {"Decoded"}


def test_an_image_whose_workers_are_killed_again_and_again_is_given_up(
    files: list[str], strike: dict[str, list[int]]
) -> None:
    strike[files[4]] = [signal.SIGKILL, signal.SIGKILL]
    with DecodePool(TRANSFORM, LIMITS, workers=1) as pool:
        results = [summary(outcome) for outcome in outcomes(pool, files)]
    assert results == ["Decoded"] * 4 + ["crashed"] + ["Decoded"] * 7


def test_a_worker_that_is_killed_in_the_middle_of_a_job_is_replaced(files: list[str]) -> None:
    with DecodePool(TRANSFORM, LIMITS, workers=1) as pool:
        outcomes(pool, files[1:2])
        (pid,) = pool.pids
        os.kill(pid, signal.SIGSTOP)  # takes the job, but does nothing
        killer = threading.Timer(0.3, os.kill, (pid, signal.SIGKILL))
        killer.start()
        assert {summary(outcome) for outcome in outcomes(pool, files)} == {"Decoded"}
        assert pool.pids != [pid]
        killer.join()


def test_a_worker_that_is_killed_while_it_starts_costs_no_image(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Worker.prepare
    killed = []

    def killed_once(self: Worker, limits: Limits) -> None:
        if not killed:
            os.kill(self.pid, signal.SIGKILL)
            killed.append(self.pid)
        original(self, limits)

    monkeypatch.setattr(Worker, "prepare", killed_once)
    with DecodePool(TRANSFORM, LIMITS, workers=1) as pool:
        assert {summary(outcome) for outcome in outcomes(pool, files)} == {"Decoded"}


def test_workers_that_do_not_start_are_an_error_and_blame_no_image(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = [sys.executable, "-c", "raise SystemExit(3)"]
    monkeypatch.setattr(worker_module, "python_command", lambda *_: failing)
    with (
        DecodePool(TRANSFORM, LIMITS, workers=2) as pool,
        pytest.raises(WorkerError, match="exit code 3"),
    ):
        outcomes(pool, files)


def test_a_memory_bomb_is_too_large_and_its_worker_survives(tmp_path: Path) -> None:
    bomb, small = tmp_path / "bomb.png", tmp_path / "small.png"
    bomb.write_bytes(one_bit_png(17_000))
    small.write_bytes(picture(20))
    with DecodePool(TRANSFORM, Limits(memory_mb=250), workers=1) as pool:
        before, big, after = outcomes(pool, [str(small), str(bomb), str(small)])
        (pid,) = pool.pids
        peak = Path(f"/proc/{pid}/status").read_text().split("VmHWM:")[1].split()[0]
    assert (summary(before), summary(big), summary(after)) == ("Decoded", "too_large", "Decoded")
    assert int(peak) < 250 * 1024


def test_a_very_long_picture_takes_little_memory(tmp_path: Path) -> None:
    path = tmp_path / "line.png"
    Image.new("L", (60_000, 1), 200).save(path)
    with DecodePool(TRANSFORM, Limits(memory_mb=150), workers=1) as pool:
        assert [summary(outcome) for outcome in outcomes(pool, [str(path)])] == ["Decoded"]


# Endings


def test_leaving_the_pool_kills_workers_that_hang(
    files: list[str], strike: dict[str, list[int]]
) -> None:
    strike[files[4]] = [signal.SIGSTOP]

    pids: list[int] = []
    with pytest.raises(InterruptedError), DecodePool(TRANSFORM, LIMITS, workers=2) as pool:
        for job, _ in pool.map(Job(path) for path in files):
            if job.path == files[3]:
                while strike[files[4]]:
                    time.sleep(0.01)
                pids = pool.pids
                raise InterruptedError
    assert len(pids) == 2
    assert not any(map(exists, pids))


PARENT = """
import sys
from retrieval_pipeline.images.decode_pool import DecodePool, Job
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.images.transform import ImageTransform

transform = ImageTransform(32, (32, 32), "bicubic", (0.5,) * 3, (0.5,) * 3)
with DecodePool(transform, Limits(), workers=2) as pool:
    for number, _ in enumerate(pool.map(Job(sys.argv[1]) for _ in iter(int, 1))):
        if number == 20:
            print(*pool.pids, flush=True)
"""


@pytest.fixture
def parent(files: list[str]) -> Iterator[tuple["subprocess.Popen[str]", list[int]]]:
    """A process group of its own that decodes without end, and the ids of its workers."""
    process = subprocess.Popen(
        [sys.executable, "-c", PARENT, files[2]],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout
    yield process, [int(pid) for pid in process.stdout.readline().split()]
    process.kill()
    process.communicate()


def test_ctrl_c_reaches_the_parent_alone_and_ends_all(
    parent: tuple["subprocess.Popen[str]", list[int]],
) -> None:
    process, pids = parent
    os.killpg(process.pid, signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == -signal.SIGINT
    assert errors.count("Traceback") == errors.count("KeyboardInterrupt") == 1
    assert len(pids) == 2
    assert not any(map(exists, pids))


def test_workers_end_when_their_parent_is_killed(
    parent: tuple["subprocess.Popen[str]", list[int]],
) -> None:
    process, pids = parent
    assert all(map(exists, pids))
    process.kill()
    # The workers share its stderr, which ends with the last of them.
    _, errors = process.communicate(timeout=60)
    assert errors == ""


IMPATIENT = [
    sys.executable,
    "-c",
    "import retrieval_pipeline.images.decode_worker as w; w.ORPHAN_SECONDS = 0.0; w.main()",
]


def test_a_worker_that_nobody_kills_ends_itself(tmp_path: Path) -> None:
    slow = tmp_path / "slow.png"
    slow.write_bytes(one_bit_png(17_000))
    messages = [Limits(seconds=0.01), (str(slow), None, TRANSFORM, "centre", False)]
    result = subprocess.run(
        IMPATIENT,
        cwd=ROOT,
        input=b"".join(map(pickle.dumps, messages)),
        capture_output=True,
    )
    assert result.returncode == -signal.SIGALRM


def test_a_worker_waits_for_a_parent_that_is_slow_to_read(files: list[str]) -> None:
    big = replace(TRANSFORM, resize=300, crop=(300, 300))  # more than a pipe holds
    messages = [Limits(seconds=3), (files[3], None, big, "centre", False)]
    with subprocess.Popen(
        IMPATIENT, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as worker:
        assert worker.stdin and worker.stdout
        worker.stdin.write(b"".join(map(pickle.dumps, messages)))
        worker.stdin.close()
        time.sleep(3.5)
        assert len(worker.stdout.read()) > 300 * 300 * 3
    assert worker.returncode == 0


def test_prints_of_libraries_do_not_reach_the_channel() -> None:
    code = """if True:
        import os, sys
        from retrieval_pipeline.images.decode_worker import private_channels
        jobs, answers = private_channels()
        print("stray", flush=True)
        os.system("echo stray; echo stray >&2")
        answers.write(jobs.read() + b"back")
    """
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        input=b"there and ",
        capture_output=True,
        check=True,
    )
    assert result.stdout == b"there and back"
    assert result.stderr == b""


def test_a_worker_imports_nothing_heavy() -> None:
    code = "import sys, retrieval_pipeline.images.decode_worker; print(*sys.modules)"
    result = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    heavy = {"torch", "transformers", "pyarrow", "pydantic", "dagster", "sklearn", "scipy"}
    assert not heavy & set(result.stdout.split())


def test_a_worker_sees_no_secrets_no_network_and_no_directory_of_the_user(
    files: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hidden")
    monkeypatch.chdir(Path(files[0]).parent)
    with DecodePool(TRANSFORM, LIMITS, workers=1) as pool:
        assert [summary(outcome) for outcome in outcomes(pool, ["3.png"])] == ["Decoded"]
        (pid,) = pool.pids
        worker = Path(f"/proc/{pid}")
        assert b"hidden" not in (worker / "environ").read_bytes()
        assert (worker / "cwd").readlink() == Path("/")
        limits = (worker / "limits").read_text()
        assert "Max file size             0                    0" in limits
        namespaces = [path.readlink() for path in (worker / "ns/net", Path("/proc/self/ns/net"))]
    permitted = subprocess.run(["unshare", "-rn", "true"], capture_output=True).returncode == 0
    assert (namespaces[0] != namespaces[1]) or not permitted


def test_there_is_a_worker_for_each_core_up_to_a_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def on(cores: int) -> int:
        monkeypatch.setattr(decode_module, "available_cores", lambda: cores)
        return default_workers()

    assert [on(cores) for cores in (1, 2, 8, 64, 128)] == [1, 2, 8, 64, 64]


# Hostile files


def test_every_odd_file_ends_as_exactly_one_typed_outcome(
    shared_data: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    paths = sorted(str(p) for p in (shared_data / "odd_images").rglob("*") if p.is_file())
    with DecodePool(TRANSFORM, LIMITS, workers=2) as pool:
        results = list(pool.map(Job(path) for path in paths))
        assert len(pool.pids) == 2
    assert [job.path for job, _ in results] == paths
    tally = Counter(summary(outcome) for _, outcome in results)
    # No decoder of this Pillow crashes or hangs on them any more.
    assert set(tally) == {"Decoded", "not_an_image", "truncated", "too_large", "unsupported"}
    assert tally["Decoded"] > 0.75 * len(paths)
    for _, outcome in results:
        if isinstance(outcome, Decoded):
            assert outcome.pixels.shape == (32, 32, 3)
    assert capfd.readouterr() == ("", "")


def damaged(data: bytes, chance: random.Random) -> bytes:
    """Overwrite, cut out, repeat or cut off a few bytes, mostly of the header."""
    changed = bytearray(data)
    for _ in range(chance.randint(1, 6)):
        at = chance.randrange(min(len(changed), chance.choice((64, 1_000_000))))
        match chance.randrange(4):
            case 0:
                changed[at] = chance.choice((0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)))
            case 1:
                changed[at : at + 4] = chance.randbytes(4)
            case 2:
                del changed[at : at + chance.randint(1, 30)]
            case _:
                changed[at:at] = changed[at : at + chance.randint(1, 30)]
    return bytes(changed[: len(changed) // 2] if chance.random() < 0.1 else changed)


def test_damaged_files_end_as_typed_outcomes(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    chance = random.Random(6)
    paths = []
    for format in FORMATS:
        buffer = BytesIO()
        noise = Image.frombytes("RGB", (48, 40), chance.randbytes(48 * 40 * 3))
        noise.save(buffer, format)
        for number in range(40):
            path = tmp_path / f"{format}{number}"
            path.write_bytes(damaged(buffer.getvalue(), chance))
            paths.append(str(path))
    with DecodePool(TRANSFORM, Limits(memory_mb=500, seconds=20), workers=2) as pool:
        tally = Counter(summary(outcome) for outcome in outcomes(pool, paths))
    assert tally.total() == len(paths)
    assert tally["truncated"] and tally["Decoded"] and tally["not_an_image"]
    assert capfd.readouterr() == ("", "")
