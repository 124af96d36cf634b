"""`retrieval` as a process, and a small indexed home to run it in."""

import ctypes
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

RETRIEVAL = [sys.executable, "-m", "retrieval_pipeline"]

DATA = Path(__file__).parents[1] / "data"


def extract_home(directory: Path) -> Path:
    """Put five indexed photographs, their settings and two votes into a directory; return it."""
    directory.mkdir(parents=True, exist_ok=True)
    with tarfile.open(max(DATA.glob("home-*.tar.xz"))) as archive:
        archive.extractall(directory, filter="data")
    return directory


def retrieval(
    directory: Path, *arguments: str | bytes, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command in a directory; what it prints that is not UTF-8 becomes surrogates.

    `options` are those of `subprocess.run`; without `input` its input is empty.
    """
    if "input" not in options:
        options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    environment = {name: value for name, value in os.environ.items() if name != "RETRIEVAL_CONFIG"}
    return subprocess.run(
        [*RETRIEVAL, *arguments],
        cwd=directory,
        env=environment | options.pop("env", {}),
        encoding="utf-8",
        errors="surrogateescape",
        timeout=120,
        **options,
    )


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
