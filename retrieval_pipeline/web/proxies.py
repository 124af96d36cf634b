"""What it takes to stand behind a proxy that shows the server under another address.

Which proxies may say whom they ask for (`X-Forwarded-For`, `X-Forwarded-Proto`) is uvicorn's part;
see `server.bounded_server`.
"""

from starlette.types import ASGIApp, Receive, Scope, Send


class RootPath:
    """ASGI middleware for a server whose addresses all begin with a path, such as /pictures.

    A proxy may hand on that path or take it away: both are understood.
    """

    def __init__(self, app: ASGIApp, root_path: str) -> None:
        self._app = app
        self._root = root_path.rstrip("/")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] == "http" and self._root:
            path = scope["path"]
            if path == self._root:
                path += "/"
            elif not path.startswith(f"{self._root}/"):
                path = self._root + path
            # In place: what shows errors around this has the same scope.
            scope.update(path=path, root_path=self._root)
        await self._app(scope, receive, send)


def route_path(scope: Scope) -> str:
    """Return the path of a request as the routes name it: without what all addresses begin with."""
    path: str = scope["path"]
    return path.removeprefix(scope.get("root_path", ""))
