"""Hits with a small picture beside each, on terminals that show pictures."""

import fcntl
import math
import struct
import sys
import termios

from rich.console import Console
from rich.text import Text

from retrieval_pipeline.cli.output import echo_styled
from retrieval_pipeline.cli.styled import styled_blocks
from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.pictures import pictures
from retrieval_pipeline.images.transform import Fit
from retrieval_pipeline.rendering.terminal_image import PROTOCOLS
from retrieval_pipeline.search.results import Answer, Hit
from retrieval_pipeline.storage.remote import Remote

# Rows of text that a picture takes.
ROWS = 5
# Columns between the pictures and the text.
GAP = 2
# Width and height of a character in pixels where the terminal does not say: rather too small, so
# that no picture is higher than its rows.
CELL = 7, 14

SAVE_CURSOR, RESTORE_CURSOR = "\x1b7", "\x1b8"


def echo_with_thumbnails(answer: Answer, protocol: str, limits: Limits, *, heading: bool) -> None:
    """Write an answer to the terminal, with a picture to the left of each hit.

    A hit whose file is on another machine or cannot be shown has an empty place there.

    Args:
        answer: The hits.
        protocol: A key of PROTOCOLS.
        limits: Bounds under which the files are decoded.
        heading: The query is written above.

    Raises:
        OutputError: The terminal is gone.
    """
    columns, cell_width, cell_height = _terminal()
    edge = ROWS * cell_height
    left = math.ceil(edge / cell_width) + GAP
    width = max(columns - left, 20)
    blocks = styled_blocks(answer, heading=heading, width=width)
    jobs = [_job(hit) for hit, _ in blocks if hit is not None and _is_here(hit)]
    shown = pictures(jobs, Fit(edge), limits)
    console = Console(width=width)
    for hit, lines in blocks:
        if hit is None:
            echo_styled(*lines)
            continue
        rows = [row for line in lines for row in line.wrap(console, width, overflow="fold")]
        picture = next(shown) if _is_here(hit) else None
        drawn = ""
        if picture is not None and not isinstance(picture, ImageError):
            drawn = PROTOCOLS[protocol](picture.pixels).rstrip("\n")
        _echo_beside(drawn, rows, left)


def _job(hit: Hit) -> Job:
    return Job(hit.path, hit.content_id)


def _is_here(hit: Hit) -> bool:
    return not isinstance(hit.path, Remote)


def _echo_beside(drawn: str, rows: list[Text], left: int) -> None:
    """Draw at the left, and write lines beside it.

    The rows are made first, so that nothing scrolls while the cursor's place is remembered, whose
    place after a picture differs between terminals.
    """
    height = max(len(rows), ROWS)
    sys.stdout.write("\n" * height + f"\x1b[{height}A{SAVE_CURSOR}{drawn}{RESTORE_CURSOR}")
    for row in [*rows, *[Text()] * (height - len(rows))]:
        sys.stdout.write(f"\x1b[{left}C")
        echo_styled(row)


def _terminal() -> tuple[int, int, int]:
    """Return the columns of the terminal, and the width and height of a character in pixels."""
    size = fcntl.ioctl(sys.stdout.fileno(), termios.TIOCGWINSZ, b"\0" * 8)
    rows, columns, width, height = struct.unpack("HHHH", size)
    columns = columns or 80
    if not (rows and width >= columns and height >= rows):
        return columns, *CELL
    return columns, width // columns, height // rows
