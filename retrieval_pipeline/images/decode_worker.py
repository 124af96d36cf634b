"""A decode worker: the process that `decode_pool.py` starts, feeds, and kills if it hangs.

Jobs arrive on stdin as pickles: first the limits, then for each file a tuple of its path or bytes,
its content id or None, the transform (or which facts to read), the views, and whether its name has
the extension of a RAW format. Answers leave on stdout as frames: two lengths, a JSON object and the
pixels. Answers are not pickles: a picture that takes over this process cannot run code in its
parent.
"""

import ctypes
import json
import logging
import os
import pickle
import resource
import signal
import sys
import time
from contextlib import suppress
from dataclasses import astuple
from pathlib import Path
from typing import BinaryIO

from retrieval_pipeline.facts.model import ReadFacts, to_json
from retrieval_pipeline.images.decode import decode, pillow_within
from retrieval_pipeline.images.errors import ImageError, Limits
from retrieval_pipeline.images.frames import HEADER
from retrieval_pipeline.images.header import read_facts
from retrieval_pipeline.images.jpeg_header import header_for_device
from retrieval_pipeline.images.jpegs import ForDevice
from retrieval_pipeline.images.read import read_bytes
from retrieval_pipeline.images.transform import Fit, ImageTransform
from retrieval_pipeline.storage.content_id import content_id
from retrieval_pipeline.views import View, Views

# A line of /proc/self/status, and flags of unshare(2).
NO_CAPABILITIES = "CapEff:\t0000000000000000\n"
CLONE_NEWUSER, CLONE_NEWNET = 0x1000_0000, 0x4000_0000

# A worker whose parent is gone ends itself this many seconds after the time limit of a job.
ORPHAN_SECONDS = 5.0


def main() -> None:
    """Answer jobs until stdin ends, which it does when the parent dies."""
    jobs, answers = private_channels()
    # If the parent is gone, writing the answer ends this process.
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    leave_network()
    limits = pickle.load(jobs)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    # Answers leave through a pipe: a worker has nothing to write into a file.
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    # Beyond this limit allocations fail, which Pillow reports, before the kernel's out-of-memory
    # killer acts. Unlike RLIMIT_AS, RLIMIT_DATA does not count libraries and reserved addresses.
    resource.setrlimit(resource.RLIMIT_DATA, (limits.memory_mb << 20, limits.memory_mb << 20))
    with pillow_within(limits):
        send(answers, {"ready": True})
        while True:
            try:
                source, expected, request, views, named_raw = pickle.load(jobs)
            except EOFError:
                return
            signal.setitimer(signal.ITIMER_REAL, limits.seconds + ORPHAN_SECONDS)
            began = time.process_time()
            facts, pixels = _answer(source, expected, request, views, limits, named_raw)
            facts["computing"] = time.process_time() - began
            # A parent that was suspended may take its time to read.
            signal.setitimer(signal.ITIMER_REAL, 0)
            send(answers, facts, pixels)


def _answer(
    source: str | bytes,
    expected: str | None,
    request: ImageTransform | Fit | ReadFacts | ForDevice,
    views: Views | tuple[View, ...],
    limits: Limits,
    named_raw: bool,
) -> tuple[dict[str, object], bytes]:
    try:
        if isinstance(request, ReadFacts):
            return {"facts": to_json(read_facts(source, request, limits))}, b""
        data = source if isinstance(source, bytes) else read_bytes(source, limits)
        if expected is not None and content_id(data) != expected:
            return {"changed": True}, b""
        if isinstance(request, ForDevice):
            header = header_for_device(data, request.transform, views)
            if header is not None:
                return header, data
            request = request.transform
        decoded = decode(data, request, limits, views, named_raw=named_raw)
        answer = {
            "shape": decoded.pixels.shape,
            "width": decoded.width,
            "height": decoded.height,
            "format": decoded.format,
            "facts": decoded.facts and to_json(decoded.facts),
            "views": [astuple(view) for view in decoded.views],
            "views_only": decoded.views_only,
        }
        everything = (decoded.pixels, *decoded.view_pixels)
        return answer, b"".join(pixels.tobytes() for pixels in everything)
    except ImageError as error:
        if expected is not None and isinstance(source, str) and not Path(source).exists():
            return {"changed": True}, b""
        return {"reason": error.reason, "detail": error.detail}, b""


def leave_network() -> None:
    """Move this process into a network namespace of its own, where the system permits it.

    A process without capabilities may do so in a user namespace, unless the system forbids those.
    One with capabilities, such as root's, would lose them there, and with them the permission to
    read other people's files.
    """
    with suppress(OSError, AttributeError):  # not on Linux
        capable = NO_CAPABILITIES not in Path("/proc/self/status").read_text()
        ctypes.CDLL(None).unshare(CLONE_NEWNET | (0 if capable else CLONE_NEWUSER))


def private_channels() -> tuple[BinaryIO, BinaryIO]:
    """Return the streams for jobs and answers; the C libraries, which print warnings, lose them.

    Python's own stderr stays open for tracebacks, which tell of bugs.
    """
    jobs, answers, errors = (os.dup(stream) for stream in (0, 1, 2))
    null = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(null, stream)
    sys.stderr = os.fdopen(errors, "w")
    logging.disable()  # Pillow logs about broken files
    return os.fdopen(jobs, "rb"), os.fdopen(answers, "wb")


def send(answers: BinaryIO, facts: dict[str, object], pixels: bytes = b"") -> None:
    """Write one frame: two lengths, a JSON object, and the pixels."""
    text = json.dumps(facts).encode()
    answers.write(HEADER.pack(len(text), len(pixels)))
    answers.write(text)
    answers.write(pixels)
    answers.flush()
