"""Which files are pictures, told from their first bytes; their decoders look closer."""

import re

# So many bytes of a file decide.
SIGNATURE_BYTES = 32

# Formats whose files begin with bytes that few others begin with. TGA has no signature, and those
# of ICO, PCX, PPM and some more are too short to be told from text and other data.
_PICTURE = re.compile(
    rb"\xff\xd8\xff"  # JPEG
    rb"|\x89PNG\r\n\x1a\n"
    rb"|GIF8[79]a"
    rb"|RIFF....WEBP"
    # TIFF and BigTIFF; the RAW files of Olympus, Panasonic, Canon (old), Minolta, Fuji and Sigma
    rb"|II\x2a\0|MM\0\x2a|II\x2b\0|MM\0\x2b"
    rb"|IIR[OS]|MMOR|IIU\0|II\x1a\0\0\0HEAPCCDR|\0MRM|FUJIFILMCCD-RAW|FOVb"
    # BMP, by its two reserved numbers and the size of its second header, one of seven
    rb"|BM....\0\0\0\0....[\x0c\x28\x34\x38\x40\x6c\x7c]\0\0\0"
    # AVIF, HEIF and Canon's CR3
    rb"|....ftyp(avi[fs]|hei[cmsx]|hev[cmsx]|mi[af]1|msf1|crx )"
    rb"|\xff\x0a|\0\0\0\x0cJXL |\0\0\0\x0cjP  |\xff\x4f\xff\x51"  # JPEG XL, JPEG 2000
    rb"|8BPS\0\x01|qoif|DDS \x7c\0\0\0",
    re.DOTALL,
)


def looks_like_a_picture(start: bytes) -> bool:
    """Tell whether a file that begins with these bytes is a picture, most probably."""
    return bool(_PICTURE.match(start))
