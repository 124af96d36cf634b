"""PNG files: ancillary chunks that are broken or huge are left out before Pillow sees them.

libpng, and so every viewer, does the same: only a damaged critical chunk is an error. Pillow
refuses the whole file for either.
"""

import os
import struct
import zlib
from collections.abc import Iterator
from typing import BinaryIO

from PIL import PngImagePlugin

SIGNATURE = b"\x89PNG\r\n\x1a\n"

# Bytes of one text or colour profile after decompression, and of all texts together. Profiles of
# printers have up to some MB; a longer text does not decide how a picture looks.
MOST_CHUNK_BYTES = 16 << 20
MOST_TEXT_BYTES = 64 << 20

TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
# Chunks that hold pixels, which may lie before the texts.
PIXELS = (b"IDAT", b"fdAT")
# Bytes that the chunks of a fixed layout have at least.
LEAST_BYTES = {b"gAMA": 4, b"cHRM": 32, b"sRGB": 1, b"pHYs": 9}


def set_text_limits() -> None:
    """Let Pillow read all chunks that `without_broken_chunks` keeps."""
    PngImagePlugin.MAX_TEXT_CHUNK = MOST_CHUNK_BYTES
    PngImagePlugin.MAX_TEXT_MEMORY = MOST_TEXT_BYTES


def without_broken_chunks(data: bytes) -> bytes:
    """Return a PNG without the ancillary chunks that are broken or larger than the limits above."""
    kept, copied, text_bytes = [], 0, 0
    for start, end in _chunks(data):
        kind, body = data[start + 4 : start + 8], memoryview(data)[start + 8 : end - 4]
        critical = not kind[0] & 0x20  # an upper-case letter (PNG specification, 5.4)
        if critical:
            continue
        size = _size(kind, body)
        if kind in TEXTS:
            text_bytes += size
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if (
            checksum != zlib.crc32(body, zlib.crc32(kind))
            or not LEAST_BYTES.get(kind, 0) <= size <= MOST_CHUNK_BYTES
            or text_bytes > MOST_TEXT_BYTES
        ):
            kept.append(data[copied:start])
            copied = end
    return b"".join([*kept, data[copied:]]) if kept else data


def is_sound(data: bytes) -> bool:
    """Tell whether a PNG is complete and every chunk has its checksum."""
    kind = b""
    for start, end in _chunks(data):
        kind = data[start + 4 : start + 8]
        (checksum,) = struct.unpack_from(">I", data, end - 4)
        if zlib.crc32(memoryview(data)[start + 4 : end - 4]) != checksum:
            return False
    return kind == b"IEND"


def without_pixels(file: BinaryIO) -> bytes:
    """Return a PNG without the chunks that hold pixels."""
    kept = [file.read(len(SIGNATURE))]
    while len(head := file.read(8)) == 8:
        (length,) = struct.unpack(">I", head[:4])
        if head[4:] in PIXELS:
            file.seek(length + 4, os.SEEK_CUR)
        else:
            kept += head, file.read(length + 4)
    return b"".join(kept)


def _chunks(data: bytes) -> Iterator[tuple[int, int]]:
    """Yield where each complete chunk begins and ends."""
    start = len(SIGNATURE)
    while start + 12 <= len(data):
        (length,) = struct.unpack_from(">I", data, start)
        end = start + 12 + length
        if end > len(data):
            return
        yield start, end
        start = end


def _size(kind: bytes, body: memoryview) -> int:
    """Return the bytes of a chunk, decompressed up to just beyond the limit.

    A compressed text or profile that names a method other than zlib has no size: it is too large.
    """
    if kind not in (b"zTXt", b"iTXt", b"iCCP"):
        return len(body)
    _, _, rest = bytes(body).partition(b"\0")
    if kind == b"iTXt":
        flag, method = rest[:1], rest[1:2]
        if flag in (b"", b"\0"):
            return len(body)
        rest = rest[2:].partition(b"\0")[2].partition(b"\0")[2]
    else:
        method, rest = rest[:1], rest[1:]
    if method not in (b"", b"\0"):
        return MOST_CHUNK_BYTES + 1
    try:
        return len(zlib.decompressobj().decompress(rest, MOST_CHUNK_BYTES + 1))
    except zlib.error:
        return len(body)  # Pillow leaves the text out
