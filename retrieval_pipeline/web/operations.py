"""What an operation of the API is: its parameters, its answer, and what documents them."""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from pydantic import BaseModel, ValidationError
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from retrieval_pipeline.errors import RetrievalError
from retrieval_pipeline.web.files import GoneError
from retrieval_pipeline.web.parameters import parse
from retrieval_pipeline.web.problems import (
    MEDIA_TYPE,
    Problem,
    RequestError,
    problem_of,
    wrong_parameters,
)

# Bytes of a JSON body: a vote is some hundred.
LARGEST_BODY = 10_000

Handler = Callable[[Request, Any], Awaitable[BaseModel | Response]]


class Nothing(BaseModel, extra="forbid", frozen=True):
    """No parameters."""


@dataclass(frozen=True)
class Operation:
    """One method on one path.

    Attributes:
        method: GET, POST or DELETE.
        path: As Starlette routes it.
        handler: Takes the request and its parameters; its docstring is the documentation.
        parameters: Of the path and the query string.
        body: A JSON body, which is handed to the handler in place of the parameters.
        returns: The JSON answer; None for other media.
        media: Media type of another answer.
        largest_body: Bytes of that.
        takes: Media type of a body that the handler reads itself.
        problems: Statuses that the operation may answer with, besides those that all may.
    """

    method: str
    path: str
    handler: Handler
    parameters: type[BaseModel] = Nothing
    body: type[BaseModel] | None = None
    largest_body: int = LARGEST_BODY
    returns: type[BaseModel] | None = None
    media: str | None = None
    takes: str | None = None
    problems: tuple[HTTPStatus, ...] = ()

    @property
    def name(self) -> str:
        """Name of the operation."""
        return self.handler.__name__

    @property
    def summary(self) -> str:
        """First sentence of its documentation."""
        return (self.handler.__doc__ or "").strip().partition("\n")[0]

    def route(self) -> Route:
        """Return the route that answers it."""

        async def endpoint(request: Request) -> Response:
            try:
                parameters = parse(
                    self.parameters, request.query_params.multi_items(), request.path_params
                )
                asked = parameters
                if self.body is not None:
                    asked = await _read_body(request, self.body, self.largest_body)
                answer = await self.handler(request, asked)
            except (RequestError, RetrievalError, GoneError) as error:
                return problem_response(as_request_error(error))
            return answer if isinstance(answer, Response) else json_response(answer)

        return Route(self.path, endpoint, methods=[self.method], name=self.name)


async def read_limited(request: Request, largest: int = LARGEST_BODY) -> bytes:
    """Return a body of at most so many bytes.

    Raises:
        RequestError: It is too large; 413.
    """
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > largest:
            raise RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f"{largest} bytes at most")
    return bytes(data)


async def _read_body(request: Request, model: type[BaseModel], largest: int) -> BaseModel:
    """Read a JSON body.

    Raises:
        RequestError: It is too large, or not what is asked for.
    """
    data = await read_limited(request, largest)
    # A form of another site can send text, but not this without asking first.
    if request.headers.get("content-type", "").partition(";")[0].strip() != "application/json":
        raise RequestError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        raise wrong_parameters(error) from None


def as_request_error(error: RequestError | RetrievalError | GoneError) -> RequestError:
    """Return any error that people can meet as one with a status."""
    if isinstance(error, GoneError):
        return RequestError(HTTPStatus.NOT_FOUND, str(error), title="The picture is gone")
    return problem_of(error) if isinstance(error, RetrievalError) else error


def json_response(
    model: BaseModel, status: HTTPStatus = HTTPStatus.OK, headers: Mapping[str, str] | None = None
) -> Response:
    """Return a model as JSON."""
    return Response(model.model_dump_json(), status, headers=headers, media_type="application/json")


def problem_response(error: RequestError) -> Response:
    """Return problem details."""
    problem: Problem = error.problem
    return Response(
        problem.model_dump_json(), error.status, headers=error.headers, media_type=MEDIA_TYPE
    )
