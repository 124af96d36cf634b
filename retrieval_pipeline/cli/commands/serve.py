"""`retrieval serve`: run the web server."""

import functools
import re
import sys
from pathlib import Path
from urllib.parse import urlencode

import click
from click.core import ParameterSource

from retrieval_pipeline.cli.commands.common import config_option
from retrieval_pipeline.cli.output import tell
from retrieval_pipeline.cli.parameters import FilePath
from retrieval_pipeline.config.loading import find_settings_file, load_settings
from retrieval_pipeline.errors import SettingsError
from retrieval_pipeline.processes import python_command

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
    help="What others must know to use the page: 16 characters or more. Other users of this "
    "machine can read it in the list of processes; the variable and --token-file are safe.",
)
@click.option(
    "--token-file",
    type=FilePath(),
    metavar="FILE",
    help="Read the token from the first line of this file.",
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
@click.option(
    "--root-path",
    default="",
    metavar="PATH",
    help="What all addresses begin with if a proxy shows the page below a path: /pictures.",
)
@click.option(
    "--proxy",
    "proxies",
    multiple=True,
    metavar="ADDRESS",
    help="A proxy (address or network) whose X-Forwarded-For and X-Forwarded-Proto are believed.",
)
@config_option
def serve(
    port: int,
    host: str,
    token: str | None,
    token_file: Path | None,
    open_page: bool,
    dagster_url: str,
    root_path: str,
    proxies: tuple[str, ...],
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

    if token_file is not None:
        if click.get_current_context().get_parameter_source("token") is ParameterSource.COMMANDLINE:
            raise click.UsageError("give --token or --token-file, not both")
        token = _read_token(token_file)
    if token is not None and len(token) < SHORTEST_TOKEN:
        raise click.UsageError(f"the token needs {SHORTEST_TOKEN} characters or more")
    if root_path and not re.fullmatch(r"(/[A-Za-z0-9._~-]+)+/?", root_path):
        raise click.UsageError(f"--root-path {root_path}: give a path like /pictures")
    if not is_loopback(host) and token is None:
        raise click.UsageError(
            f"--host {host} lets other machines connect: they must know a secret, so set "
            'RETRIEVAL_TOKEN="$(openssl rand -hex 16)" or give --token-file. The connection is not '
            "encrypted: beyond a network that you trust, put a server with TLS in front, or use an "
            "SSH tunnel instead of --host"
        )
    try:
        listener = listen(host, port)
    except PortTakenError as error:
        if error.free is None or not sys.stdin.isatty():
            raise
        tell(f"port {port} is in use by another program")
        if not click.confirm(f"Use {error.free} instead?", default=True, err=True):
            raise SystemExit(1) from None
        listener = listen(host, error.free)
    name = f"[{host}]" if ":" in host else host
    address = f"http://{name}:{listener.getsockname()[1]}{root_path.rstrip('/')}/"

    def ready() -> None:
        tell(f"{address}  (Ctrl-C ends it)")
        if token is not None:
            tell(f"others add ?token=... once: {address}?token=<the token>")
        if open_page:
            import webbrowser

            known = f"?{urlencode({'token': token})}" if token else ""
            webbrowser.open(f"{address}{known}")

    named = ["--config", str(found.absolute())] if (found := find_settings_file(config)) else []
    app = create_app(
        load,
        Access(token),
        dagster_url=dagster_url,
        root_path=root_path,
        index_command=python_command("retrieval_pipeline.cli.main", "main", "index", *named),
    )
    run(app, listener, ready, proxies)
    tell("stopped")


def _read_token(file: Path) -> str:
    """Return the first line of a file.

    Raises:
        SettingsError: It cannot be read, or is not text.
    """
    try:
        return file.read_text(encoding="utf-8").partition("\n")[0].strip()
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{file}: the token is not UTF-8 text") from None
