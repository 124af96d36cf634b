"""The names that the store gives to the files and directories that it makes.

What has another name is not the store's, and is never moved or removed.
"""

import re
import unicodedata

# Names of sources, recommenders and saved queries.
SOURCE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")
# `VectorSpace.key`.
SPACE_KEY = re.compile(r"[A-Za-z0-9_.-]+@[0-9a-f]{8}")
# The time of a build in UTC, the start of its inputs' hash, and a number if the name was taken.
BUILD_NAME = re.compile(r"\d{8}T\d{6}(\.\d{6})?Z-[0-9a-f]{8}(-\d+)?")
# Directories beside the builds of a vector space: of segments, each named by a hash, and of blocks
# and other files that builds share.
SEGMENTS, BLOCKS = "segments", "blocks"
SEGMENT_NAME = re.compile(r"[0-9a-f]{32}")
BLOCK_NAME = re.compile(r"[0-9a-f]{32}\.(arrow|npy)")
PART_NAME = re.compile(r"part-\d+(-\d+)?\.parquet")
VIEWS_NAME = re.compile(r"views-\d+(-\d+)?\.parquet")
QUARANTINE_NAME = re.compile(r"quarantine\.parquet")
INT8_CHECK = "int8.json"
TABLE_NAME = re.compile(rf"{SOURCE_NAME.pattern}\.parquet")
# A collection of an engine that this program made: prefix, hash of the vector space, colour.
COLLECTION_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}_[0-9a-f]{8}_(blue|green)")
# What was sent to it: the ledger, the ids of an unfinished publication, and those that it has sent.
SENT_NAME = re.compile(r"sent-\d{6}\.parquet")
SAVED_NAME = re.compile(rf"{SOURCE_NAME.pattern}\.json")
# Names of albums and of searches that people save, as `file_name_of` writes them.
ALBUM_NAME = re.compile(r"([A-Za-z0-9_-]|\+[0-9a-f]{2})+\.parquet")
SEARCH_NAME = re.compile(r"([A-Za-z0-9_-]|\+[0-9a-f]{2})+\.json")
# Bytes of a name in UTF-8: three times as many characters, and the rest of a temporary name, are
# at most the 255 bytes that file systems hold.
LONGEST_TITLE = 64
# A thumbnail or an upload.
PICTURE_NAME = re.compile(r"[0-9a-f]{32}\.webp")
# Twelve random hex digits, and the name that the file or directory gets when it is complete.
TEMPORARY_NAME = re.compile(r"\.tmp-[0-9a-f]{12}-.+", re.DOTALL)
# A repair adds ".again" if it has set aside a file of that name before.
_AGAIN = r"(\.again)*"

_SPACE, _SOURCE, _BUILD = SPACE_KEY.pattern, SOURCE_NAME.pattern, BUILD_NAME.pattern

# Directories whose files are moved and removed together: of a vector space, a source in it, a
# build and a map. And what the store writes into each, as a path relative to the directory.
_IN_SOURCE = rf"({PART_NAME.pattern}|{VIEWS_NAME.pattern}|{QUARANTINE_NAME.pattern})"
_IN_BUILD = r"[a-z_-]+\.(annoy|arrow|faiss|f32|json|npy)"
_IN_MAP = r"(map\.(json|html|png)|basis\.npz|(coordinates|neighbours)\.parquet)"
# These patterns, and that of what is set aside, are compiled where they are used (`re` keeps them):
# most commands use none of them, and compiling takes longer than reading the settings.
CONTENTS = {
    rf"embeddings/{_SPACE}": rf"{_SOURCE}(/{_IN_SOURCE})?|{re.escape(INT8_CHECK)}",
    rf"embeddings/{_SPACE}/{_SOURCE}": _IN_SOURCE,
    rf"(damaged/)?index/{_SPACE}/{_BUILD}{_AGAIN}": _IN_BUILD,
    rf"(damaged/)?index/{_SPACE}/{SEGMENTS}/{SEGMENT_NAME.pattern}{_AGAIN}": _IN_BUILD,
    rf"map/{_BUILD}": _IN_MAP,
    rf"engine/{COLLECTION_NAME.pattern}": (
        rf"(ledger|pending)\.parquet|{SENT_NAME.pattern}|(blocks|collection|published)\.json"
    ),
}

# What a repair sets aside, relative to `damaged`.
SET_ASIDE = (
    rf"((manifest|facts|sidecars|labels)/{TABLE_NAME.pattern}|embeddings/{_SPACE}/{_SOURCE}"
    rf"/{_IN_SOURCE}"
    rf"|saved/{SAVED_NAME.pattern}|index/CURRENT|index/{_SPACE}/{_BUILD}"
    rf"|index/{_SPACE}/{SEGMENTS}/{SEGMENT_NAME.pattern}|index/{_SPACE}/{BLOCKS}/{BLOCK_NAME.pattern})"
    rf"{_AGAIN}"
)


def is_title(name: str) -> bool:
    """Tell whether people may give an album or a search this name: any text of one line."""
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        return False
    fits = 0 < length <= LONGEST_TITLE and name == name.strip() and name.isprintable()
    # Letters with marks are written in more than one way: one name must be one file.
    return fits and unicodedata.is_normalized("NFC", name)


def file_name_of(title: str) -> str:
    """Return a name of letters, digits, "-", "_" and "+" that stands for a title.

    All else is written as "+" and two hex digits for each of its bytes in UTF-8.
    """
    return "".join(
        char
        if char.isascii() and (char.isalnum() or char in "-_")
        else "".join(f"+{byte:02x}" for byte in char.encode())
        for char in title
    )


def title_of(file_name: str) -> str:
    """Return the title that `file_name_of` wrote.

    Raises:
        ValueError: It did not write this.
    """
    title = re.sub(
        r"(\+[0-9a-f]{2})+",
        lambda match: bytes.fromhex(match[0].replace("+", "")).decode(),
        file_name,
    )
    if file_name_of(title) != file_name:
        raise ValueError(file_name)
    return title
