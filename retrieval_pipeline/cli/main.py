"""The `retrieval` command: results go to stdout, messages to stderr, and an error is one line."""

import logging
import os
import signal
import sys
from gc import freeze
from importlib import import_module
from pathlib import Path
from types import FrameType

import click

from retrieval_pipeline import __version__
from retrieval_pipeline.cli import begin  # noqa: F401  # before pydantic
from retrieval_pipeline.cli.output import ReaderGoneError, guard_streams, tell
from retrieval_pipeline.errors import RetrievalError

# As shells report a process that SIGINT ended.
INTERRUPTED = 128 + signal.SIGINT


def main() -> None:
    """Run the command line."""
    guard_streams()
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _interrupt)
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    code = _exit_code()
    # The interpreter would look through all objects once more for garbage before it ends.
    freeze()
    sys.exit(code)


def _interrupt(number: int, frame: FrameType | None) -> None:
    """Raise KeyboardInterrupt, as Python does, but end the process while a library is imported.

    Some libraries make another error of an exception that comes then, or print a traceback of it.
    """
    while frame is not None:
        if frame.f_code.co_filename == "<frozen importlib._bootstrap>":
            if sys.stderr.isatty():
                # The bars hide the cursor.
                sys.stderr.write("\x1b[?25h")
            tell("interrupted")
            os._exit(INTERRUPTED)
        frame = frame.f_back
    raise KeyboardInterrupt


def _exit_code() -> int | None:
    """Run the command that the arguments name.

    This is the last place for errors, and docs/decisions.md says which of them are caught: those
    that somebody can cause without a mistake in this program. All others are tracebacks.
    """
    try:
        code: int | None = cli.main(prog_name="retrieval", standalone_mode=False)
    except click.ClickException as error:
        if isinstance(error, click.UsageError) and error.ctx is not None:
            tell(
                *error.ctx.get_usage().splitlines(),
                f"Try '{error.ctx.command_path} --help' for help.",
                "",
            )
        tell(f"Error: {error.format_message()}")
        return error.exit_code
    except ReaderGoneError:
        # `retrieval query ... | head`: what was asked for has been read.
        return 0
    except RetrievalError as error:
        tell(*(f"error: {line}" for line in error.args))
        return 1
    except MemoryError:
        tell("error: there is not enough memory")
        return 1
    except (KeyboardInterrupt, click.Abort):
        tell("interrupted")
        return INTERRUPTED
    return code


# The modules of cli/commands, each with the command of the same name. One is imported when it is
# asked for: a command does not wait for the options of the others.
COMMANDS = (
    "album", "completion", "demo", "duplicates", "evaluate", "export", "gc", "index", "init",
    "label", "map", "mcp", "models", "query", "recommend", "saved", "serve", "status", "use",
    "verify", "watch",
)  # fmt: skip

# Other names of commands; --help lists each command once.
ALIASES = {"search": "query"}


# Characters of the first sentence about a command.
LONGEST_SUMMARY = 200

# docs/command-line.md says the same.
EXIT_CODES = """\
\b
Exit codes:
  0         done, also if nothing was found
  1         failed, and a line on stderr says why; nothing found, with --fail-empty
  2         the command was not understood
  130, 143  interrupted by Ctrl-C, or by SIGTERM
"""


class _Commands(click.Group):
    """The commands; click would take an error of any pipe for one of stdout, and say nothing."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Return the names of all commands, sorted."""
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name, or by another one that people try first."""
        name = ALIASES.get(cmd_name, cmd_name)
        if name not in COMMANDS:
            return None
        module = import_module(f"retrieval_pipeline.cli.commands.{name}")
        commands = (each for each in vars(module).values() if isinstance(each, click.Command))
        return next(command for command in commands if command.name == name)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with whole summaries, which click would cut."""
        rows = [
            (name, command.get_short_help_str(LONGEST_SUMMARY))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None and not command.hidden
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def invoke(self, ctx: click.Context) -> object:
        """Run a command.

        Raises:
            RetrievalError: The operating system refused something; no command expected that.
        """
        try:
            return super().invoke(ctx)
        except RetrievalError:
            raise
        except OSError as error:
            raise RetrievalError(_explained(error)) from error


def _explained(error: OSError) -> str:
    """Say what the operating system refused, and for which file."""
    why = error.strerror or str(error)
    if error.filename is not None:
        return f"{error.filename}: {why}"
    try:
        Path.cwd()
    except FileNotFoundError:
        return "the working directory is gone: change to one that exists"
    return why


@click.group(
    cls=_Commands,
    epilog=EXIT_CODES,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, prog_name="retrieval")
def cli() -> None:
    """Find pictures by what is in them, in directories without tags or captions.

    \b
    First time:     retrieval demo
    Your pictures:  retrieval init ~/Pictures
                    retrieval index
                    retrieval query "a red car in the snow" --open
    """
