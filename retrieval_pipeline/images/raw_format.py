"""Which files are RAW, told from their first bytes and from the tags of TIFFs.

Many RAW files are TIFFs whose first page is a thumbnail: without the test here, that thumbnail of
some 160 pixels would be taken for the picture.
"""

import re
import struct
from collections.abc import Iterator
from contextlib import suppress

# RAW formats that are known by their first bytes.
_SIGNATURES = {
    "CR2": re.compile(rb"II\x2a\0....CR\x02", re.DOTALL),
    "CR3": re.compile(rb"....ftypcrx ", re.DOTALL),
    "CRW": re.compile(rb"II\x1a\0\0\0HEAPCCDR"),
    "RAF": re.compile(rb"FUJIFILMCCD-RAW"),
    "ORF": re.compile(rb"IIR[OS]|MMOR"),
    "RW2": re.compile(rb"IIU\0"),
    "MRW": re.compile(rb"\0MRM"),
    "X3F": re.compile(rb"FOVb"),
    "IIQ": re.compile(rb"(II\x2a\0|MM\0\x2a)....(IIII|MMMM)", re.DOTALL),
}

# All others are TIFFs: their byte orders, and the tags that tell (TIFF 6.0, TIFF/EP, DNG 1.7).
_ORDERS = {b"II\x2a\0": "<", b"MM\0\x2a": ">"}
_COMPRESSION, _PHOTOMETRIC, _MAKE, _SUB_IFDS, _DNG_VERSION = _TAGS = 259, 262, 271, 330, 50706
# Values of PhotometricInterpretation: a mosaic of colour filters, or linear sensor values.
_SENSOR = {32803, 34892}
# Compressions that only cameras write: Sony, Nikon, Samsung (2), Kodak, Pentax.
_CAMERA_COMPRESSIONS = {32767, 34713, 32770, 32772, 65000, 65535}
# The format of a TIFF of that kind, by the first word of the maker's name.
_MAKERS = {
    **{b"NIKON": "NEF", b"SONY": "ARW", b"PENTAX": "PEF", b"RICOH": "PEF", b"SAMSUNG": "SRW"},
    **{b"CANON": "CR2", b"HASSELBLAD": "3FR", b"EPSON": "ERF", b"MAMIYA": "MEF", b"LEAF": "MOS"},
    **{b"KODAK": "DCR", b"EASTMAN": "DCR", b"LEICA": "RWL", b"PHASE": "IIQ"},
}
# Bytes and struct code of one value, by the number of its TIFF type.
_TYPES = {1: (1, "B"), 2: (1, "B"), 3: (2, "H"), 4: (4, "I"), 13: (4, "I")}
# More pages, tags and values than cameras write; a hostile file may claim any number.
_MOST_PAGES, _MOST_TAGS, _MOST_VALUES = 32, 1024, 64

# Tag -> its values.
_Page = dict[int, tuple[int, ...]]


def raw_format(data: bytes, named_raw: bool = False) -> str | None:
    """Return the name of the RAW format of a file, such as "NEF"; None if it is no RAW.

    Args:
        data: The bytes of the file.
        named_raw: Its name has the extension of a RAW format: any TIFF is then taken for one, since
            its tags may be unknown here.
    """
    for name, signature in _SIGNATURES.items():
        if signature.match(data):
            return name
    if data[:4] not in _ORDERS:
        return None
    maker, is_raw = b"", named_raw
    for page in _pages(data):
        if _DNG_VERSION in page:
            return "DNG"
        maker = maker or bytes(page.get(_MAKE, ()))
        is_raw |= not _SENSOR.isdisjoint(page.get(_PHOTOMETRIC, ()))
        is_raw |= not _CAMERA_COMPRESSIONS.isdisjoint(page.get(_COMPRESSION, ()))
    first_word = next(iter(maker.rstrip(b"\0").upper().split()), b"")
    return _MAKERS.get(first_word, "RAW") if is_raw else None


def _pages(data: bytes) -> Iterator[_Page]:
    """Yield the tags that tell, of each page of a TIFF and of the pages inside it (SubIFDs)."""
    order = _ORDERS[data[:4]]
    seen: set[int] = set()
    # Of a page that lies outside of the file, nothing is known.
    with suppress(struct.error):
        pending = [*struct.unpack_from(f"{order}I", data, 4)]
        while pending and len(seen) < _MOST_PAGES:
            offset = pending.pop()
            if not offset or offset in seen:
                continue
            seen.add(offset)
            with suppress(struct.error):
                page, following = _read_page(data, order, offset)
                yield page
                pending += [following, *page.get(_SUB_IFDS, ())]


def _read_page(data: bytes, order: str, offset: int) -> tuple[_Page, int]:
    """Return the tags of the page at `offset`, and where the next page is; 0 for the last one."""
    (tags,) = struct.unpack_from(f"{order}H", data, offset)
    page: _Page = {}
    for entry in range(offset + 2, offset + 2 + 12 * min(tags, _MOST_TAGS), 12):
        tag, kind, count = struct.unpack_from(f"{order}HHI", data, entry)
        if tag not in _TAGS or kind not in _TYPES:
            continue
        size, code = _TYPES[kind]
        place = entry + 8
        if size * count > 4:
            (place,) = struct.unpack_from(f"{order}I", data, place)
        with suppress(struct.error):
            page[tag] = struct.unpack_from(f"{order}{min(count, _MOST_VALUES)}{code}", data, place)
    (following,) = struct.unpack_from(f"{order}I", data, offset + 2 + 12 * tags)
    return page, following
