"""Types of options and arguments: each refuses a value that nobody can have meant, and says why."""

import math
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

# Largest count or size in pixels that an option takes: more than any collection has, and few enough
# digits for every library below.
MOST = 1_000_000_000


if TYPE_CHECKING:
    _NumberType = click.ParamType[int]
    _TextType = click.ParamType[str]
    _PathType = click.Path[Path]
else:
    # Not generic in the earlier versions of click.
    _NumberType = _TextType = click.ParamType
    _PathType = click.Path


class Count(_NumberType):
    """A whole number from `least` to MOST; the help leaves out MOST, which nobody wants to know."""

    name = "number"

    def __init__(self, least: int = 0) -> None:
        self._range = click.IntRange(least, MOST)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return the number, or tell click what is wrong with it."""
        number: int = self._range.convert(value, param, ctx)
        return number


class Fraction(click.FloatRange):
    """A number from 0 to 1; "nan", which is in no range, is refused as other numbers are."""

    def __init__(self, *, min_open: bool = False) -> None:
        super().__init__(0, 1, min_open=min_open)

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return the number, or tell click what is wrong with it."""
        number: float = super().convert(value, param, ctx)
        if math.isnan(number):
            self.fail(f"{value} is no number", param, ctx)
        return number


class Words(_TextType):
    """Some text; without any, as when a variable of a shell is not set, a filter would be lost."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the text, or tell click that there is none."""
        text = str(value)
        if not text.strip():
            self.fail("it is empty", param, ctx)
        return text


class FilePath(_PathType):
    """The path of a file or directory, in which "~" is the home directory also behind "=".

    An empty path, as when a variable of a shell is not set, is refused: it would be the working
    directory.
    """

    def __init__(self, *, file_okay: bool = True) -> None:
        super().__init__(path_type=Path, file_okay=file_okay)

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Return the path, or tell click what is wrong with it."""
        if not os.fspath(value):
            self.fail("it is empty", param, ctx)
        # Unlike `Path.expanduser`, it leaves the "~name" of an unknown user as it is, as shells do.
        return super().convert(os.path.expanduser(value), param, ctx)  # noqa: PTH111
