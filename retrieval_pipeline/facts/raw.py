"""The metadata of RAW files that Pillow does not open; it takes the others for TIFFs.

Layouts are as ExifTool and LibRaw document them: makers publish none.
"""

import struct
from io import BytesIO
from typing import BinaryIO

from PIL import ExifTags, Image

from retrieval_pipeline.facts.embedded import TIFF_XMP, combined, tolerant
from retrieval_pipeline.facts.exif import read_exif
from retrieval_pipeline.facts.model import Origin, PictureFacts
from retrieval_pipeline.facts.xmp import read_xmp

# Olympus and Panasonic write TIFFs under first bytes of their own: those of TIFF instead.
_TIFFS = {
    **{b"IIRO": b"II*\0", b"IIRS": b"II*\0", b"IIU\0": b"II*\0", b"MMOR": b"MM\0*"},
}
RAF = b"FUJIFILMCCD-RAW"
_CANON = b"ftypcrx "

# Metadata are at the start of these files.
MOST_BYTES = 4 << 20


def raw_facts(start: bytes, file: BinaryIO) -> PictureFacts | None:
    """Return the facts of a RAW file; None for a file that Pillow opens.

    Args:
        start: Its first bytes, 32 or more.
        file: The file, at its start.
    """
    if start[:4] in _TIFFS:
        data = file.read(MOST_BYTES)
        return _facts_of_tiff(BytesIO(_TIFFS[start[:4]] + data[4:]))
    if start[4:12] == _CANON:
        return tolerant(Origin.EXIF, lambda: _facts_of_cr3(file.read(MOST_BYTES)))
    return None


def preview_of_raf(file: BinaryIO) -> bytes:
    """Return the start of the JPEG in a RAW file of Fujifilm, which has all its metadata.

    Raises:
        struct.error: The file ends early.
    """
    file.seek(84)
    offset, length = struct.unpack(">II", file.read(8))
    file.seek(offset)
    return file.read(min(length, MOST_BYTES))


def _facts_of_tiff(file: BinaryIO) -> PictureFacts:
    exif = Image.Exif()

    def read() -> PictureFacts:
        exif.load_from_fp(file)
        return read_exif(exif, exif.get_ifd(ExifTags.IFD.Exif), exif.get_ifd(ExifTags.IFD.GPSInfo))

    facts = tolerant(Origin.EXIF, read)
    packet = exif.get(TIFF_XMP)
    xmp = read_xmp(packet, Origin.XMP) if isinstance(packet, bytes) else PictureFacts()
    return combined(facts, xmp)


def _facts_of_cr3(data: bytes) -> PictureFacts:
    """Return the facts of Canon's RAW format: each kind of tags is a TIFF in a box of its own."""
    blocks = []
    for name in (b"CMT1", b"CMT2", b"CMT4"):
        block = Image.Exif()
        place = data.find(name)
        if place >= 4:
            (size,) = struct.unpack_from(">I", data, place - 4)
            block.load(data[place + 4 : place - 4 + size])
        blocks.append(block)
    return read_exif(*blocks)
