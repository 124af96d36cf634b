"""A decode worker: a process that `decode.py` starts, feeds, and kills when a file is hostile.

Jobs come in on stdin as pickles: (path, content id or None), after the (transform, limits) for all
of them. Answers go out on stdout as frames: two lengths, a JSON object and the pixels. Those are
no pickles, so that nothing which a picture makes of this process can run code in its parent.
"""

import json
import logging
import os
import pickle
import resource
import signal
import struct
import sys
import time
from pathlib import Path
from typing import BinaryIO

from retrieval_pipeline.images.decode import decode, read_bytes
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.transform import Fit, ImageTransform
from retrieval_pipeline.storage.content_id import content_id
from retrieval_pipeline.storage.remote import Place, Remote

# Lengths of the JSON object and of the pixels, bytes.
HEADER = struct.Struct("<II")

# Seconds after the parent's time limit at which a worker ends itself, should nobody be left to
# kill it.
ORPHAN_SECONDS = 5.0


def main() -> None:
    """Answer jobs until stdin ends, which it does when the parent dies."""
    jobs, answers = private_channels()
    # An answer that nobody waits for ends the worker.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    transform, limits = pickle.load(jobs)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Allocations fail beyond this, which Pillow reports; the out-of-memory killer never wakes.
    # The data limit, unlike that of the address space, leaves libraries and reservations out.
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_mb << 20, limits.memory_mb << 20))
    _send(answers, {"ready": True})
    while True:
        try:
            path, expected = pickle.load(jobs)
        except EOFError:
            return
        signal.setitimer(signal.ITIMER_REAL, limits.seconds + ORPHAN_SECONDS)
        began = time.process_time()
        facts, pixels = _answer(path, expected, transform, limits)
        facts["computing"] = time.process_time() - began
        # A parent that was suspended may take its time to read.
        signal.setitimer(signal.ITIMER_REAL, 0)
        _send(answers, facts, pixels)


def _answer(
    path: str | Place, expected: str | None, transform: ImageTransform | Fit, limits: Limits
) -> tuple[dict[str, object], bytes]:
    try:
        data = read_bytes(path, limits)
        if expected is not None and content_id(data) != expected:
            return {"changed": True}, b""
        decoded = decode(data, transform, limits)
        height, width, _ = decoded.pixels.shape
        facts = {"width": decoded.width, "height": decoded.height, "format": decoded.format}
        return {"shape": (height, width, 3), **facts}, decoded.pixels.tobytes()
    except ImageError as error:
        if expected is not None and not _exists(path):
            return {"changed": True}, b""
        return {"reason": error.reason, "detail": error.detail}, b""


def _exists(path: str | Place) -> bool:
    return path.exists() if isinstance(path, Remote) else Path(path).exists()


def private_channels() -> tuple[BinaryIO, BinaryIO]:
    """Take the standard streams away from the C libraries, which print what they find odd.

    Python's own stderr stays: it tells of bugs.
    """
    jobs, answers, errors = (os.dup(stream) for stream in (0, 1, 2))
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    sys.stderr = os.fdopen(errors, "w")
    logging.disable()  # Pillow logs of broken files
    return os.fdopen(jobs, "rb"), os.fdopen(answers, "wb")


def _send(answers: BinaryIO, facts: dict[str, object], pixels: bytes = b"") -> None:
    text = json.dumps(facts).encode()
    answers.write(HEADER.pack(len(text), len(pixels)))
    answers.write(text)
    answers.write(pixels)
    answers.flush()
