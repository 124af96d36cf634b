"""A picture inside the terminal, where the terminal can show one: kitty, iTerm2 or sixel.

The protocols: https://sw.kovidgoyal.net/kitty/graphics-protocol/, https://iterm2.com/documentation-
images.html, and the VT340's sixel graphics (DEC STD 070).
"""

import base64
import os
import re
import select
import sys
import termios
import tty
from collections.abc import Callable, Mapping
from itertools import groupby

import numpy as np
from PIL import Image

from retrieval_pipeline.images.decode_pool import Job
from retrieval_pipeline.images.errors import Limits
from retrieval_pipeline.images.pictures import encoded, picture
from retrieval_pipeline.images.transform import Fit, Pixels

# Longest edge in pixels: half of a common window, so that the question stays visible below it.
PIXELS = 480
# Bytes of base64 in one escape sequence of kitty: the most that its protocol allows.
KITTY_CHUNK = 4096
# Colours of a sixel picture; terminals today have 256 colour registers.
SIXEL_COLOURS = 255
# Seconds to wait for a terminal to say what it is; local ones answer within a few milliseconds.
ANSWER_SECONDS = 0.3

# Values of $TERM_PROGRAM whose terminals show pictures by this protocol.
ITERM_PROGRAMS = {"iTerm.app", "WezTerm", "mintty"}
KITTY_PROGRAMS = {"ghostty"}
# Beginnings of $TERM of those that know sixel.
SIXEL_TERMINALS = {"foot", "mlterm", "yaft"}


def picture_sequence(job: Job, protocol: str, limits: Limits) -> str:
    """Return the escape sequence that shows a picture in a terminal.

    Args:
        job: The image file, and its content id if that is known.
        protocol: A key of PROTOCOLS.
        limits: Bounds under which the file is decoded.

    Raises:
        ImageError: The picture cannot be used.
    """
    return PROTOCOLS[protocol](picture(job, Fit(PIXELS), limits).pixels)


def terminal_protocol() -> str | None:
    """Return the protocol of the terminal that shows stdout; None if it shows no pictures."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return None
    return protocol_of(os.environ) or ("sixel" if says_sixel(_device_attributes()) else None)


def protocol_of(environment: Mapping[str, str]) -> str | None:
    """Return the protocol of the terminal that set these variables; None if they name none."""
    # Inside tmux and screen, the variables are still those of the terminal outside.
    if environment.get("TMUX") or environment.get("STY"):
        return None
    program = environment.get("TERM_PROGRAM")
    if environment.get("TERM") == "xterm-kitty" or program in KITTY_PROGRAMS:
        return "kitty"
    if program in ITERM_PROGRAMS or environment.get("LC_TERMINAL") == "iTerm2":
        return "iterm2"
    if environment.get("TERM", "").split("-")[0] in SIXEL_TERMINALS:
        return "sixel"
    return None


def says_sixel(attributes: bytes) -> bool:
    """Tell whether the answer to a device attributes query (DA1) lists sixel, attribute 4."""
    answer = re.search(rb"\x1b\[\?([\d;]*)c", attributes)
    return answer is not None and b"4" in answer[1].split(b";")


def _device_attributes() -> bytes:
    """Return the answer of the terminal to a DA1 query; empty if none comes in time."""
    if os.environ.get("TERM", "dumb") == "dumb":
        return b""
    terminal = sys.stdin.fileno()
    former = termios.tcgetattr(terminal)
    answer = b""
    try:
        tty.setcbreak(terminal)
        sys.stdout.write("\x1b[c")
        sys.stdout.flush()
        while not answer.endswith(b"c") and select.select([terminal], [], [], ANSWER_SECONDS)[0]:
            # One byte at a time, so that keys pressed meanwhile stay in the input.
            answer += os.read(terminal, 1)
    finally:
        termios.tcsetattr(terminal, termios.TCSANOW, former)
    return answer


def _kitty(pixels: Pixels) -> str:
    data = base64.b64encode(encoded(pixels, "PNG")).decode()
    chunks = [data[start : start + KITTY_CHUNK] for start in range(0, len(data), KITTY_CHUNK)]
    parts = []
    for number, chunk in enumerate(chunks):
        # Shown at once (a=T), as PNG (f=100), without an answer (q=2) that would look like keys.
        control = "a=T,f=100,q=2," if number == 0 else ""
        more = int(number < len(chunks) - 1)
        parts.append(f"\x1b_G{control}m={more};{chunk}\x1b\\")
    return "".join(parts) + "\n"


def _iterm2(pixels: Pixels) -> str:
    png = encoded(pixels, "PNG")
    data = base64.b64encode(png).decode()
    return f"\x1b]1337;File=inline=1;size={len(png)}:{data}\x07\n"


def _sixel(colours: Pixels) -> str:
    """Encode bands of six pixel rows; in a band, each colour has one line of characters."""
    image = Image.fromarray(colours).quantize(SIXEL_COLOURS)
    palette = np.array(image.getpalette()).reshape(-1, 3)
    pixels = np.asarray(image)
    height, width = pixels.shape
    parts = [f'\x1bPq"1;1;{width};{height}']
    for number, colour in enumerate(palette):
        # Sixel gives brightness in percent.
        red, green, blue = np.rint(colour / 2.55).astype(int)
        parts.append(f"#{number};2;{red};{green};{blue}")
    for top in range(0, height, 6):
        band = pixels[top : top + 6]
        bits = 1 << np.arange(len(band))[:, None]
        for number in np.unique(band):
            codes = 63 + ((band == number) * bits).sum(axis=0)
            parts.append(f"#{number}{_run_lengths(bytes(codes.tolist()).decode())}$")
        parts.append("-")
    return "".join(parts) + "\x1b\\\n"


def _run_lengths(text: str) -> str:
    runs = ((char, len(list(group))) for char, group in groupby(text))
    return "".join(f"!{count}{char}" if count > 3 else char * count for char, count in runs)


PROTOCOLS: dict[str, Callable[[Pixels], str]] = {
    "kitty": _kitty,
    "iterm2": _iterm2,
    "sixel": _sixel,
}
