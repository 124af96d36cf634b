"""Ends of file names, in lower case: of pictures, of RAW, and of files that belong to pictures."""

PICTURES = (
    *(".jpg", ".jpeg", ".jpe", ".jif", ".jfif", ".mpo"),
    *(".png", ".apng", ".gif", ".webp", ".bmp", ".dib", ".tif", ".tiff"),
    *(".avif", ".avifs", ".heic", ".heif", ".heics", ".heifs", ".hif", ".jxl"),
    *(".jp2", ".j2k", ".jpf", ".jpx"),
    *(".psd", ".ico", ".tga", ".dds", ".qoi", ".ppm", ".pgm", ".pbm"),
)

# What a camera's sensor saw, as LibRaw reads it. Left out are ends that mean something else more
# often than RAW: .bay, .cap, .cin, .dat, .ia, .raw.
RAW = (
    *(".dng", ".cr2", ".cr3", ".crw", ".nef", ".nrw", ".arw", ".srf", ".sr2", ".orf", ".ori"),
    *(".rw2", ".rwl", ".raf", ".pef", ".srw", ".x3f", ".3fr", ".fff", ".iiq", ".mef", ".mos"),
    *(".mrw", ".erf", ".kdc", ".dcr", ".dcs", ".gpr"),
)

# Files that belong to a picture of the same name: what photo programs and Google Takeout write
# about it, and the videos of Live Photos.
SIDECARS = (".xmp", ".json", ".aae", ".pp3", ".dop")
VIDEOS = (".mov", ".mp4")

# What people call a format by the ends of its files' names.
FORMATS = {"JPG": "JPEG", "TIF": "TIFF", "JP2": "JPEG2000", "HEIC": "HEIF"}

# Follows the name of a file's format where the end of the picture is missing: "JPEG (damaged)".
DAMAGED = " (damaged)"


def format_named(name: str) -> str:
    """Return the name of a format, in upper case, that people or the end of a file's name name."""
    return FORMATS.get(name.upper(), name.upper())
