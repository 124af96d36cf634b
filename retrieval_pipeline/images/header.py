"""The facts of a picture or of a file beside it, read without decoding pixels.

Runs in decode workers only.
"""

import stat
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from typing import BinaryIO

from PIL import Image

from retrieval_pipeline.facts.embedded import embedded_facts
from retrieval_pipeline.facts.model import Origin, PictureFacts, ReadFacts
from retrieval_pipeline.facts.raw import RAF, preview_of_raf, raw_facts
from retrieval_pipeline.facts.takeout import read_takeout
from retrieval_pipeline.facts.xmp import read_xmp
from retrieval_pipeline.images.errors import ImageError, Limits, Reason
from retrieval_pipeline.images.formats import readable_formats, typed_errors
from retrieval_pipeline.images.png import SIGNATURE, without_broken_chunks, without_pixels
from retrieval_pipeline.images.read import read_bytes

# Bytes that tell what a file is.
START_BYTES = 32


def read_facts(source: str | bytes, request: ReadFacts, limits: Limits) -> PictureFacts:
    """Return the facts of a file.

    Args:
        source: Its path, or its bytes. Of a JPEG, the bytes before its pixels are enough.
        request: What the file is.
        limits: Bounds for the file.

    Raises:
        ImageError: It cannot be read, or is no picture.
    """
    if request.of == "picture":
        return _facts_of_picture(source, limits)
    data = source if isinstance(source, bytes) else read_bytes(source, limits)
    return read_xmp(data, Origin.SIDECAR) if request.of == "xmp" else read_takeout(data)


def _facts_of_picture(source: str | bytes, limits: Limits) -> PictureFacts:
    with ExitStack() as stack:
        if isinstance(source, bytes):
            file: BinaryIO = BytesIO(source)
        else:
            try:
                # Opening a pipe would wait for its writer, and a device may act on it.
                if not stat.S_ISREG(Path(source).stat().st_mode):
                    raise ImageError(Reason.UNREADABLE, "it is not a regular file")
                file = stack.enter_context(Path(source).open("rb"))
            except OSError as error:
                raise ImageError(Reason.UNREADABLE, error.strerror or str(error)) from None
        with typed_errors():
            start = file.read(START_BYTES)
            file.seek(0)
            if (facts := raw_facts(start, file)) is not None:
                return facts
            if start.startswith(RAF):
                file = BytesIO(preview_of_raf(file))
            elif start.startswith(SIGNATURE):
                file = BytesIO(without_broken_chunks(without_pixels(file)))
            with Image.open(file, formats=readable_formats()) as image:
                return embedded_facts(image)
