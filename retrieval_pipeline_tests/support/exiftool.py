"""Pictures whose metadata ExifTool has written: another program than the one that reads them."""

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

needs_exiftool = pytest.mark.skipif(
    shutil.which("exiftool") is None, reason="needs ExifTool (apt install libimage-exiftool-perl)"
)


def write_metadata(files: Mapping[Path, Sequence[str]]) -> None:
    """Give each file its tags, such as "-Make=Canon", all in one start of ExifTool."""
    lines: list[str] = []
    for number, (file, tags) in enumerate(files.items()):
        # ExifTool reads one argument a line; -execute ends those of one command.
        lines += ["-overwrite_original", "-ignoreMinorErrors", *tags, str(file)]
        lines.append(f"-execute{number}")
    done = subprocess.run(
        ["exiftool", "-@", "-"], input="\n".join(lines), capture_output=True, text=True, check=True
    )
    written = done.stdout.count("1 image files updated") + done.stdout.count(
        "1 image files created"
    )
    assert written == len(files), done.stdout + done.stderr
