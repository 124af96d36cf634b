"""What a client may take before anybody knows who it is: connections, header bytes and time.

uvicorn bounds none of these with its faster parser, httptools: an endless header grows the memory,
and half a request keeps its connection for ever. So the parser is h11, which bounds the header, in
a protocol that counts connections and seconds.
"""

import asyncio
import logging
import resource
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

logger = logging.getLogger(__name__)

# Bytes of a request's first line and headers; more is answered with 431 and the connection ends.
HEADER_BYTES = 32 * 1024
# h11 bounds only what is not whole yet: what came at once is therefore given to it in pieces.
PARSED_BYTES = 16 * 1024
# Seconds that a client may take for its first line and headers.
HEADER_SECONDS = 10.0
# Seconds for the body: an upload of 50 MB at 0.5 MB/s.
BODY_SECONDS = 100.0
# Seconds in which a client must have taken its answer.
ANSWER_SECONDS = 600.0
# Connections at a time; each takes a file descriptor and some 20 kB. A browser opens six.
MOST_CONNECTIONS = 500
# Descriptors that the program itself needs beside the connections.
OWN_DESCRIPTORS = 128
# Seconds between two lines of the log that say the same of many clients.
LOG_SECONDS = 60.0

# By what the client has to do next.
SECONDS = {h11.IDLE: HEADER_SECONDS, h11.SEND_BODY: BODY_SECONDS, h11.DONE: ANSWER_SECONDS}


def most_connections() -> int:
    """Return how many connections are held at a time, by this process's limit of open files."""
    limit, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit == resource.RLIM_INFINITY:
        return MOST_CONNECTIONS
    return max(min(MOST_CONNECTIONS, limit - OWN_DESCRIPTORS), 1)


class BoundedProtocol(H11Protocol):
    """One connection: refused if there are too many, ended if its request does not come."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take the connection, unless there are too many already."""
        super().connection_made(transport)
        self._deadline: asyncio.TimerHandle | None = None
        self._awaited: Any = None
        if len(self.connections) > most_connections():
            logger.warning("%d connections: new ones are refused", most_connections())
            transport.abort()
            return
        self._wait_for_client()

    def data_received(self, data: bytes) -> None:
        """Parse what came, and note whether the request is whole now."""
        for start in range(0, len(data), PARSED_BYTES):
            super().data_received(data[start : start + PARSED_BYTES])
            if self.transport.is_closing():
                return
        self._wait_for_client()

    def on_response_complete(self) -> None:
        """End a request; the next one on this connection has its time anew."""
        super().on_response_complete()
        self._awaited = None
        self._wait_for_client()

    def connection_lost(self, exc: Exception | None) -> None:
        """Forget the connection."""
        self._forget_deadline()
        super().connection_lost(exc)

    def _wait_for_client(self) -> None:
        """Set the time by which the client must have done what it has to do next.

        The clock runs from the beginning of a part: bytes that trickle in do not stop it.
        """
        state = self.conn.their_state
        if state == self._awaited:
            return
        self._awaited = state
        self._forget_deadline()
        seconds = SECONDS.get(state)
        if seconds is not None:
            self._deadline = self.loop.call_later(seconds, self._end)

    def _forget_deadline(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None

    def _end(self) -> None:
        logger.warning("a client took too long: its connection was ended")
        self.transport.abort()


class OnceAMinute(logging.Filter):
    """Lets a message through once in LOG_SECONDS: many clients must not fill a disk with one line.

    Bugs of the application, which come with a traceback and another message each, are let through.
    """

    def __init__(self) -> None:
        super().__init__()
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether to log the record."""
        last = self._last.get(record.msg, -LOG_SECONDS)
        if record.created - last < LOG_SECONDS:
            return False
        self._last[record.msg] = record.created
        return True


def limit_logs() -> None:
    """Limit what clients can make uvicorn, asyncio and the server say."""
    once = OnceAMinute()
    for name in ("uvicorn.error", "asyncio", "retrieval_pipeline.web.thumbnails", __name__):
        logging.getLogger(name).addFilter(once)
