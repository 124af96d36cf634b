"""The manual page of the command line, made from the commands themselves.

    python docs/man_page.py        # writes docs/retrieval.1 anew

The wheel installs it as share/man/man1/retrieval.1; a test holds it against the commands.
"""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

from retrieval_pipeline import __version__
from retrieval_pipeline.cli.main import cli

PAGE = Path(__file__).parent / "retrieval.1"

ENVIRONMENT = {
    "RETRIEVAL_CONFIG": "The settings file, where --config names none.",
    "NO_COLOR": "If set, no colours on a terminal.",
}
FILES = {
    "retrieval.toml": "The settings, in the working directory or one above it.",
    "~/.config/retrieval/retrieval.toml": "The settings where there are no others.",
    "~/.local/state/retrieval/history": "What was typed at the prompt of retrieval query.",
}


def man_page() -> str:
    """Return the page in the language of man(7)."""
    return "\n".join(_lines()) + "\n"


def _lines() -> Iterator[str]:
    top = click.Context(cli, info_name="retrieval")
    yield f'.TH RETRIEVAL 1 "" "retrieval {__version__}" "User Commands"'
    yield from (".SH NAME", r"retrieval \- find pictures by what is in them")
    yield from (".SH SYNOPSIS", r"\fBretrieval\fR \fICOMMAND\fR [\fIOPTIONS\fR] ...")
    yield ".SH DESCRIPTION"
    yield from _paragraphs(cli.help or "")
    yield ".SH COMMANDS"
    for name in cli.list_commands(top):
        command = cli.get_command(top, name)
        context = click.Context(command, info_name=name, parent=top)
        usage = " ".join(command.collect_usage_pieces(context))
        yield from (f".SS retrieval {name} {_escaped(usage)}", *_paragraphs(command.help or ""))
        # Without `--help`, whose names depend on how the command was called first.
        for option in command.params:
            record = option.get_help_record(context)
            # Arguments are explained in the text.
            if isinstance(option, click.Option) and record is not None:
                yield from _entry(*record)
        yield from _entry("-h, --help", "Show this message and exit.")
    yield ".SH EXIT STATUS"
    yield from _paragraphs(cli.epilog or "")
    for heading, entries in (("ENVIRONMENT", ENVIRONMENT), ("FILES", FILES)):
        yield f".SH {heading}"
        for term, what in entries.items():
            yield from _entry(term, what)


def _paragraphs(text: str) -> Iterator[str]:
    r"""Yield the paragraphs of a help text; those that start with \b keep their lines."""
    for number, paragraph in enumerate(re.split(r"\n\s*\n", inspect.cleandoc(text).strip())):
        if number:
            yield ".PP"
        if paragraph.startswith("\b"):
            kept = paragraph.removeprefix("\b").strip("\n").split("\n")
            yield from (".nf", *map(_escaped, kept), ".fi")
        else:
            yield _escaped(" ".join(paragraph.split()))


def _entry(term: str, what: str) -> Iterator[str]:
    yield from (".TP", rf"\fB{_escaped(term)}\fR", _escaped(" ".join(what.split())))


def _escaped(text: str) -> str:
    """Return a line of which no character means anything to roff."""
    text = text.replace("\\", r"\e").replace("-", r"\-")
    return rf"\&{text}" if text.startswith((".", "'")) else text


if __name__ == "__main__":
    PAGE.write_text(man_page(), "utf-8")
