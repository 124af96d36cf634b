"""`retrieval serve`: run the web server."""

import functools
import sys
import webbrowser
from pathlib import Path

import click

from retrieval_pipeline.cli.commands.common import config_option
from retrieval_pipeline.config import load_settings

LOOPBACK = "127.0.0.1"


@click.command()
@click.option("--port", default=8765, show_default=True, type=click.IntRange(0, 65_535))
@click.option(
    "--host",
    default=LOOPBACK,
    show_default=True,
    help="Address to listen on. Other machines can connect only if there is a token.",
)
@click.option(
    "--token",
    envvar="RETRIEVAL_TOKEN",
    show_envvar=True,
    help="What others must know to use the page: 16 characters or more.",
)
@click.option("--open", "open_page", is_flag=True, help="Open the page in the browser.")
@click.option(
    "--dagster",
    "dagster_url",
    default="http://127.0.0.1:3000",
    show_default=True,
    metavar="URL",
    help="Address of Dagster's own pages, to which the status page links.",
)
@config_option
def serve(
    port: int,
    host: str,
    token: str | None,
    open_page: bool,
    dagster_url: str,
    config: Path | None,
) -> None:
    """Serve a web page to search, vote and look around, until Ctrl-C.

    The page follows a new index by itself. Nothing is sent to other servers.
    """
    load = functools.partial(load_settings, config)
    load()
    from retrieval_pipeline.web.app import create_app
    from retrieval_pipeline.web.security import SHORTEST_TOKEN, Access, is_loopback
    from retrieval_pipeline.web.server import PortTakenError, listen
    from retrieval_pipeline.web.server import serve as run

    if token is not None and len(token) < SHORTEST_TOKEN:
        raise click.UsageError(f"--token needs {SHORTEST_TOKEN} characters or more")
    if not is_loopback(host) and token is None:
        raise click.UsageError(
            f"--host {host} lets other machines connect: they must know a secret, so add --token "
            '"$(openssl rand -hex 16)". The connection is not encrypted: beyond a network that '
            "you trust, put a server with TLS in front, or use an SSH tunnel instead of --host"
        )
    try:
        listener = listen(host, port)
    except PortTakenError as error:
        if error.free is None or not sys.stdin.isatty():
            raise
        click.echo(f"port {port} is in use by another program", err=True)
        if not click.confirm(f"Use {error.free} instead?", default=True, err=True):
            raise SystemExit(1) from None
        listener = listen(host, error.free)
    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{listener.getsockname()[1]}/"

    def ready() -> None:
        click.echo(f"{address}  (Ctrl-C ends it)", err=True)
        if token is not None:
            click.echo(f"others add ?token=... once: {address}?token=<the token>", err=True)
        if open_page:
            webbrowser.open(f"{address}?token={token}" if token else address)

    run(create_app(load, Access(token), dagster_url=dagster_url), listener, ready)
    click.echo("stopped", err=True)
