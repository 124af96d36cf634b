"""`retrieval` as a process, and a small indexed home to run it in."""

import ctypes
import os
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path

from retrieval_pipeline_tests.support.forked_commands import run_forked

RETRIEVAL = [sys.executable, "-m", "retrieval_pipeline"]

DATA = Path(__file__).parents[1] / "data"


def extract_home(directory: Path) -> Path:
    """Put five indexed photographs, their settings and two votes into a directory; return it."""
    directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(max(DATA.glob("home-*.tar.xz"))) as archive:
        archive.extractall(directory, filter="data")
    return directory


def own_environment() -> dict[str, str]:
    """The variables of this process, but for the one that would name other settings."""
    return {name: value for name, value in os.environ.items() if name != "RETRIEVAL_CONFIG"}


def retrieval(
    directory: Path,
    *arguments: str | bytes,
    input: str = "",
    env: Mapping[str, str] | None = None,
    preexec_fn: Callable[[], object] | None = None,
    started: bool = False,
) -> subprocess.CompletedProcess[str]:
    """Run a command in a directory; what it prints that is not UTF-8 becomes surrogates.

    Args:
        directory: The working directory.
        arguments: Those after the name of the command.
        input: What it reads.
        env: Variables beside those of this process.
        preexec_fn: Called in the new process before Python starts.
        started: True to start a new Python, where that matters, as it does for `preexec_fn`.
    """
    environment = own_environment() | dict(env or {})
    data = input.encode("utf-8", "surrogateescape")
    if started or preexec_fn:
        done = subprocess.run(
            [*RETRIEVAL, *arguments],
            cwd=directory,
            env=environment,
            input=data,
            capture_output=True,
            preexec_fn=preexec_fn,
            timeout=120,
        )
    else:
        done = run_forked(directory, arguments, environment, input=data)
    output, errors = (
        stream.decode("utf-8", "surrogateescape") for stream in (done.stdout, done.stderr)
    )
    return subprocess.CompletedProcess(done.args, done.returncode, output, errors)


def obey_permissions() -> None:
    """Take from root, before the program starts, the right to read what its mode forbids."""
    # PR_CAPBSET_DROP with CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH (man 2 prctl).
    for capability in (1, 2):
        ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)


def assert_one_line(done: subprocess.CompletedProcess[str], *parts: str) -> None:
    """A command failed with one line on stderr that holds these parts."""
    lines = done.stderr.splitlines()
    assert done.returncode == 1, done.stderr
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("error: "), done.stderr
    for part in parts:
        assert part in lines[0]
