"""Run the application: a socket of its own, uvicorn, and an end without noise."""

import asyncio
import contextlib
import errno
import socket
from collections.abc import Callable, Sequence

import uvicorn
from starlette.applications import Starlette
from starlette.types import ASGIApp

from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.web.connections import HEADER_BYTES, BoundedProtocol, limit_logs

# Seconds that requests in flight have left when the server is asked to stop.
GRACE_SECONDS = 3
# Ports that are tried after one that is taken.
NEXT_PORTS = 20


class ServeError(RetrievalError):
    """The server cannot listen where it was told to."""


class PortTakenError(ServeError):
    """Another program listens on the port; `free` is the next one that is not taken, if any."""

    def __init__(self, port: int, free: int | None) -> None:
        hint = f"port {free} is free: add --port {free}" if free else "choose another with --port"
        super().__init__(f"port {port} is in use by another program: {hint}")
        self.free = free


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 lets the system choose.

    Raises:
        PortTakenError: The port is taken.
        ServeError: The address cannot be listened on.
    """
    try:
        return _bound(host, port)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise ServeError(f"cannot listen on {host}, port {port}: {error.strerror}") from None
    for other in range(port + 1, min(port + 1 + NEXT_PORTS, 65_536)):
        with contextlib.suppress(OSError), _bound(host, other):
            raise PortTakenError(port, other)
    raise PortTakenError(port, None)


def _bound(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        # Heads and bodies are sent apart: without this, each answer waits 40 ms for the client to
        # acknowledge its head. Connections inherit it.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        # A port whose last server has just ended is not taken.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1024)
    except OSError:
        listener.close()
        raise
    return listener


def bounded_server(app: ASGIApp, proxies: Sequence[str] = ()) -> uvicorn.Server:
    """Return a server whose clients are bounded; see `connections`.

    Args:
        app: What answers.
        proxies: Addresses, or networks such as 10.0.0.0/8, that may say by `X-Forwarded-For` and
            `X-Forwarded-Proto` for whom they ask.
    """
    limit_logs()
    return uvicorn.Server(
        uvicorn.Config(
            app,
            http=BoundedProtocol,
            h11_max_incomplete_event_size=HEADER_BYTES,
            log_level="warning",
            access_log=False,
            server_header=False,
            # Headers that name another client or scheme could come from anybody else.
            proxy_headers=bool(proxies),
            forwarded_allow_ips=list(proxies),
            timeout_graceful_shutdown=GRACE_SECONDS,
            lifespan="on",
            ws="none",
        )
    )


def serve(
    app: Starlette,
    listener: socket.socket,
    ready: Callable[[], None],
    proxies: Sequence[str] = (),
) -> None:
    """Serve until a signal ends it; `ready` is called when it answers.

    See `bounded_server` for `proxies`.
    """
    server = bounded_server(app, proxies)
    app.state.is_stopping = lambda: server.should_exit

    async def run() -> None:
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        while not server.started and not serving.done():
            await asyncio.sleep(0.02)
        if server.started:
            ready()
        await serving

    # uvicorn raises the signal again when it has ended in order.
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(run())
