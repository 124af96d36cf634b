"""`retrieval mcp`: serve the library to an assistant."""

import functools
import sys
from pathlib import Path

import click

from retrieval_pipeline.cli.commands.common import config_option
from retrieval_pipeline.cli.output import tell
from retrieval_pipeline.config.loading import load_settings
from retrieval_pipeline.errors import RetrievalError

# Characters of the token: what a machine could not guess in years.
SHORTEST_TOKEN = 16


@click.command()
@click.option("--http", is_flag=True, help="Serve by streamable HTTP on this machine, not stdio.")
@click.option(
    "--port", default=8766, show_default=True, type=click.IntRange(1, 65_535), help="With --http."
)
@click.option(
    "--token",
    envvar="RETRIEVAL_TOKEN",
    show_envvar=True,
    help="With --http: what others must know, as for the page of `retrieval serve`.",
)
@config_option
def mcp(http: bool, port: int, token: str | None, config: Path | None) -> None:
    """Let an assistant search and look at your pictures (Model Context Protocol).

    The assistant starts this command itself and talks to it by standard input and output; the docs
    (docs/assistants.md) have the lines for its settings. It can only read: search, similar
    pictures, facts, thumbnails, status.
    """
    load = functools.partial(load_settings, config)
    load()
    try:
        import mcp.server  # noqa: F401
    except ImportError:
        raise RetrievalError(
            'an assistant needs the extra `mcp`: pip install "retrieval-pipeline[mcp]"'
        ) from None
    from retrieval_pipeline.assistants.server import create_server

    server = create_server(load)
    if not http:
        if sys.stdin.isatty():
            tell("waits for what an assistant writes on standard input (Ctrl-C ends it)")
        server.run("stdio")
        return
    if not token or len(token) < SHORTEST_TOKEN:
        raise click.UsageError(
            f"--http needs a secret of {SHORTEST_TOKEN} characters or more: "
            'RETRIEVAL_TOKEN="$(openssl rand -hex 16)"'
        )
    import uvicorn

    from retrieval_pipeline.assistants.server import with_token

    tell(f"http://127.0.0.1:{port}/mcp  (Ctrl-C ends it)")
    app = with_token(server.streamable_http_app(), token)
    uvicorn.run(app, host="127.0.0.1", port=port, log_level="warning")
