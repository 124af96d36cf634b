"""File names as text that Arrow, JSON and terminals can hold, and globs over them."""

import fnmatch
import os
import re
import shlex
import unicodedata
from collections.abc import Sequence
from pathlib import Path

# File names are bytes on Linux and need not be UTF-8. A backslash starts an escape, so that the
# text can be turned back into the same bytes.
_ESCAPE = re.compile(r"\\(\\|x[0-9a-f]{2})")

# What no shell takes for anything but itself; letters of all scripts are among it.
_PLAIN = re.compile(r"[\w@%+:,./-]+")


def to_text(path: str | bytes) -> str:
    r"""Return a file system path as valid Unicode: a bad byte becomes `\xNN`, a backslash `\\`."""
    name = os.fsdecode(path).replace("\\", "\\\\")
    if name.isascii():
        return name
    return "".join(
        f"\\x{ord(char) - 0xDC00:02x}" if "\udc80" <= char <= "\udcff" else char for char in name
    )


def to_path(text: str) -> str:
    """Return the file system path that `to_text` wrote as `text`."""
    return _ESCAPE.sub(
        lambda match: "\\" if match[1] == "\\" else chr(0xDC00 + int(match[1][1:], 16)), text
    )


def real_path(path: Path) -> Path:
    """Return an absolute path without links; of links in a circle, one that leads nowhere.

    `Path.resolve` raises RuntimeError for these before Python 3.13.
    """
    return Path(os.path.realpath(path))


def printable(text: str) -> str:
    """Return `text` with escapes for line ends and for characters that control a terminal."""
    return "".join(char if char.isprintable() else repr(char)[1:-1] for char in text)


def shell_quoted(path: str) -> str:
    """Return a path as one word of a shell, quoted only if it must be, without control characters.

    What does not print, and bytes that are no UTF-8, are written as `$'\\033'`, as GNU ls does on a
    terminal; bash, zsh and ksh read that (POSIX.1-2024), fish does not.
    """
    if path.isprintable():
        return path if _PLAIN.fullmatch(path) else shlex.quote(path)
    quoted = "".join(map(_quoted_character, path))
    return f"$'{quoted}'"


def _quoted_character(char: str) -> str:
    if char in "\\'":
        return f"\\{char}"
    return char if char.isprintable() else "".join(f"\\{byte:03o}" for byte in os.fsencode(char))


def compile_globs(patterns: Sequence[str]) -> re.Pattern[str] | None:
    """Return one regular expression for all globs, for `glob_matches`; None if there are none.

    `*` and `?` also match `/`; `[` starts a character class, and
    `[[]` is a literal bracket. Unicode normal forms do not matter.
    """
    if not patterns:
        return None
    normal = (unicodedata.normalize("NFC", pattern) for pattern in patterns)
    return re.compile("|".join(fnmatch.translate(pattern) for pattern in normal))


def glob_matches(globs: re.Pattern[str] | None, path: str) -> bool:
    """Tell whether one of the globs matches the relative path (with `/`) or its last part."""
    if globs is None:
        return False
    path = unicodedata.normalize("NFC", path)
    return bool(globs.match(path) or globs.match(path.rpartition("/")[2]))
