"""What every page has around its own, and how pages say what went wrong."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import parse_qsl

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from retrieval_pipeline.errors import BuildError, RetrievalError
from retrieval_pipeline.rendering.templating import environment
from retrieval_pipeline.web.api import access_of, library_of
from retrieval_pipeline.web.assets import PACKAGE, version
from retrieval_pipeline.web.browse import address, breadcrumbs
from retrieval_pipeline.web.files import GoneError
from retrieval_pipeline.web.operations import LARGEST_BODY, as_request_error, read_limited
from retrieval_pipeline.web.parameters import parse
from retrieval_pipeline.web.pictures import AnswerPage
from retrieval_pipeline.web.problems import RequestError

# How large pictures are, of which the third size needs no word, and that captions are hidden.
LOOKS = ("size1", "size2", "size4", "size5", "uncaptioned")
M = TypeVar("M", bound=BaseModel)


def render_page(
    request: Request,
    name: str,
    status: HTTPStatus = HTTPStatus.OK,
    **values: Any,
) -> Response:
    """Return the page of a template, with what all pages have around it."""
    template = environment(PACKAGE).get_template(f"{name}.html.jinja")
    html = template.render(_frame(request) | values | {"here": name})
    return HTMLResponse(html, status)


def render_fragment(request: Request, name: str, **values: Any) -> Response:
    """Return a part of a page, for scripts."""
    template = environment(PACKAGE).get_template(f"{name}.html.jinja")
    return HTMLResponse(template.render(_frame(request) | values))


def problem_page(request: Request, error: RequestError) -> Response:
    """Show what went wrong, to people."""
    html = (
        environment(PACKAGE)
        .get_template("problem.html.jinja")
        .render(**_frame(request, bare=True), error=error)
    )
    return HTMLResponse(html, error.status, headers=error.headers)


def shown(
    page: Callable[[Request], Awaitable[Response]],
) -> Callable[[Request], Awaitable[Response]]:
    """Turn what people can cause into a page that says so."""

    async def endpoint(request: Request) -> Response:
        try:
            return await page(request)
        except BuildError as error:
            if library_of(request).is_open:
                return problem_page(request, as_request_error(error))
            settings = library_of(request).settings
            return render_page(
                request,
                "empty",
                HTTPStatus.SERVICE_UNAVAILABLE,
                problem=str(error),
                sources=settings.sources,
                running=await library_of(request).run(library_of(request).is_being_written),
            )
        except (RequestError, RetrievalError, GoneError) as error:
            return problem_page(request, as_request_error(error))

    return endpoint


def root_of(request: Request) -> str:
    """Return the path that all addresses of the server begin with; see `--root-path`."""
    root: str = request.scope.get("root_path", "")
    return root


def parse_address(request: Request, model: type[M]) -> M:
    """Return what the address of a page says; raises as `parse` does."""
    return parse(model, request.query_params.multi_items(), request.path_params)


class Form(BaseModel, extra="forbid", frozen=True):
    """What a form of a page sends.

    Attributes:
        token: What only pages of this server can read.
    """

    token: str = ""


F = TypeVar("F", bound=Form)


async def read_form(request: Request, model: type[F], largest: int = LARGEST_BODY) -> F:
    """Return what a form of a page of this server sends, at most so many bytes.

    Raises:
        RequestError: It is too large, 413; is not what is asked for, 400; or the token is not of
            this server, 403.
    """
    sent = (await read_limited(request, largest)).decode("ascii", "replace")
    form = parse(model, parse_qsl(sent, max_num_fields=10), {})
    access_of(request).check(form.token)
    return form


def _frame(request: Request, *, bare: bool = False) -> dict[str, Any]:
    """Return what every page shows around its own; `bare` tells nothing to who is not known yet."""
    snapshot = None
    if not bare and library_of(request).is_open:
        snapshot = library_of(request).snapshot
    return {
        "root": root_of(request),
        "address": address,
        "verdict": verdict,
        "ago": _ago,
        "month_name": month_name,
        "breadcrumbs": breadcrumbs,
        "csrf_token": "" if bare else access_of(request).csrf_token,
        "look": _look(request),
        "model": snapshot.model if snapshot else None,
        "build": snapshot.name if snapshot else None,
        "version": version(),
        # What needs the tables that an engine's index was published from is offered where they are.
        "has_tables": snapshot is None or snapshot.corpus is not None,
        "has_map": snapshot is not None and snapshot.map is not None,
    }


def _look(request: Request) -> str:
    """Return the classes of a page for what its reader chose, which a cookie keeps; see look.js."""
    chosen = request.cookies.get("look", "").split(".")
    return " ".join(each for each in LOOKS if each in chosen)


def verdict(answer: AnswerPage) -> str:
    """Say how far the hits of a first page can be trusted."""
    if answer.likely is not None and answer.likely == len(answer.hits) and answer.more:
        return f"The first {answer.likely} are likely"
    return answer.verdict[:1].upper() + answer.verdict[1:]


def month_name(month: str) -> str:
    """Return what a month is called: "August 2019" for "2019-08"."""
    return f"{datetime.fromisoformat(f'{month}-01'):%B %Y}" if month else "Without a date"


def _ago(moment: datetime | None) -> str:
    """Say how long ago something was."""
    if moment is None:
        return "never"
    seconds = (datetime.now(UTC) - moment).total_seconds()
    for length, unit in ((86_400, "day"), (3_600, "hour"), (60, "minute")):
        if seconds >= length:
            count = int(seconds // length)
            return f"{count} {unit}{'s' * (count != 1)} ago"
    return "just now"
