"""Everything that the command line writes to the terminal passes here.

Results go to stdout and messages to stderr, without characters that could steer the terminal.
Messages never fail: whoever reads them may go away, and the work goes on.
"""

import io
import json
import os
import sys
from typing import TYPE_CHECKING, TextIO

from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.paths import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer
    from rich.text import Text

STDIN, STDOUT, STDERR = 0, 1, 2


class OutputError(RetrievalError):
    """Standard output cannot be written."""


class ReaderGoneError(OutputError):
    """The program that reads standard output has ended, as `head` does when it has enough."""


def echo(*lines: str) -> None:
    """Write results to stdout.

    Raises:
        OutputError: They cannot be written.
    """
    _write(sys.stdout, lines)


def echo_json(value: object, *, indent: int | None = None) -> None:
    """Write a result as JSON, on one line without `indent`; raises as `echo` does.

    It is UTF-8, whatever the encoding of the terminal.
    """
    echo_bytes(f"{json_text(value, indent=indent)}\n".encode())


def json_text(value: object, *, indent: int | None = None) -> str:
    """Return JSON in which letters of all scripts stand for themselves.

    Characters that do not print, and surrogates, which UTF-8 lacks, are written as escapes.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return "".join(
        char if char.isprintable() or char == "\n" else json.dumps(char)[1:-1] for char in text
    )


def echo_styled(*lines: "Text") -> None:
    """Write results with styles to a terminal; raises as `echo` does.

    The lines hold nothing but printable text: see `paths.printable`. rich leaves out colours if
    $NO_COLOR is set (https://no-color.org), and all styles on a terminal that has none.
    """
    from rich.console import Console

    console = Console(file=sys.stdout, highlight=False, soft_wrap=True)
    for line in lines:
        console.print(line)


def echo_bytes(data: bytes) -> None:
    """Write results to stdout as they are, for a program to read; raises as `echo` does."""
    sys.stdout.flush()
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def report(*lines: str) -> None:
    """Write to stdout what a command has done; the work counts, even if nobody can read this."""
    try:
        _write(sys.stdout, lines)
    except OutputError:
        return


def tell(*lines: str, end: str = "\n") -> None:
    """Write messages to stderr."""
    _write(sys.stderr, lines, end)


def _write(stream: TextIO, lines: tuple[str, ...], end: str = "\n") -> None:
    stream.write("".join(f"{printable(line)}{end}" for line in lines))
    stream.flush()


def plural(count: int, noun: str) -> str:
    """Return "1 image" or "2 images"."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class _Results(io.FileIO):
    """Standard output, whose errors have a type of their own: no other file causes them."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Write some of the data, and return how many bytes.

        Raises:
            OutputError: They cannot be written.
        """
        try:
            return super().write(data)
        except OSError as error:
            _discard_output(self.fileno())
            if isinstance(error, BrokenPipeError):
                raise ReaderGoneError("nobody reads the output") from None
            raise OutputError(f"the output cannot be written: {error.strerror}") from None


class _Messages(io.FileIO):
    """Standard error: what cannot be written is dropped, also what libraries write there."""

    def write(self, data: "ReadableBuffer", /) -> int:
        """Return the number of bytes, written or dropped."""
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while rest:
                # None if the terminal is busy and set to never wait.
                rest = rest[super().write(rest) or len(rest) :]
        except OSError:
            _discard_output(self.fileno())
        return size


def _discard_output(descriptor: int) -> None:
    """Let a descriptor lead nowhere: what is still in a buffer must not fail once more at the end.

    Child processes that inherit it are spared, too.
    """
    null = os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, descriptor)
    os.close(null)


def guard_streams() -> None:
    """Make the standard streams of this process fit for any text and any reader.

    A stream that was closed when the process started leads nowhere: the next file that is opened
    would get its number, and with it all that is printed. Characters that the encoding of a
    terminal lacks, and input that is not text, are kept as escapes.
    """
    # The wrong way round, so that using them fails as it does with a closed descriptor.
    for descriptor, flags in ((STDIN, os.O_WRONLY), (STDOUT, os.O_RDONLY), (STDERR, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            os.dup2(os.open(os.devnull, flags), descriptor)
    if sys.stdin is None:
        sys.stdin = open(os.devnull, encoding="utf-8")  # noqa: PTH123, SIM115
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="surrogateescape")
    sys.stdout = _text(io.BufferedWriter(_Results(STDOUT, "w", closefd=False)), sys.stdout)
    # Without a buffer, whose lock a signal handler that tells something may find taken.
    sys.stderr = _text(_Messages(STDERR, "w", closefd=False), sys.stderr)


def _text(binary: io.FileIO | io.BufferedWriter, former: object) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        binary,
        encoding=getattr(former, "encoding", None) or "utf-8",
        errors="backslashreplace",
        line_buffering=True,
        write_through=True,
    )
