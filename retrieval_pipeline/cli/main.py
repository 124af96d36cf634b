"""The `retrieval` command: results go to stdout, messages to stderr, and an error is one line."""

import logging
import sys
from gc import freeze
from pathlib import Path

import click

from retrieval_pipeline import __version__
from retrieval_pipeline.cli import begin  # noqa: F401  # before pydantic
from retrieval_pipeline.cli.commands.album import album
from retrieval_pipeline.cli.commands.completion import completion
from retrieval_pipeline.cli.commands.demo import demo
from retrieval_pipeline.cli.commands.duplicates import duplicates
from retrieval_pipeline.cli.commands.evaluate import evaluate
from retrieval_pipeline.cli.commands.export import export
from retrieval_pipeline.cli.commands.gc import gc
from retrieval_pipeline.cli.commands.index import index
from retrieval_pipeline.cli.commands.init import init
from retrieval_pipeline.cli.commands.label import label
from retrieval_pipeline.cli.commands.map import latent_map
from retrieval_pipeline.cli.commands.mcp import mcp
from retrieval_pipeline.cli.commands.models import models
from retrieval_pipeline.cli.commands.query import query
from retrieval_pipeline.cli.commands.recommend import recommend
from retrieval_pipeline.cli.commands.saved import saved
from retrieval_pipeline.cli.commands.serve import serve
from retrieval_pipeline.cli.commands.status import status
from retrieval_pipeline.cli.commands.use import use
from retrieval_pipeline.cli.commands.verify import verify
from retrieval_pipeline.cli.commands.watch import watch
from retrieval_pipeline.cli.output import ReaderGoneError, guard_streams, tell
from retrieval_pipeline.errors import RetrievalError


def main() -> None:
    """Run the command line; the entry point of `retrieval`."""
    guard_streams()
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    code = _exit_code()
    # The interpreter would look through all objects once more for garbage before it ends.
    freeze()
    sys.exit(code)


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
        return 130
    return code


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

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Return a command by its name, or by another one that people try first."""
        return super().get_command(ctx, ALIASES.get(cmd_name, cmd_name))

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the commands with whole summaries, which click would cut."""
        rows = [
            (name, command.get_short_help_str(LONGEST_SUMMARY))
            for name, command in sorted(self.commands.items())
            if not command.hidden
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


for command in (
    demo, init, models, index, watch, query, evaluate, recommend, album, label, export, duplicates,
    latent_map, saved, serve, mcp, status, use, verify, gc, completion,
):  # fmt: skip
    cli.add_command(command)
