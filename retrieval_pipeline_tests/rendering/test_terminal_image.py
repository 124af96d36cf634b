import base64
import os
import pty
import re
import subprocess
import sys
import threading
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.rendering.terminal_image import (
    PIXELS,
    picture_sequence,
    protocol_of,
    says_sixel,
)
from retrieval_pipeline_tests.support.decoding import thumbnail

LIMITS = Limits()


@pytest.mark.parametrize(
    ("environment", "protocol"),
    [
        ({"TERM": "xterm-kitty"}, "kitty"),
        ({"TERM": "xterm-256color", "TERM_PROGRAM": "ghostty"}, "kitty"),
        ({"TERM_PROGRAM": "iTerm.app"}, "iterm2"),
        ({"LC_TERMINAL": "iTerm2"}, "iterm2"),
        ({"TERM_PROGRAM": "WezTerm"}, "iterm2"),
        ({"TERM": "xterm-256color"}, None),
        ({}, None),
        ({"TERM": "xterm-kitty", "TMUX": "/tmp/tmux-0/default,1,0"}, None),
        ({"LC_TERMINAL": "iTerm2", "STY": "1.pts-0"}, None),
    ],
)
def test_the_environment_tells_the_protocol(
    environment: dict[str, str], protocol: str | None
) -> None:
    assert protocol_of(environment) == protocol


@pytest.mark.parametrize(
    ("answer", "sixel"),
    [
        (b"\x1b[?62;4;22c", True),
        (b"y\x1b[?4c", True),
        (b"\x1b[?64;14;40c", False),
        (b"\x1b[?1;2c", False),
        (b"", False),
        (b"\x1b[?62;4", False),
    ],
)
def test_a_terminal_names_sixel_among_its_attributes(answer: bytes, sixel: bool) -> None:
    assert says_sixel(answer) is sixel


def test_kitty_gets_a_png_in_chunks_and_is_asked_not_to_answer(
    sample_photos: dict[str, Path],
) -> None:
    sequence = picture_sequence(Job(sample_photos["cat"]), "kitty", LIMITS)
    chunks = re.findall(r"\x1b_G([^;]*);([^\x1b]*)\x1b\\", sequence)
    assert "q=2" in chunks[0][0]
    assert [control[-3:] for control, _ in chunks] == ["m=1"] * (len(chunks) - 1) + ["m=0"]
    assert max(len(data) for _, data in chunks) <= 4096
    png = base64.b64decode("".join(data for _, data in chunks))
    assert png == thumbnail(sample_photos["cat"], PIXELS)


def test_iterm2_gets_an_inline_png(sample_photos: dict[str, Path]) -> None:
    sequence = picture_sequence(Job(sample_photos["rocket"]), "iterm2", LIMITS)
    match = re.fullmatch(r"\x1b\]1337;File=inline=1;size=(\d+):([^\x07]*)\x07\n", sequence)
    assert match is not None
    png = base64.b64decode(match[2])
    assert len(png) == int(match[1])
    assert max(Image.open(BytesIO(png)).size) == PIXELS


def test_sixel_draws_the_picture(sample_photos: dict[str, Path]) -> None:
    drawn = drawing_of(picture_sequence(Job(sample_photos["coffee"]), "sixel", LIMITS))
    png = thumbnail(sample_photos["coffee"], PIXELS)
    original = np.asarray(Image.open(BytesIO(png)).convert("RGB"), np.float64)
    assert drawn.shape == original.shape
    assert np.abs(drawn - original).mean() < 8


def drawing_of(sequence: str) -> np.ndarray:
    """Draw a sixel sequence as a terminal would: float64 (height, width, 3)."""
    body = re.fullmatch(r'\x1bPq"1;1;(\d+);(\d+)(.*)\x1b\\\n', sequence, re.DOTALL)
    assert body is not None
    width, height = int(body[1]), int(body[2])
    canvas = np.full((height + 6, width, 3), np.nan)
    colours: dict[int, np.ndarray] = {}
    colour, x, y = 0, 0, 0
    tokens = re.findall(r"#(\d+);2;(\d+);(\d+);(\d+)|#(\d+)|!(\d+)([?-~])|([?-~])|([$-])", body[3])
    for number, red, green, blue, chosen, count, repeated, single, move in tokens:
        if number:
            colours[int(number)] = np.array([int(red), int(green), int(blue)]) * 2.55
        elif chosen:
            colour = int(chosen)
        elif move:
            x, y = 0, y + 6 * (move == "-")
        else:
            bits = ord(repeated or single) - 63
            run = int(count or 1)
            for row in range(6):
                if bits >> row & 1:
                    canvas[y + row, x : x + run] = colours[colour]
            x += run
    assert not np.isnan(canvas[:height]).any()
    assert np.isnan(canvas[height:]).all()
    return canvas[:height]


def test_a_picture_that_cannot_be_used_is_an_error(tmp_path: Path) -> None:
    broken = tmp_path / "broken.jpg"
    broken.write_text("text")
    with pytest.raises(ImageError):
        picture_sequence(Job(broken), "kitty", LIMITS)


@pytest.mark.parametrize(
    ("answer", "protocol"), [(b"\x1b[?62;4c", "sixel"), (b"\x1b[?62c", None), (b"", None)]
)
def test_a_terminal_is_asked_and_its_answer_is_not_left_among_the_keys(
    answer: bytes, protocol: str | None
) -> None:
    code = (
        "import sys\n"
        "from retrieval_pipeline.rendering import terminal_image\n"
        "terminal_image.ANSWER_SECONDS = 5.0 if int(sys.argv[1]) else 0.1\n"
        "print('protocol', terminal_image.terminal_protocol(), 'key', sys.stdin.readline())\n"
    )
    ours, theirs = pty.openpty()
    environment = {
        name: value
        for name, value in os.environ.items()
        if name not in ("TMUX", "STY", "TERM_PROGRAM", "LC_TERMINAL")
    } | {"TERM": "xterm-256color"}
    child = subprocess.Popen(
        [sys.executable, "-c", code, str(len(answer))],
        stdin=theirs,
        stdout=theirs,
        env=environment,
    )
    os.close(theirs)
    seen = b""
    while b"\x1b[c" not in seen:
        seen += os.read(ours, 1024)
    if answer:
        os.write(ours, answer + b"\n")
    else:
        threading.Timer(0.5, os.write, (ours, b"\n")).start()
    while b"key" not in seen:
        seen += os.read(ours, 1024)
    assert child.wait(timeout=60) == 0
    os.close(ours)
    assert f"protocol {protocol} key".encode() in seen
