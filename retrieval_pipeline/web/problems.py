"""What went wrong, as RFC 9457 problem details for programs and as a page for people."""

import errno
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus

from pydantic import BaseModel, ConfigDict, ValidationError

from retrieval_pipeline.errors import (
    AlbumError,
    BuildError,
    EncoderError,
    EngineError,
    MapError,
    NotOnEngineError,
    QueryError,
    RecommendError,
    RetrievalError,
    StoreError,
)
from retrieval_pipeline.images.errors import ImageError, Reason

# Seconds after which to ask again while the engine is away or overloaded.
RETRY_SECONDS = 10

MEDIA_TYPE = "application/problem+json"


class FieldProblem(BaseModel):
    """One parameter that is wrong."""

    model_config = ConfigDict(frozen=True)

    field: str
    message: str


class Problem(BaseModel):
    """Problem details as RFC 9457 has them, with the parameters that are to blame."""

    model_config = ConfigDict(frozen=True)

    type: str = "about:blank"
    title: str
    status: int
    detail: str
    errors: list[FieldProblem] = []


@dataclass
class RequestError(Exception):
    """A request that cannot be fulfilled, and why."""

    status: HTTPStatus
    detail: str
    errors: list[FieldProblem] = field(default_factory=list)
    title: str | None = None
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def problem(self) -> Problem:
        """What the client is told."""
        return Problem(
            title=self.title or self.status.phrase,
            status=self.status,
            detail=self.detail,
            errors=self.errors,
        )


def wrong_parameters(error: ValidationError) -> RequestError:
    """Name every parameter that pydantic refused."""
    problems = [
        FieldProblem(field=_field_name(each["loc"]), message=_message(each["type"], each["msg"]))
        for each in error.errors(include_url=False, include_input=False)
    ]
    return wrong(problems)


def wrong(problems: Sequence[FieldProblem]) -> RequestError:
    """Refuse a request for its parameters."""
    detail = "; ".join(f"{each.field}: {each.message}" for each in problems)
    return RequestError(HTTPStatus.BAD_REQUEST, detail, list(problems), "Wrong parameters")


def _field_name(location: Sequence[int | str]) -> str:
    return ".".join(map(str, location)) or "body"


def _message(kind: str, message: str) -> str:
    if kind == "extra_forbidden":
        return "there is no such parameter"
    return message.removeprefix("Value error, ")


def problem_of(error: RetrievalError) -> RequestError:
    """Say with which status an error of the core is answered."""
    text = str(error)
    match error:
        case BuildError():
            title = "No index to search in"
            return RequestError(HTTPStatus.SERVICE_UNAVAILABLE, text, title=title)
        case NotOnEngineError():
            title = "Not with this engine"
            return RequestError(HTTPStatus.NOT_IMPLEMENTED, text, title=title)
        case EngineError():
            return RequestError(
                HTTPStatus.SERVICE_UNAVAILABLE,
                text,
                title="The engine does not answer",
                headers={"retry-after": str(RETRY_SECONDS)},
            )
        case EncoderError():
            title = "The model cannot be loaded"
            return RequestError(HTTPStatus.SERVICE_UNAVAILABLE, text, title=title)
        case ImageError(reason=Reason.TOO_LARGE):
            return RequestError(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, text)
        case ImageError():
            return RequestError(
                HTTPStatus.UNPROCESSABLE_ENTITY, text, title="The picture cannot be used"
            )
        case QueryError() | RecommendError() | AlbumError():
            return RequestError(HTTPStatus.BAD_REQUEST, text, title="That cannot be answered")
        case MapError():
            return RequestError(HTTPStatus.NOT_FOUND, text, title="There is no map")
        case StoreError() if _is_full(error):
            return RequestError(HTTPStatus.INSUFFICIENT_STORAGE, text, title="The disk is full")
        case _:
            return RequestError(HTTPStatus.SERVICE_UNAVAILABLE, text)


def _is_full(error: BaseException) -> bool:
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT)
