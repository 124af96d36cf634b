"""The ASGI application: routes, what guards them, and how errors are shown."""

import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from http import HTTPStatus

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.gzip import DEFAULT_EXCLUDED_CONTENT_TYPES, GZipMiddleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from retrieval_pipeline.config.settings import Settings
from retrieval_pipeline.web import pages
from retrieval_pipeline.web.api_routes import OPERATIONS
from retrieval_pipeline.web.frame import problem_page
from retrieval_pipeline.web.library import Library
from retrieval_pipeline.web.operations import problem_response
from retrieval_pipeline.web.problems import RequestError
from retrieval_pipeline.web.proxies import RootPath, route_path
from retrieval_pipeline.web.security import HEADERS, Access, Guard

# Half the time of the highest level, for some hundredths more bytes.
COMPRESSION = 5
# Pictures are compressed already.
INCOMPRESSIBLE = (*DEFAULT_EXCLUDED_CONTENT_TYPES, "application/octet-stream")


def create_app(
    load_settings: Callable[[], Settings],
    access: Access | None = None,
    *,
    dagster_url: str | None = None,
    root_path: str = "",
    index_command: Sequence[str] | None = None,
) -> Starlette:
    """Return the application.

    Args:
        load_settings: Called at the start, and again when there is a new build.
        access: Who may use it; by default anybody on this machine.
        dagster_url: Where Dagster's own pages are, for a link.
        root_path: What the paths of all addresses begin with, as a proxy shows them: "/pictures".
        index_command: Brings tables and index up to date when somebody asks for that on the page;
            without it nobody can.
    """

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with Library(load_settings, index_command) as library:
            app.state.library = library
            yield

    access = access or Access()
    app = Starlette(
        routes=[*(operation.route() for operation in OPERATIONS), *pages.ROUTES],
        middleware=[
            Middleware(RootPath, root_path=root_path),
            Middleware(Guard, access=access),
            Middleware(
                GZipMiddleware, compresslevel=COMPRESSION, exclude_content_types=INCOMPRESSIBLE
            ),
            Middleware(Refusals),
        ],
        exception_handlers={
            HTTPException: _on_http_error,
            RequestError: _on_request_error,
            Exception: _on_bug,
        },
        lifespan=lifespan,
    )
    app.state.access = access
    app.state.dagster_url = dagster_url
    # The server says when it ends: streams must end before.
    app.state.is_stopping = lambda: False
    return app


class Refusals:
    """ASGI middleware that answers what the guard refused, with all headers of an answer."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a refused request; hand on the others."""
        if (refused := scope.get("refused")) is not None:
            response = _shown(Request(scope), refused)
            await response(scope, receive, send)
        else:
            await self._app(scope, receive, send)


async def _on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    status = HTTPStatus(error.status_code)
    if status == HTTPStatus.NOT_FOUND:
        detail = f"there is no {request.url.path} here"
    elif status == HTTPStatus.METHOD_NOT_ALLOWED:
        detail = f"{request.method} is not used here"
    else:
        detail = error.detail
    return _shown(request, RequestError(status, detail, headers=dict(error.headers or {})))


async def _on_request_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestError)
    return _shown(request, error)


async def _on_bug(request: Request, error: Exception) -> Response:
    """Answer what nobody foresaw; the server logs it. The guard does not see this answer."""
    detail = "this is a bug: the terminal that runs the server shows where"
    response = _shown(request, RequestError(HTTPStatus.INTERNAL_SERVER_ERROR, detail))
    response.headers.update(HEADERS)
    return response


def _shown(request: Request, error: RequestError) -> Response:
    """Return an error as problem details for programs, as a page for people."""
    if route_path(request.scope).startswith("/api/"):
        return problem_response(error)
    return problem_page(request, error)
