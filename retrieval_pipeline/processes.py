"""Processes of our own for risky work: they run our code alone, and know no more than they need."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TypedDict

from retrieval_pipeline.errors import CommandError

# Variables that a child needs to find its libraries and to behave as its parent does. All others,
# among them every token and key, stay with the parent.
INHERITED_VARIABLES = {
    *("PATH", "HOME", "USER", "TMPDIR", "TZ", "LANG", "LANGUAGE"),
    *("LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_LIBRARY_PATH", "DYLD_FALLBACK_LIBRARY_PATH"),
    *("PYTHONHOME", "PYTHONPATH", "PYTHONUSERBASE", "PYTHONDONTWRITEBYTECODE"),
}
INHERITED_PREFIXES = ("LC_", "OMP_", "MKL_", "OPENBLAS_", "MALLOC_", "COVERAGE_")

# Seconds after which a program that opens a file, and is still there, has opened it.
OPENS_SECONDS = 1.0

# Imports this package from where the parent has it, then calls a function of it.
START = (
    "import sys; sys.path.insert(0, {root!r}); import retrieval_pipeline; del sys.path[0]; "
    "from {module} import {function}; {function}()"
)


class Surroundings(TypedDict):
    """Where a child runs, and what it is told: arguments of `subprocess.Popen`."""

    cwd: str
    env: dict[str, str]


def python_command(module: str, function: str, *arguments: str) -> list[str]:
    """Return the command that calls a function of this package in a process of its own.

    -P keeps the working directory, which may hold anybody's files, off its import path.
    """
    root = str(Path(__file__).resolve().parents[1])
    code = START.format(root=root, module=module, function=function)
    return [sys.executable, "-P", "-c", code, *arguments]


def child_options() -> Surroundings:
    """Return a working directory that holds no code, and the variables that a child needs."""
    env = {
        name: value
        for name, value in os.environ.items()
        if name in INHERITED_VARIABLES or name.startswith(INHERITED_PREFIXES)
    }
    if "PYTHONPATH" in env:
        # What is relative there, or empty, means the working directory.
        places = env["PYTHONPATH"].split(os.pathsep)
        env["PYTHONPATH"] = os.pathsep.join(filter(os.path.isabs, places))
    return {"cwd": os.sep, "env": env}


def start_command(command: Sequence[str], messages: IO[bytes]) -> subprocess.Popen[bytes]:
    """Start a command that goes on beside this process, and reads nothing.

    Args:
        command: The command, with the variables of this process.
        messages: A file that takes what the command writes to stderr; its output is dropped.

    Raises:
        CommandError: It cannot be run.
    """
    try:
        return subprocess.Popen(
            command,
            cwd=os.sep,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=messages,
            # Ctrl-C must reach the parent only, which ends the command in order.
            process_group=0,
        )
    except OSError as error:
        raise CommandError(f"`{command[0]}` did not run: {error}") from None


def tell_command(command: Sequence[str], text: str, seconds: float) -> None:
    """Run a command that the settings name, as they name it, with text on its standard input.

    Raises:
        CommandError: It cannot be run, failed, or took longer than `seconds`.
    """
    try:
        done = subprocess.run(
            command,
            input=text,
            capture_output=True,
            encoding="utf-8",
            # The command may print what it likes.
            errors="replace",
            timeout=seconds,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise CommandError(f"`{command[0]}` did not run: {error}") from None
    if done.returncode:
        why = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        raise CommandError(f"`{command[0]}` failed: {why[0]}")


def open_file(path: Path) -> None:
    """Open a file in the program that the desktop has for it, and go on.

    Raises:
        CommandError: There is no desktop, or it has no such program.
    """
    opener = "open" if sys.platform == "darwin" else "xdg-open"
    if shutil.which(opener) is None:
        raise CommandError(f"no program here opens pictures: `{opener}` is missing")
    # Of the desktop, so it gets all variables, and it outlives this process.
    process = subprocess.Popen(
        [opener, str(path.absolute())],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        code = process.wait(OPENS_SECONDS)
    except subprocess.TimeoutExpired:
        return
    if code:
        raise CommandError(f"`{opener}` failed with exit code {code}: is there a desktop?")
