"""The prompt of `retrieval query`: lines with editing and a history, and hits that open."""

import contextlib
import os
import shlex
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click

from retrieval_pipeline.cli.output import tell
from retrieval_pipeline.errors import CommandError, QueryError
from retrieval_pipeline.paths import to_text
from retrieval_pipeline.processes import open_file
from retrieval_pipeline.search.results import Answer
from retrieval_pipeline.storage.remote import Remote

PROMPT = "> "
HELP = """\
a dog on grass         find pictures; options as on the command line:
a dog -k 3 --source x  three hits of one source; --after 2024, --minus people, ...
3                      open the third hit of the last answer ("3" in quotes looks for it)
:help                  this text; --help lists the options
exit                   leave, as Ctrl-D does\
"""
# Lines to remember.
HISTORY_LINES = 1_000


def converse(answer: Callable[[list[str]], Answer]) -> list[Answer]:
    """Ask for lines and answer them until "exit" or the end of the input.

    Args:
        answer: Answers a line, which comes as a shell would split it, and shows the answer.

    Returns:
        The answers.
    """
    answers: list[Answer] = []
    with _history():
        for line in _lines():
            if line == ":help":
                tell(*HELP.splitlines())
                continue
            try:
                if line.isdecimal():
                    _open(int(line), answers[-1] if answers else None)
                else:
                    answers.append(answer(_words(line)))
            except (QueryError, CommandError) as error:
                tell(*(f"error: {line}" for line in error.args))
            except click.ClickException as error:
                tell(f"error: {error.format_message()}")
            except click.exceptions.Exit:
                # After the text of --help.
                continue
    return answers


def _lines() -> Iterator[str]:
    """Yield lines that are not empty."""
    while True:
        try:
            # Without a terminal to write to, the question must not stand among the results.
            if sys.stdout.isatty():
                line = input(PROMPT)
            else:
                tell(PROMPT, end="")
                line = input()
        except EOFError:
            tell("")
            return
        line = line.strip()
        if line.lower() in ("exit", "quit", ":quit", ":q"):
            return
        if line:
            yield line


def _words(line: str) -> list[str]:
    """Split a line as a shell does; an apostrophe, as in "a dog's bed", is no quote."""
    try:
        return shlex.split(line)
    except ValueError:
        return line.split()


def _open(number: int, answer: Answer | None) -> None:
    """Open a hit in the program that the desktop has for it.

    Raises:
        QueryError: There is no such hit, or its file is not here.
        CommandError: No program opens it.
    """
    first = answer.offset + 1 if answer is not None else 1
    hits = answer.hits if answer is not None else ()
    if not first <= number < first + len(hits):
        raise QueryError(f'there is no hit {number} to open: to look for it, type "{number}"')
    path = hits[number - first].path
    if isinstance(path, Remote):
        raise QueryError(f"{path} is on another machine")
    if not path.is_file():
        raise QueryError(f"{to_text(str(path))} is gone: `retrieval index` notes that")
    open_file(path)


@contextlib.contextmanager
def _history() -> Iterator[None]:
    """Edit lines and remember them, in a file of the user's that nobody else can read.

    Without readline, or where that file cannot be written, there is none.
    """
    try:
        import readline
    except ImportError:
        yield
        return
    from platformdirs import user_state_path

    file = user_state_path("retrieval") / "history"
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        os.close(os.open(file, os.O_CREAT | os.O_RDWR | os.O_NOFOLLOW, 0o600))
        file.chmod(0o600)
        readline.read_history_file(file)
    except OSError:
        file = Path(os.devnull)
    before = readline.get_current_history_length()
    try:
        yield
    finally:
        new = readline.get_current_history_length() - before
        with contextlib.suppress(OSError):
            if new > 0 and file != Path(os.devnull):
                # Another prompt may have added lines meanwhile.
                readline.append_history_file(new, file)
                readline.clear_history()
                readline.read_history_file(file)
                readline.set_history_length(HISTORY_LINES)
                readline.write_history_file(file)
                file.chmod(0o600)
