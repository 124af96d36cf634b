"""A system whose calls on files fail: a library for LD_PRELOAD, compiled when it is needed."""

import errno
import os
import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


def compiler() -> str | None:
    """Return the C compiler of this machine, if it has one."""
    return shutil.which("gcc") or shutil.which("cc")


def faulty_environment(
    library: Path, below: Path, *, percent: int = 100, **faults: int
) -> dict[str, str]:
    """Return the environment of a process whose system calls fail.

    Args:
        library: Where the library is, or will be compiled to.
        below: Only calls on files whose path starts with this one fail.
        percent: Share of these calls that fail.
        faults: The errno of each call: `flock`, `fsync`, `fsync_directory`, `mmap`, `read`,
            `rename` or `link`.
    """
    if not library.exists():
        subprocess.run(
            [str(compiler()), "-shared", "-fPIC", "-O1", "-o", str(library), str(SOURCE), "-ldl"],
            check=True,
        )
    return {
        **os.environ,
        "LD_PRELOAD": str(library),
        "FAULTS": " ".join(f"{name.replace('_', '-')}={code}" for name, code in faults.items()),
        "FAULTS_BELOW": str(below),
        "FAULTS_PERCENT": str(percent),
    }


# What file systems that lack something answer.
NO_LOCKS = {"flock": errno.ENOLCK}
NO_MAPPING = {"mmap": errno.ENODEV}
NO_DIRECTORY_SYNC = {"fsync_directory": errno.EINVAL}
