"""Show a file in the file manager of the machine that the server runs on.

The one program that the server starts: a fixed one, without a shell, with the folder of a file that
the index names; and only where the person in front of the browser sits at that machine.
"""

import os
import shutil
import subprocess
import sys
from http import HTTPStatus
from pathlib import Path

from retrieval_pipeline.web.problems import RequestError


def opener() -> str | None:
    """Return the program that opens a folder; None if there is none or no screen."""
    if sys.platform == "darwin":
        return shutil.which("open")
    if os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY"):
        return shutil.which("xdg-open")
    return None


def reveal(file: Path) -> None:
    """Open the folder of a file.

    Raises:
        RequestError: There is no file manager.
    """
    program = opener()
    if program is None:
        raise RequestError(HTTPStatus.CONFLICT, "there is no file manager where the server runs")
    subprocess.Popen(
        [program, str(file.parent)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
