"""The `retrieval` command: results go to stdout, messages to stderr, and an error is one line."""

import logging
import os
import sys

import click

from retrieval_pipeline import __version__
from retrieval_pipeline.cli.commands.demo import demo
from retrieval_pipeline.cli.commands.duplicates import duplicates
from retrieval_pipeline.cli.commands.gc import gc
from retrieval_pipeline.cli.commands.index import index
from retrieval_pipeline.cli.commands.init import init
from retrieval_pipeline.cli.commands.map import latent_map
from retrieval_pipeline.cli.commands.query import query
from retrieval_pipeline.cli.commands.recommend import recommend
from retrieval_pipeline.cli.commands.saved import saved
from retrieval_pipeline.cli.commands.serve import serve
from retrieval_pipeline.cli.commands.status import status
from retrieval_pipeline.cli.commands.use import use
from retrieval_pipeline.cli.commands.verify import verify
from retrieval_pipeline.errors import RetrievalError


def main() -> None:
    """Run the command line; the entry point of `retrieval`."""
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    try:
        sys.exit(cli.main(prog_name="retrieval", standalone_mode=False))
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except RetrievalError as error:
        for line in str(error).splitlines():
            click.echo(f"error: {line}", err=True)
        sys.exit(1)
    except (KeyboardInterrupt, click.Abort):
        click.echo("interrupted", err=True)
        sys.exit(130)
    except BrokenPipeError:
        # The reader of our output has gone (`retrieval query ... | head`): nothing to report.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
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
    demo, init, index, query, recommend, duplicates, latent_map, saved, serve, status, use,
    verify, gc,
):  # fmt: skip
    cli.add_command(command)
